"""Anderson mixing: each step looks back at how the last ones changed what is left.

With G(u) the state after a sweep from u, and the secants of the last sweeps, a step is

    u ← G(u) − ΔG γ        (`solvers.mixing`)

of every example for itself: where G is affine it is GMRES, and where it is not, a
secant method. A slow mode is extrapolated, one that changes sign at every sweep is
averaged away: undamped synchronous sweeps that swing between two states settle.

A last block that does not feed itself is solved by its move, and is then a function of
the others, which alone are mixed: what is mixed is shorter.

References:
  Anderson 1965, https://doi.org/10.1145/321296.321305
  Walker and Ni 2011, https://doi.org/10.1137/10078356X
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from eqprop_jax import tree, wiring
from eqprop_jax.solvers.mixing import Memory, empty, flatten, mix, unflatten
from eqprop_jax.solvers.settle import compact_here, settle
from eqprop_jax.solvers.sweeps import (
    check_options,
    held,
    make_move,
    sequence,
    update,
    without_noise,
)
from eqprop_jax.types import Equilibrium, Field, Solver, State


def anderson(
    *,
    depth: int = 5,
    regularization: float = 1e-7,
    order: str = 'alternating',
    step_size: float = 1.0,
    clip: tuple[float, float] | None = None,
    tol: float = 1e-4,
    max_steps: int = 250,
    compact: bool | None = None,
) -> Solver:
    """Relaxation with Anderson mixing, to the same equilibria.

    Stopping, residuals and the independence of examples are those of `relaxation`. It
    pays where plain sweeps are slow (tied weights, strong feedback); where they take
    half a dozen, mixing costs more than it saves.

    Args:
      depth: m, the sweeps looked back to; positive. Memory grows with it.
      regularization: λ, relative; not negative.
      order: as in `relaxation`.
      step_size: as in `relaxation`.
      clip: as in `relaxation`; mixed states, too, are brought into these bounds.
      tol: as in `relaxation`.
      max_steps: as in `relaxation`.
      compact: as in `relaxation`.

    Returns:
      solve(field, state) -> Equilibrium, as that of `relaxation`.

    Raises:
      ValueError: for an unknown order, or a number outside its range.
    """
    check_options(order, step_size, clip, tol, max_steps)
    if not (int(depth) == depth and depth >= 1):
        raise ValueError(f'depth has to be a positive integer, not {depth}')
    if not 0 <= regularization < math.inf:
        raise ValueError(
            f'regularization has to be finite and not negative, not {regularization}'
        )

    def solve(field: Field | Callable[[State], State], state: State) -> Equilibrium:
        field = held(without_noise(field), clip)
        move, blocks = make_move(state, step_size, clip), sequence(field, state, order)
        solved: tuple[tuple[str, ...], ...] = ()
        if len(blocks) > 1 and step_size == 1 and clip is None:
            fed = wiring.feeders(field.drive, field.rates(state))
            if not any(fed[name] & set(blocks[-1]) for name in blocks[-1]):
                blocks, solved = blocks[:-1], blocks[-1:]
        names = [name for block in blocks for name in block]

        def mixed(state: State) -> State:
            """Returns the layers that are mixed."""
            return {name: state[name] for name in names} if names else state

        def bounded(state: State) -> State:
            if clip is None:
                return state
            return jax.tree.map(lambda u: jnp.clip(u, *clip), state)

        def advance(
            field: Field, state: State, memory: Memory, step: Array
        ) -> tuple[State, State, Memory]:
            swept = update(field, state, blocks, move)
            start, end = (flatten(mixed(part)) for part in (state, swept))
            shift, memory = mix(memory, start, end, step, regularization)
            target = mixed(swept)
            target = bounded(tree.sub(target, unflatten(shift, target)))
            target = {**swept, **target} if names else target
            ended = update(field, target, solved, move) if solved else target
            # What the sweep itself moved says what was left; how far the step went does
            # not. A block that is solved follows the others.
            moved = tree.sub(swept, state)
            for name in solved[0] if solved else ():
                moved[name] = ended[name] - state[name]
            return ended, moved, memory

        return settle(
            field,
            state,
            advance,
            empty(flatten(mixed(state)), depth),
            through=False,  # what is mixed shrinks by leaps
            bounded=clip is not None,
            tol=tol,
            max_steps=max_steps,
            compact=compact_here(compact),
        )

    return solve
