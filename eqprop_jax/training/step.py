"""Many training steps in one jitted call, and evaluation.

A chunk of steps runs in a `lax.while_loop` whose length is an argument: it compiles
once, whatever the schedule of logging and evaluation. It ends early at the first step
whose loss, gradient or result is not finite, and leaves the state as it was before.
Functions here are those of one device, which has a part of the examples (`mesh`).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Int

from eqprop_jax import dynamics, tree
from eqprop_jax.data import pipeline
from eqprop_jax.data.pipeline import DeviceSplit
from eqprop_jax.training import gradient, mesh
from eqprop_jax.training.gradient import Metrics
from eqprop_jax.training.state import Experiment, TrainState, stream
from eqprop_jax.types import Batch, Params

Lift = Callable[[Callable[..., Any]], Callable[..., Any]]
RESULT = 'the new value of'


class Chunk(NamedTuple):
    """What a chunk of steps returns beside the state."""

    metrics: Metrics
    """Means over the steps taken; of 'max_...' the largest."""
    num_steps: Int[Array, '']
    """Steps taken."""
    finite: Bool[Array, ' quantities']
    """Of the last step tried, by `quantities`; a False stopped the chunk."""


def make_train_chunk(
    experiment: Experiment, lift: Lift | None = None
) -> Callable[..., tuple[TrainState, Chunk]]:
    """Returns the jitted (state, split, epoch, first, num_steps) -> (state, Chunk).

    Args:
      experiment: a run, built.
      lift: takes a function of one run to one of several, which are then trained in one
        program. States and what is returned have a leading axis of runs, and their
        `Scalars` are a last argument. None: one run.

    Args (of the returned function):
      state: donated.
      split: the training examples, from `mesh.place`.
      epoch: whose order is used.
      first: position of the first batch within the epoch.
      num_steps: how many batches to take, up to the epoch's end.
    """
    size = len(experiment.dataset.train.labels)

    def chunk(
        run: Experiment,
        state: TrainState,
        split: DeviceSplit,
        epoch: Int[Array, ''],
        first: Int[Array, ''],
        num_steps: Int[Array, ''],
    ) -> tuple[TrainState, Chunk]:
        order = pipeline.epoch_order(stream(run.seed, 'order'), epoch, size)

        def batch_at(index: Array, step: Array) -> Batch:
            start = (first + index) * run.batch_size
            positions = lax.dynamic_slice_in_dim(order, start, run.batch_size)
            positions, rows = mesh.part_of_batch(positions, run.accumulation_steps)
            part = mesh.gather(split, positions)
            return _batch(run, part, rows, _augment(run, step))

        def step(carry: tuple) -> tuple:
            index, state, total, _ = carry
            grads, metrics = gradient.of_batch(run, state, batch_at(index, state.step))
            moved = _update(run, state, grads)
            finite = _finite(run, metrics, grads, moved.params)
            taken = (index + 1, moved, _accumulate(total, metrics))
            kept = lax.cond(jnp.all(finite), lambda: taken, lambda: carry[:3])
            return *kept, finite

        def go_on(carry: tuple) -> Array:
            index, _, _, finite = carry
            return (index < num_steps) & jnp.all(finite)

        metrics = jax.eval_shape(
            lambda: gradient.of_batch(run, state, batch_at(jnp.int32(0), state.step))[1]
        )
        total = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), metrics)
        finite = jnp.ones(len(quantities(state.params)), bool)
        start = (jnp.zeros((), jnp.int32), state, total, finite)
        index, state, total, finite = lax.while_loop(go_on, step, start)
        means = {
            name: value if name.startswith('max_') else value / jnp.maximum(index, 1)
            for name, value in total.items()
        }
        return state, Chunk(means, index, finite)

    def of_one(state: TrainState, *args: Any) -> tuple[TrainState, Chunk]:
        return chunk(experiment, state, *args)

    def of_all(state: TrainState, *args: Any) -> tuple[TrainState, Chunk]:
        assert lift is not None
        *shared, scalars = args
        return lift(lambda s, state: chunk(experiment.having(s), state, *shared))(
            scalars, state
        )

    everywhere, runs = mesh.EVERYWHERE, mesh.RUNS_DIVIDED
    shared = (mesh.DIVIDED, everywhere, everywhere, everywhere)
    divided = jax.shard_map(
        of_one if lift is None else of_all,
        mesh=experiment.mesh,
        in_specs=(everywhere, *shared) if lift is None else (runs, *shared, runs),
        out_specs=everywhere if lift is None else runs,
        check_vma=False,  # while_loop: what it carries is the same on all devices
    )
    return jax.jit(divided, donate_argnums=0)


def quantities(params: Params) -> list[str]:
    """Returns the names of what `Chunk.finite` says is finite."""
    paths = jax.tree_util.tree_flatten_with_path(params)[0]
    names = [
        jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in paths
    ]
    return [
        'the loss',
        'the answer of any example',
        *(f'the gradient of {name}' for name in names),
        *(f'{RESULT} {name}' for name in names),
    ]


def make_evaluate(
    experiment: Experiment, batch_size: int = 500, lift: Lift | None = None
) -> Callable[[Params, DeviceSplit], Metrics]:
    """Returns the jitted (params, split) -> metrics over all examples of a split.

    Every device evaluates its part of the split. Its last batch is filled up, as the
    last part is, and the filling masked, so that every example counts once.

    Args:
      experiment: a run, built.
      batch_size: examples relaxed at a time.
      lift: as in `make_train_chunk`; parameters and metrics have a leading axis then.
    """
    system = experiment.system

    def evaluate(params: Params, split: DeviceSplit) -> Metrics:
        rows = min(batch_size, split.size)
        num_batches = -(-split.size // rows)

        def one(index: Array) -> tuple[Metrics, Metrics]:
            positions = index * rows + jnp.arange(rows)
            part = tree.take(split, jnp.minimum(positions, split.size - 1))
            counted = (positions < split.size) & (part.labels >= 0)
            batch = _batch(experiment, part, jnp.where(counted, positions, -1))
            free = dynamics.relax(system, params, batch.x, experiment.solve)
            return gradient.over_examples(
                batch, gradient.per_example(experiment, params, batch, free)
            )

        sums, largest = lax.map(one, jnp.arange(num_batches))
        sums = jax.tree.map(jnp.sum, (sums, split.labels >= 0))
        sums, size = mesh.add_up(sums)
        return tree.scale(1 / size, sums) | mesh.largest(jax.tree.map(jnp.max, largest))

    def of_all(params: Params, split: DeviceSplit) -> Metrics:
        assert lift is not None
        return lift(lambda params: evaluate(params, split))(params)

    runs = mesh.EVERYWHERE if lift is None else mesh.RUNS_DIVIDED
    divided = jax.shard_map(
        evaluate if lift is None else of_all,
        mesh=experiment.mesh,
        in_specs=(runs, mesh.DIVIDED),
        out_specs=runs,
        check_vma=False,
    )
    return jax.jit(divided)


def _batch(
    experiment: Experiment,
    part: DeviceSplit,
    rows: Int[Array, ' B'],
    augment: Callable[..., Array] | None = None,
) -> Batch:
    return pipeline.batch(
        part,
        experiment.preprocess,
        experiment.dataset.num_classes,
        rows=rows,
        augment=augment,
    )


def _augment(
    experiment: Experiment, step: Int[Array, '']
) -> Callable[..., Array] | None:
    """Returns what the raw images of a step go through, a function of (seed, step)."""
    if experiment.augment is None:
        return None
    rng = jax.random.fold_in(stream(experiment.seed, 'augment'), step)
    return functools.partial(experiment.augment, rng)


def _update(experiment: Experiment, state: TrainState, grads: Params) -> TrainState:
    updates, opt_state = experiment.optimizer.update(
        grads, state.opt_state, state.params
    )
    return TrainState(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
    )


def _accumulate(total: Metrics, metrics: Metrics) -> Metrics:
    return {
        name: jnp.maximum(total[name], value)
        if name.startswith('max_')
        else total[name] + value
        for name, value in metrics.items()
    }


def _finite(
    run: Experiment, metrics: Metrics, grads: Params, params: Params
) -> Bool[Array, ' quantities']:
    """Whether all is finite; the loss of examples left out of the mean may not be.

    A batch of which all examples are left out has nothing to go on with, unless that
    is what was asked for.
    """
    loss = jnp.isfinite(metrics['loss']) | (metrics['skipped'] > 0)
    leaves = [*jax.tree.leaves(grads), *jax.tree.leaves(params)]
    skips = run.config['estimator'].get('skip_unconverged', False)
    any_left = (metrics['skipped'] < 1) | skips
    return jnp.stack(
        [loss, any_left, *(jnp.all(jnp.isfinite(leaf)) for leaf in leaves)]
    )
