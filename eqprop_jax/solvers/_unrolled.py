"""A fixed number of sweeps, differentiable, with the trajectory if asked for."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from eqprop_jax import tree
from eqprop_jax.solvers._judge import judge, still
from eqprop_jax.solvers._sweeps import as_field, check_options, held, make_sweep
from eqprop_jax.types import Equilibrium, Field, Solver, State


def unrolled(
    *,
    num_steps: int,
    keep_trajectory: bool = False,
    order: str = 'synchronous',
    step_size: float = 1.0,
    clip: tuple[float, float] | None = None,
    tol: float = 1e-4,
) -> Solver:
    """Sweeps a fixed number of times, by `lax.scan`.

    The published schedules relax in this way, and reverse-mode differentiation goes
    through it (memory grows with `num_steps`; call the solver itself, since
    `eqprop_jax.relax` has the derivative of the fixed point instead). No example stops
    early; `tol` only says which count as converged. If the field has noise, every sweep
    adds its own.

    Args:
      num_steps: number of sweeps; positive.
      keep_trajectory: keep the rates of every step, the start included.
      order: as in `relaxation`; by default 'synchronous', as published.
      step_size: as in `relaxation`.
      clip: as in `relaxation`.
      tol: relative error of the worst layer, as `relaxation` estimates it, below which
        an example counts as converged; positive.

    Returns:
      solve(field, state) -> Equilibrium, with `trajectory` leaves [T + 1, B, ...] if
      `keep_trajectory`.

    Raises:
      ValueError: for an unknown order, or a number outside its range.
    """
    check_options(order, step_size, clip, tol, num_steps, bound='num_steps')

    def solve(field: Field | Callable[[State], State], state: State) -> Equilibrium:
        field, sweep = make_sweep(as_field(field), state, order, step_size, clip)
        through = order == 'alternating'

        def body(carry: tuple, number: Array) -> tuple:
            state, verdict = carry
            moved = sweep(field, state)
            move = tree.sub(moved, state)
            now = judge(field, moved, move, verdict.pace, through=through)
            if field.disturb is not None:
                moved = field.disturb(number, moved)
            return (moved, now), field.rates(moved) if keep_trajectory else None

        start = (state, still(state))
        (end, verdict), visited = lax.scan(body, start, jnp.arange(num_steps))
        # No phase that is as long as it was meant to be has failed.
        residual = jnp.where(verdict.residual > 1, 1, verdict.residual)
        trajectory = None
        if keep_trajectory:
            trajectory = tree.stack_first(field.rates(state), visited)
        steps = jnp.full(residual.shape, num_steps, jnp.int32)
        rates = field.rates(end)
        found = Equilibrium(end, rates, residual, steps, residual <= tol, trajectory)
        return found._replace(held=held(field, sweep, rates))

    return solve
