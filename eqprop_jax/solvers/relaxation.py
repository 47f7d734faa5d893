"""Relaxation to a fixed point by sweeps, and by nothing else.

    u_k ← clip(u_k + ε (D_k(σ(u)) − u_k))

one block of units after the other, or all at once (`solvers.sweeps`).
"""

from collections.abc import Callable

from jaxtyping import Array, Float

from eqprop_jax.solvers.settle import Progress, compact_here, settle
from eqprop_jax.solvers.sweeps import (
    check_options,
    make_sweep,
    projection,
    without_noise,
)
from eqprop_jax.types import Equilibrium, Field, Solver, State


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

    Example b stops after the first sweep with

        |F(u_b)| / (|u_b| + tiny) <= tol

    (of complex states both parts, each relative to its own size; see
    `relative_residual`) and is left alone from then on, so its result does not depend
    on its batch-mates. The loop ends when all have stopped or after `max_steps`. An
    example whose norm overflows or turns NaN stops there and counts as not converged.

    Args:
      order: 'alternating' (block after block) or 'synchronous'.
      step_size: ε, the fraction of the way to the drive; positive.
      clip: (low, high) kept by every potential after every move; real states only.
        The residual is then that of the projected field, clip(D) − u: a unit that is
        driven against a bound is at rest there.
      tol: relative residual at which an example is settled; positive. In float32
        below about 1e-6 is out of reach.
      max_steps: bound on the number of sweeps; positive.
      compact: let the last third of a batch go on alone (`solvers.settle`), which
        saves work where slow examples are few; None: on a CPU.

    Returns:
      solve(field, state) -> Equilibrium. The field is a `Field`, or any function
      u ↦ du/dt of a pytree with leading batch axes, which then is swept synchronously.

    Raises:
      ValueError: for an unknown order, or a number outside its range.
    """
    check_options(order, step_size, clip, tol, max_steps)

    def solve(field: Field | Callable[[State], State], state: State) -> Equilibrium:
        def advance(
            field: Field, progress: Progress, residual: Float[Array, ' B'], step: Array
        ) -> Progress:
            del residual, step
            sweep = make_sweep(field, progress.state, order, step_size, clip)
            return Progress(*sweep(progress.state, progress.drive))

        return settle(
            without_noise(field),
            state,
            advance,
            reachable=projection(clip),
            tol=tol,
            max_steps=max_steps,
            compact=compact_here(compact),
        )

    return solve
