"""Anderson mixing: each step uses how the last sweeps changed their moves.

With G(u) the state after a sweep from u, and the secants of the last sweeps, a step is

    u ← G(u) − ΔG γ        (`solvers._mixing`)

of every example for itself: where G is affine it is GMRES, and where it is not, a
secant method. A slow mode is extrapolated, one that changes sign at every sweep is
averaged away: undamped synchronous sweeps that alternate between two states settle.

A last block that does not feed itself is solved by its move, and is then a function of
the others, which alone are mixed: what is mixed is shorter.

References:
  Anderson 1965, https://doi.org/10.1145/321296.321305
  Walker and Ni 2011, https://doi.org/10.1137/10078356X
"""

import math

from jaxtyping import Array

from eqprop_jax import _wiring as wiring
from eqprop_jax import tree
from eqprop_jax.solvers._mixing import Memory, empty, flatten, mix, unflatten
from eqprop_jax.solvers._settle import Advance, by_sweeps
from eqprop_jax.solvers._sweeps import Sweep
from eqprop_jax.types import Field, Solver, State


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
      order: as in `relaxation`, like all that follow.
      step_size: ε of the sweeps.
      clip: bounds, which mixed states, too, are brought into.
      tol: tolerance.
      max_steps: bound on the number of sweeps.
      compact: whether the last third of a batch is relaxed by itself.

    Returns:
      solve(field, state) -> Equilibrium, as that of `relaxation`.

    Raises:
      ValueError: for an unknown order, or a number outside its range.
    """
    if not (int(depth) == depth and depth >= 1):
        raise ValueError(f'depth has to be a positive integer, not {depth}')
    if not 0 <= regularization < math.inf:
        raise ValueError(
            f'regularization has to be finite and not negative, not {regularization}'
        )

    def begin(field: Field, state: State, sweep: Sweep) -> tuple[Advance, Memory]:
        mixed, solved = _apart(field, state, sweep)

        def parts_of(state: State) -> State:
            return {n: state[n] for n in mixed.names} if mixed.names else state

        def advance(
            field: Field, state: State, memory: Memory, step: Array
        ) -> tuple[State, State, Memory]:
            swept = mixed(field, state)
            target = parts_of(swept)
            ends = flatten(parts_of(state)), flatten(target)
            shift, memory = mix(memory, *ends, step, regularization)
            target = sweep.clipped(tree.sub(target, unflatten(shift, target)))
            target = {**swept, **target} if mixed.names else target
            # What the sweep itself moved says what was left; how far the step went does
            # not. A block that is solved follows the others.
            moved = tree.sub(swept, state)
            if solved.names:
                target = solved(field, target)
                moved |= {name: target[name] - state[name] for name in solved.names}
            return target, moved, memory

        return advance, empty(flatten(parts_of(state)), depth)

    return by_sweeps(  # what is mixed shrinks by leaps: not `through`
        begin,
        order=order,
        step_size=step_size,
        clip=clip,
        tol=tol,
        max_steps=max_steps,
        compact=compact,
    )


def _apart(field: Field, state: State, sweep: Sweep) -> tuple[Sweep, Sweep]:
    """Returns the sweep of what is mixed, and that of a last block that is solved."""
    blocks, whole = sweep.blocks, sweep.step_size == 1 and sweep.clip is None
    none = sweep._replace(blocks=())
    if len(blocks) < 2 or not whole:
        return sweep, none
    fed = wiring.feeders(field.drive, field.rates(state))
    if any(fed[name] & set(blocks[-1]) for name in blocks[-1]):
        return sweep, none
    return sweep._replace(blocks=blocks[:-1]), sweep._replace(blocks=blocks[-1:])
