"""Anderson mixing: each step looks back at how the last ones changed what is left.

With G(u) the state after a sweep from u, and the secants of the last sweeps, a step is

    u ← G(u) − ΔG γ        (`solvers.mixing`)

of every example for itself: where G is affine it is GMRES, and where it is not, a
secant method. A slow mode is extrapolated, one that changes sign at every sweep is
averaged away: undamped synchronous sweeps that swing between two states settle.

Blocks that do not feed themselves are solved by their move. The last block is then a
function of the others, which alone are mixed: what is mixed is shorter, and a step
costs the products of one sweep, its exact residual included.

References:
  Anderson 1965, https://doi.org/10.1145/321296.321305
  Walker and Ni 2011, https://doi.org/10.1137/10078356X
"""

import math
from collections.abc import Callable

from jaxtyping import Array, Float

from eqprop_jax import tree
from eqprop_jax.solvers.mixing import empty, flatten, mix, unflatten
from eqprop_jax.solvers.settle import Progress, compact_here, settle
from eqprop_jax.solvers.sweeps import (
    check_options,
    make_move,
    projection,
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
        field = without_noise(field)
        move, blocks = make_move(state, step_size, clip), sequence(field, state, order)
        solved: tuple[tuple[str, ...], ...] = ()
        if field.blocks and blocks and step_size == 1 and clip is None:
            blocks, solved = blocks[:-1], blocks[-1:]
        bounded = projection(clip)

        def mixed(state: State) -> State:
            """Returns the layers that are mixed."""
            if not solved:
                return state
            return {name: u for name, u in state.items() if name not in solved[0]}

        def advance(
            field: Field, progress: Progress, residual: Float[Array, ' B'], step: Array
        ) -> Progress:
            swept, _ = update(field, progress.state, progress.drive, blocks, move)
            target = mixed(swept)
            end = flatten(target)
            start = flatten(mixed(progress.state))
            shift, memory = mix(
                progress.memory, start, end, residual, step, regularization
            )
            target = bounded(tree.sub(target, unflatten(shift, target)))
            state = {**swept, **target} if solved else target
            drive = field.drive(field.rates(state))
            if solved:
                state, drive = update(field, state, drive, solved, move)
            return Progress(state, drive, memory)

        return settle(
            field,
            state,
            advance,
            empty(flatten(mixed(state)), depth),
            reachable=bounded,
            tol=tol,
            max_steps=max_steps,
            compact=compact_here(compact),
        )

    return solve
