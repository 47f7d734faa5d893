"""Relaxation to a fixed point by plain sweeps.

    u_k ← clip(u_k + ε (D_k(σ(u)) − u_k))

one block of units after the other, or all at once (`solvers._sweeps`).
"""

from jaxtyping import Array

from eqprop_jax import tree
from eqprop_jax.solvers._settle import Advance, by_sweeps
from eqprop_jax.solvers._sweeps import Sweep
from eqprop_jax.types import Field, Solver, State


def relaxation(
    *,
    order: str = 'alternating',
    step_size: float = 1.0,
    clip: tuple[float, float] | None = None,
    tol: float = 1e-4,
    max_steps: int = 250,
    compact: bool | None = None,
) -> Solver:
    """Sweeps until every example is settled, each stopping for itself.

    An example stops after the first sweep that leaves, in every layer,

        what is left to move  <=  tol · |u_l|

    of a nudged phase or a linear solve relative to what has moved there, so that `tol`
    is the relative error of the worst layer (`solvers._judge` has how it is estimated).
    It does not change from then on, so its result does not depend on the rest of its
    batch. The loop ends when all have stopped or after `max_steps`. An example that
    rounding keeps from settling stops there, and so does one whose norm overflows or
    turns NaN; neither counts as converged.

    Args:
      order: 'alternating' (block after block) or 'synchronous'.
      step_size: ε, the fraction of the way to the drive; positive.
      clip: (low, high) kept by every potential after every move; real states only.
        A unit that is driven against a bound is at rest there.
      tol: relative error of the worst layer at which an example is settled; positive.
        In float32 below about 1e-6 is out of reach.
      max_steps: bound on the number of sweeps; positive.
      compact: relax the last third of a batch by itself (`solvers._settle`), which
        saves work where slow examples are few; None: on a CPU.

    Returns:
      solve(field, state) -> Equilibrium. The field is a `Field`, or any function
      u ↦ du/dt of a pytree with leading batch axes, which then is swept synchronously.

    Raises:
      ValueError: for an unknown order, or a number outside its range.
    """

    def begin(field: Field, state: State, sweep: Sweep) -> tuple[Advance, tuple]:
        del field, state

        def advance(
            field: Field, state: State, memory: tuple, step: Array
        ) -> tuple[State, State, tuple]:
            del step
            moved = sweep(field, state)
            return moved, tree.sub(moved, state), memory

        return advance, ()

    return by_sweeps(
        begin,
        order=order,
        step_size=step_size,
        clip=clip,
        tol=tol,
        max_steps=max_steps,
        compact=compact,
        through=order == 'alternating',
    )
