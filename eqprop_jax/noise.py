"""Noise in the dynamics: what a substrate adds to every potential, sweep by sweep.

    u ← sweep(u) + σ ξ,    ξ ~ N(0, 1), independent of unit, example and sweep

To real and imaginary parts each, where the state is complex. A network with noise never
settles: it fluctuates about its equilibrium, by σ² Σ_k Aᵏ (Aᵏ)ᵀ where a sweep is linear
with the matrix A.

References:
  Laborieux and Zenke 2022, section 4.1, https://arxiv.org/abs/2209.00530
"""

import math
from collections.abc import Callable

import jax
from jaxtyping import Array, Int

from eqprop_jax import tree
from eqprop_jax.types import State

Disturb = Callable[[Array, State], State]
"""(number of the sweep, state) -> the state with the noise of that sweep."""


def disturbance(scale: float, rng: jax.Array, numbers: Int[Array, ' B']) -> Disturb:
    """Returns (number of the sweep, u) ↦ u + σ ξ.

    Args:
      scale: σ.
      rng: key; every sweep folds its number in.
      numbers: of the examples in the whole batch, which their draws depend on.
    """

    def disturb(number: Array, state: State) -> State:
        is_complex = tree.is_complex(state)
        key = jax.random.fold_in(rng, number)
        keys, like = jax.random.split(key), tree.real(state)
        if not is_complex:
            keys = key[None]
        draws = [tree.per_example_normal(key, like, numbers) for key in keys]
        draw = tree.combine(*draws) if is_complex else draws[0]
        return tree.add(state, tree.scale(scale, draw))

    return disturb


def check(scale: float) -> None:
    """Raises ValueError unless σ is finite and not negative."""
    if not (math.isfinite(scale) and scale >= 0):
        raise ValueError(f'noise cannot be negative, and is finite: {scale}')
