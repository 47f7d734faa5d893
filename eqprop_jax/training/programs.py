"""What is compiled: many steps in one call, and evaluation, of one run or of several.

A chunk of steps runs in a `lax.while_loop` whose length is an argument: it compiles
once, whatever the schedule of logging and evaluation. It ends early at the first step
whose loss, gradient or result is not finite, and leaves the state as it was before.

All that runs of one program may differ in is in their states, over which they are
mapped. They exchange nothing: devices are divided among them first (the axis `runs` of
a mesh), and those of one device are vmapped, or done one after the other ('map').
Vmapped runs wait for each other in every phase, and cost little where a device is not
full; on a CPU one run fills it.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int

from eqprop_jax import dynamics, tree
from eqprop_jax.data import _pipeline as pipeline
from eqprop_jax.data._pipeline import DeviceSplit
from eqprop_jax.training import mesh, metrics
from eqprop_jax.training.diagnose import diagnosis
from eqprop_jax.training.metrics import Tally, Values
from eqprop_jax.training.state import Experiment, TrainState, stream
from eqprop_jax.training.step import quantities, step
from eqprop_jax.types import Batch, Params

WAYS: Mapping[str, Callable] = {
    'vmap': jax.vmap,
    'map': lambda fn: lambda *args: lax.map(lambda each: fn(*each), args),
}
"""How several runs of a device are done."""


class Chunk(NamedTuple):
    """What a chunk of steps returns beside the state."""

    metrics: Values
    """Means over the steps taken; of 'max_...' the largest."""
    num_steps: Int[Array, '']
    """Steps taken."""
    finite: Bool[Array, ' quantities']
    """Of the last step tried, by `step.quantities`; a False stopped the chunk."""


def make_train_chunk(
    run: Experiment, way: str | None = None
) -> Callable[..., tuple[TrainState, Chunk]]:
    """Returns the jitted (state, split, epoch, first, num_steps) -> (state, Chunk).

    The state is donated. `split` is of `mesh.place`, `first` the position of the first
    batch within the epoch, and `num_steps` goes up to its end. With a way, a key of
    `WAYS`, states and chunks are those of several runs and have a leading axis.
    """
    size, classes = len(run.dataset.train.labels), run.dataset.num_classes

    def chunk(
        state: TrainState,
        split: DeviceSplit,
        epoch: Int[Array, ''],
        first: Int[Array, ''],
        num_steps: Int[Array, ''],
    ) -> tuple[TrainState, Chunk]:
        order = pipeline.epoch_order(stream(state.seed, 'order'), epoch, size)

        def one(state: TrainState, index: Array) -> tuple:
            start = (first + index) * run.batch_size
            positions = lax.dynamic_slice_in_dim(order, start, run.batch_size)
            positions, rows = mesh.part_of_batch(positions, run.accumulation_steps)
            augment = run.augment
            if augment is not None:
                rng = jax.random.fold_in(stream(state.seed, 'augment'), state.step)
                augment = functools.partial(augment, rng)
            part = mesh.gather(split, positions)
            batch = pipeline.batch(
                part, run.preprocess, classes, rows=rows, augment=augment
            )
            return step(run, state, batch)

        def body(carry: tuple) -> tuple:
            index, state, total, _ = carry
            moved, tally, finite = one(state, index)
            taken = (index + 1, moved, total + tally)
            kept = lax.cond(jnp.all(finite), lambda: taken, lambda: carry[:3])
            return *kept, finite

        def go_on(carry: tuple) -> Array:
            index, _, _, finite = carry
            return (index < num_steps) & jnp.all(finite)

        tally = jax.eval_shape(lambda: one(state, jnp.int32(0))[1])
        finite = jnp.ones(len(quantities(state.params)), bool)
        start = (jnp.zeros((), jnp.int32), state, tree.zeros_like(tally), finite)
        index, state, total, finite = lax.while_loop(go_on, body, start)
        return state, Chunk(metrics.means(total), index, finite)

    shared = (mesh.DIVIDED, *(mesh.EVERYWHERE,) * 3)
    return jax.jit(_divided(chunk, run, way, shared), donate_argnums=0)


def make_evaluate(
    run: Experiment, batch_size: int = 500, way: str | None = None
) -> Callable[[Params, DeviceSplit], Values]:
    """Returns the jitted (params, split) -> metrics over all examples of a split.

    Every device evaluates its part of the split, `batch_size` examples at a time. Its
    last batch is filled up, as the last part is, and the filling masked, so that every
    example counts once. A way is as in `make_train_chunk`.
    """
    classes = run.dataset.num_classes

    def evaluate(params: Params, split: DeviceSplit) -> Values:
        rows = min(batch_size, split.size)

        def one(index: Array) -> Tally:
            positions = index * rows + jnp.arange(rows)
            part = tree.take(split, jnp.minimum(positions, split.size - 1))
            counted = (positions < split.size) & part.known
            numbers = jnp.where(counted, positions, -1)
            batch = pipeline.batch(part, run.preprocess, classes, rows=numbers)
            free = dynamics.relax(run.system, params, batch.x, run.solve)
            values = metrics.of_equilibrium(
                run.system, params, batch, free, run.dataset.variance
            )
            return metrics.tally(batch, *values)

        each = lax.map(one, jnp.arange(-(-split.size // rows)))
        tally = Tally(
            jax.tree.map(jnp.sum, each.sums), jax.tree.map(jnp.max, each.largest)
        )
        return metrics.means(mesh.total(tally))

    return jax.jit(_divided(evaluate, run, way, (mesh.DIVIDED,)))


def make_diagnose(
    run: Experiment, way: str | None = None
) -> Callable[[Params, jax.Array, Batch], Values]:
    """Returns the jitted (params, rng, batch) -> `diagnosis`, of one batch."""
    return jax.jit(_of_runs(functools.partial(diagnosis, run), way, own=2))


def _of_runs(fn: Callable, way: str | None, own: int = 1) -> Callable:
    """Returns a function of one run as one of several, if there is a way.

    The first `own` arguments have a leading axis then; the others are shared.
    """
    if way is None:
        return fn

    def of_all(*args: Any) -> Any:
        return WAYS[way](lambda *each: fn(*each, *args[own:]))(*args[:own])

    return of_all


def _divided(fn: Callable, run: Experiment, way: str | None, shared: tuple) -> Callable:
    """Returns (what a run has, *shared) -> ..., on the devices of a mesh."""
    runs = mesh.EVERYWHERE if way is None else mesh.RUNS_DIVIDED
    return jax.shard_map(
        _of_runs(fn, way),
        mesh=run.mesh,
        in_specs=(runs, *shared),
        out_specs=runs,
        check_vma=False,  # while_loop: what it carries is the same on all devices
    )
