"""The one loop of all relaxations, and how it leaves settled examples behind.

Every example stops at its own tolerance; what a sweep costs does not shrink with them.
A few slow examples decide how many sweeps a batch takes, so once no more than a third
of the batch is unsettled, that third is gathered into a batch of its own and goes on
alone, and so forth (compaction). No result depends on it, since no example's does on
its batch-mates.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from eqprop_jax import tree
from eqprop_jax.solvers.sweeps import relative_residual
from eqprop_jax.types import Equilibrium, Field, State

SHARE = 3  # what is gathered is the batch divided by this
FEWEST = 4  # examples in a batch that is gathered


class Progress(NamedTuple):
    """Where a relaxation is; leaves [B, ...]."""

    state: State
    """u."""
    drive: State
    """D at u."""
    memory: Any = ()
    """What the method keeps of earlier sweeps; that of settled examples is moot."""


Advance = Callable[[Field, Progress, Float[Array, ' B'], Int[Array, '']], Progress]
"""(field, progress, residual of it, sweeps so far) -> progress after one more."""


def settle(
    field: Field,
    state: State,
    advance: Advance,
    memory: Any = (),
    *,
    reachable: Callable[[State], State],
    tol: float,
    max_steps: int,
    compact: bool,
) -> Equilibrium:
    """Advances until every example is settled, or `max_steps` times.

    Args:
      field: what moves the state.
      state: where it starts.
      advance: one sweep.
      memory: what `advance` starts with.
      reachable: the part of a drive that the state can follow, for the residual.
      tol: relative residual at which an example is settled.
      max_steps: bound on the number of sweeps.
      compact: gather what is left once it is a third of the batch, if the field can
        be taken apart.
    """

    def gap(progress: Progress) -> Float[Array, ' B']:
        return relative_residual(reachable(progress.drive), progress.state)

    def run(field: Field, start: tuple, step: Array, leave: list[int]) -> tuple:
        """Runs until no more than leave[0] are unsettled, then with those alone."""

        def unsettled(carry: tuple) -> Array:
            (_, residual, _), step = carry
            return (step < max_steps) & (jnp.sum(residual > tol) > leave[0])

        def body(carry: tuple) -> tuple:
            (progress, residual, num_steps), step = carry
            active = residual > tol
            moved = advance(field, progress, residual, step)
            kept = tree.select(active, moved[:2], progress[:2])
            progress = Progress(*kept, moved.memory)
            # Of what moved: then a sweep reads of the D before it only the first block,
            # and the compiler leaves the rest out of the one before all sweeps.
            residual = jnp.where(active, gap(moved), residual)
            return (progress, residual, num_steps + active), step + 1

        end, step = lax.while_loop(unsettled, body, (start, step))
        if not leave[0]:
            return end
        if field.take is None:
            raise ValueError('what Field.take returns has to have a take of its own')
        take = field.take

        def go_on(end: tuple) -> tuple:
            which = jnp.argsort(~(end[1] > tol))[: leave[0]]  # the unsettled ones first
            rest = run(take(which), tree.take(end, which), step, leave[1:])
            return tree.put(end, which, rest)

        unfinished = jnp.any(end[1] > tol) & (step < max_steps)
        return lax.cond(unfinished, go_on, lambda end: end, end)

    drive = field.drive(field.rates(state))
    residual = jnp.full_like(relative_residual(drive, state), jnp.inf)
    num_steps = jnp.zeros(residual.shape, jnp.int32)
    leave = sizes(residual.size) if compact and field.take is not None else []
    start = (Progress(state, drive, memory), residual, num_steps)
    progress, residual, num_steps = run(
        field, start, jnp.zeros((), jnp.int32), [*leave, 0]
    )
    return Equilibrium(
        state=progress.state,
        rates=field.rates(progress.state),
        residual=residual,
        num_steps=num_steps,
        converged=residual <= tol,
    )


def compact_here(compact: bool | None) -> bool:
    """Returns whether to compact; by default where work counts more than width."""
    return jax.default_backend() == 'cpu' if compact is None else compact


def sizes(batch_size: int) -> list[int]:
    """Returns how many examples are gathered, from one batch to the next."""
    smaller = batch_size // SHARE
    return [smaller, *sizes(smaller)] if smaller >= FEWEST else []
