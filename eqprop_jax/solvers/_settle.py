"""The loop of all relaxations, and how it drops examples that have settled.

Every example stops at its own tolerance, but a sweep costs the same however few still
move. Once no more than a third of a batch is unsettled, these examples are gathered
into a smaller batch, which is relaxed by itself, and so on (compaction). No result
depends on it, since the result of an example does not depend on the rest of its batch.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

from eqprop_jax import tree
from eqprop_jax.solvers._judge import judge, lost_in_rounding, still
from eqprop_jax.solvers._sweeps import (
    Sweep,
    check_options,
    held,
    make_sweep,
    prepared,
    without_noise,
)
from eqprop_jax.types import Equilibrium, Field, Solver, State

SHARE = 3  # what is gathered is the batch divided by this
FEWEST = 4  # examples in a batch that is gathered
FEWEST_ON_ACCELERATOR = 12  # a guess: there fewer should take no less time
ROWS = ('origin', 'rates', 'drive', 'pushed', 'scale')  # of a response, [B, ...]

Advance = Callable[[Field, State, Any, Int[Array, '']], tuple[State, State, Any]]
"""(field, u, memory, sweeps so far) -> (u after one more, what it moved, memory). The
memory is what the method keeps of earlier sweeps, leaves [B, ...]."""


def by_sweeps(
    begin: Callable[[Field, State, Sweep], tuple[Advance, Any]],
    *,
    order: str,
    step_size: float,
    clip: tuple[float, float] | None,
    tol: float,
    max_steps: int,
    compact: bool | None,
    through: bool = False,
) -> Solver:
    """Returns solve(field, state) -> Equilibrium for a method that is made of sweeps.

    Args:
      begin: (field, u, sweep) -> how the method advances, and its first memory.
      order: as in `relaxation`, like `step_size`, `clip`, `tol` and `max_steps`.
      step_size: ε.
      clip: bounds.
      tol: tolerance.
      max_steps: bound on the number of sweeps.
      compact: as in `settle`, like `through`.
      through: whether a sweep under a nudge carries it through all layers.

    Raises:
      ValueError: for an unknown order, or a number outside its range.
    """
    check_options(order, step_size, clip, tol, max_steps)

    def solve(field: Field | Callable[[State], State], state: State) -> Equilibrium:
        field, sweep = make_sweep(without_noise(field), state, order, step_size, clip)
        found = settle(
            field,
            state,
            *begin(field, state, sweep),
            through=through,
            bounded=clip is not None,
            tol=tol,
            max_steps=max_steps,
            compact=compact,
        )
        return found._replace(held=held(field, sweep, found.rates))

    return solve


def settle(
    field: Field,
    state: State,
    advance: Advance,
    memory: Any = (),
    *,
    through: bool,
    bounded: bool,
    tol: float,
    max_steps: int,
    compact: bool | None = None,
) -> Equilibrium:
    """Advances until every example is settled or stuck, or `max_steps` times.

    Args:
      field: what moves the state.
      state: where it starts.
      advance: one sweep.
      memory: what `advance` starts with.
      through: whether a sweep under a nudge carries it through all layers.
      bounded: whether bounds hold units, which then do not move for good.
      tol: residual at which an example is settled, see `solvers._judge`.
      max_steps: bound on the number of sweeps.
      compact: gather the unsettled examples once they are a third of the batch, if
        the field is divisible; None: on a CPU.
    """

    def moving(residual: Array, stuck: Array) -> Array:
        return (residual > tol) & ~stuck  # False for NaN

    def run(field: Field, start: tuple, step: Array, leave: list[int]) -> tuple:
        """Runs until no more than leave[0] still move, then with those alone."""
        ready = prepared(field, start[0][0])

        def unsettled(carry: tuple) -> Array:
            (_, (residual, stuck, _), _), step = carry
            moves = jnp.sum(moving(residual, stuck))
            return (step < max_steps) & (moves > leave[0])

        def body(carry: tuple) -> tuple:
            ((state, memory), verdict, num_steps), step = carry
            active = moving(*verdict[:2])
            moved, move, memory = advance(ready, state, memory, step)
            now = judge(ready, moved, move, verdict.pace, through=through)
            state, verdict = tree.select(active, (moved, now), (state, verdict))
            num_steps += active.astype(jnp.int32)
            return ((state, memory), verdict, num_steps), step + 1

        end, step = lax.while_loop(unsettled, body, (start, step))
        if not leave[0]:
            return end

        def gathered(end: tuple) -> tuple:
            first = jnp.argsort(~moving(*end[1][:2]))  # the moving ones first
            which = first[: leave[0]]
            own = rows_of(field, which)
            rest = run(own, tree.take(end, which), step, leave[1:])
            return tree.put(end, which, rest)

        unfinished = jnp.any(moving(*end[1][:2])) & (step < max_steps)
        return lax.cond(unfinished, gathered, lambda end: end, end)

    verdict = still(state)
    num_steps = jnp.zeros(verdict.residual.shape, jnp.int32)
    gathers = compact_here(compact) and is_divisible(field)
    on_cpu = jax.default_backend() == 'cpu'
    fewest = FEWEST if on_cpu else FEWEST_ON_ACCELERATOR
    leave = sizes(num_steps.size, fewest) if gathers else []
    start = ((state, memory), verdict, num_steps)
    (state, _), verdict, num_steps = run(
        field, start, jnp.zeros((), jnp.int32), [*leave, 0]
    )
    residual = verdict.residual
    if not bounded:
        residual = jnp.where(lost_in_rounding(field, state), jnp.nan, residual)
    rates = field.rates(state)
    return Equilibrium(state, rates, residual, num_steps, residual <= tol)


def is_divisible(field: Field) -> bool:
    """Returns whether the drive carries what it knows of each example as leaves."""
    leaves = jax.tree.leaves(field.drive)
    return not any(map(callable, leaves))  # a plain function is a leaf itself


def rows_of(field: Field, which: Int[Array, ' k']) -> Field:
    """Returns the part of a divisible field that these examples of the batch have."""
    response = field.response
    if response is not None:
        values = {name: tree.take(getattr(response, name), which) for name in ROWS}
        # under other nudges other examples may be unsettled
        response = response._replace(together=None, **values)
    return field._replace(drive=tree.take(field.drive, which), response=response)


def compact_here(compact: bool | None) -> bool:
    """Returns whether to compact; by default on a CPU."""
    return jax.default_backend() == 'cpu' if compact is None else compact


def sizes(batch_size: int, fewest: int = FEWEST) -> list[int]:
    """Returns how many examples are gathered, from one batch to the next."""
    smaller = batch_size // SHARE
    return [smaller, *sizes(smaller, fewest)] if smaller >= fewest else []
