"""Noise in the dynamics: what a substrate adds to every potential, sweep by sweep.

    u ← sweep(u) + σ ξ,    ξ ~ N(0, 1), independent of unit, example and sweep

to real and imaginary parts each, where the state is complex. A network with noise never
settles. Where a sweep is linear with the matrix A, it fluctuates about its equilibrium
with the covariance σ² Σ_{k≥0} Aᵏ (Aᵏ)ᵀ; under a complex nudge E[z z†] is twice that,
with (Aᵏ)† in place of (Aᵏ)ᵀ.

References:
  Laborieux and Zenke 2022, Table 1 (there in the real parts alone),
  https://arxiv.org/abs/2209.00530
"""

import math
from collections.abc import Callable

import jax
from jax.typing import ArrayLike
from jaxtyping import Array, Int

from eqprop_jax import tree
from eqprop_jax.types import State

Disturb = Callable[[Array, State], State]
"""(number of the sweep, state) -> the state with the noise of that sweep."""


def disturbance(
    scale: float,
    rng: jax.Array,
    numbers: Int[Array, ' B'],
    *,
    imaginary: ArrayLike = 1.0,
) -> Disturb:
    """Returns (number of the sweep, u) ↦ u + σ ξ.

    Args:
      scale: σ.
      rng: key; every sweep folds its number in.
      numbers: of the examples in the whole batch, which their draws depend on.
      imaginary: what σ is multiplied by in the imaginary parts of a complex state.
    """

    def disturb(number: Array, state: State) -> State:
        key = jax.random.fold_in(rng, number)
        like = tree.real(state)
        draw = tree.per_example_normal(key, like, numbers)
        if tree.is_complex(state):
            other = tree.per_example_normal(jax.random.fold_in(key, 1), like, numbers)
            draw = tree.combine(draw, tree.scale(imaginary, other))
        return tree.add(state, tree.scale(scale, draw))

    return disturb


def check(scale: float) -> None:
    """Raises ValueError unless σ is finite and not negative."""
    if not (math.isfinite(scale) and scale >= 0):
        raise ValueError(f'noise cannot be negative, and is finite: {scale}')
