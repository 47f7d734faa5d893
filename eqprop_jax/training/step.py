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

from eqprop_jax import alignment, dynamics, tree
from eqprop_jax.data import pipeline
from eqprop_jax.data.pipeline import DeviceSplit
from eqprop_jax.training import mesh
from eqprop_jax.training.state import Experiment, TrainState, stream
from eqprop_jax.types import Batch, Equilibrium, Params

Metrics = dict[str, Array]
RESULT = 'the new value of'


class Chunk(NamedTuple):
    """What a chunk of steps returns beside the state."""

    metrics: Metrics
    """Means over the steps taken; of 'max_...' the largest."""
    num_steps: Int[Array, '']
    """Steps taken."""
    finite: Bool[Array, ' quantities']
    """Of the last step tried, by `quantities`; a False stopped the chunk."""


def make_train_chunk(experiment: Experiment) -> Callable[..., tuple[TrainState, Chunk]]:
    """Returns the jitted (state, split, epoch, first, num_steps) -> (state, Chunk).

    Args (of the returned function):
      state: donated.
      split: the training examples, from `mesh.place`.
      epoch: whose order is used.
      first: position of the first batch within the epoch.
      num_steps: how many batches to take, up to the epoch's end.
    """
    size = len(experiment.dataset.train.labels)

    def chunk(
        state: TrainState,
        split: DeviceSplit,
        epoch: Int[Array, ''],
        first: Int[Array, ''],
        num_steps: Int[Array, ''],
    ) -> tuple[TrainState, Chunk]:
        order = pipeline.epoch_order(stream(experiment.seed, 'order'), epoch, size)

        def batch_at(index: Array, step: Array) -> Batch:
            start = (first + index) * experiment.batch_size
            positions = lax.dynamic_slice_in_dim(order, start, experiment.batch_size)
            positions, rows = mesh.part_of_batch(positions)
            part = mesh.gather(split, positions)
            return _batch(experiment, part, rows, _augment(experiment, step))

        def step(carry: tuple) -> tuple:
            index, state, total, _ = carry
            grads, metrics = _gradient(experiment, state, batch_at(index, state.step))
            moved = _update(experiment, state, grads)
            finite = _finite(metrics, grads, moved.params)
            taken = (index + 1, moved, _accumulate(total, metrics))
            kept = lax.cond(jnp.all(finite), lambda: taken, lambda: carry[:3])
            return *kept, finite

        def go_on(carry: tuple) -> Array:
            index, _, _, finite = carry
            return (index < num_steps) & jnp.all(finite)

        metrics = jax.eval_shape(
            lambda: _gradient(experiment, state, batch_at(jnp.int32(0), state.step))[1]
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

    everywhere = mesh.EVERYWHERE
    divided = jax.shard_map(
        chunk,
        mesh=experiment.mesh,
        in_specs=(everywhere, mesh.DIVIDED, everywhere, everywhere, everywhere),
        out_specs=everywhere,
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
        *(f'the gradient of {name}' for name in names),
        *(f'{RESULT} {name}' for name in names),
    ]


def make_evaluate(
    experiment: Experiment, batch_size: int = 500
) -> Callable[[Params, DeviceSplit], Metrics]:
    """Returns the jitted (params, split) -> metrics over all examples of a split.

    Every device evaluates its part of the split. Its last batch is filled up, as the
    last part is, and the filling masked, so that every example counts once.
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
            return _over_examples(batch, _per_example(experiment, params, batch, free))

        sums, largest = lax.map(one, jnp.arange(num_batches))
        sums = jax.tree.map(jnp.sum, (sums, split.labels >= 0))
        sums, size = mesh.add_up(sums)
        return tree.scale(1 / size, sums) | mesh.largest(jax.tree.map(jnp.max, largest))

    divided = jax.shard_map(
        evaluate,
        mesh=experiment.mesh,
        in_specs=(mesh.EVERYWHERE, mesh.DIVIDED),
        out_specs=mesh.EVERYWHERE,
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


def _gradient(
    experiment: Experiment, state: TrainState, batch: Batch
) -> tuple[Params, Metrics]:
    key = jax.random.fold_in(stream(experiment.seed, 'estimate'), state.step)
    estimate_rng, penalty_rng = jax.random.split(key)
    free = dynamics.relax(experiment.system, state.params, batch.x, experiment.solve)
    grads, _, info = experiment.learn(state.params, batch, free, estimate_rng)
    one = 1 / experiment.batch_size
    kept = one * jnp.round(jnp.sum(batch.counted) * (1 - info.skipped))
    sums, largest = _over_examples(
        batch,
        {
            **_per_example(experiment, state.params, batch, free),
            'max_nudged_residual': info.residual,
            'nudged_steps': jnp.mean(info.num_steps, axis=0),
            'settled': info.converged,
            'skipped': info.skipped,
        },
    )
    parts = {'grads': tree.scale(kept, grads), 'kept': kept, 'metrics': sums}
    if experiment.penalty is not None:
        penalty = _on_a_fraction(
            jax.value_and_grad(experiment.penalty),
            experiment.penalty_fraction,
            penalty_rng,
            (state.params, batch, free),
        )
        parts['penalty'] = tree.scale(one * jnp.sum(batch.counted), penalty)
    parts = mesh.add_up(parts)
    grads = tree.scale(1 / jnp.maximum(parts['kept'], one), parts['grads'])
    metrics = tree.scale(one, parts['metrics']) | mesh.largest(largest)
    if experiment.penalty is not None:
        penalty, penalty_grads = parts['penalty']
        grads = tree.add(grads, tree.scale(experiment.penalty_weight, penalty_grads))
        metrics['homeostasis'] = penalty
    if experiment.kolen_pollack:
        grads = alignment.kolen_pollack(experiment.system, grads)
    return grads, metrics


def _on_a_fraction(
    fn: Callable[..., Any], fraction: float, rng: jax.Array, args: tuple
) -> Any:
    """Returns fn(*args, rng) / p on a random fraction p of the steps, elsewhere zeros.

    Its mean over steps is what it would be with p = 1.
    """

    def measured(rng: jax.Array) -> Any:
        return tree.scale(1 / fraction, fn(*args, rng))

    if fraction == 1:
        return measured(rng)
    turn_rng, rng = jax.random.split(rng)
    nothing = tree.zeros_like(jax.eval_shape(measured, rng))
    turn = jax.random.bernoulli(turn_rng, fraction)
    return lax.cond(turn, measured, lambda _: nothing, rng)


def _per_example(
    experiment: Experiment, params: Params, batch: Batch, free: Equilibrium
) -> Metrics:
    scores = experiment.system.predict(params, free.rates)
    wrong = jnp.argmax(scores, axis=-1) != jnp.argmax(batch.y, axis=-1)
    return {
        'loss': experiment.system.cost(params, free.rates, batch.y),
        'error': wrong.astype(scores.dtype),
        'residual': free.residual,
        'max_residual': free.residual,
        'converged': free.converged.astype(scores.dtype),
        'free_steps': free.num_steps.astype(scores.dtype),
        'max_free_steps': free.num_steps.astype(scores.dtype),
    }


def _over_examples(batch: Batch, values: Metrics) -> tuple[Metrics, Metrics]:
    """Returns the sums over the examples that count; of 'max_...' the largest, apart.

    What is one number is the mean of these examples.
    """
    counted = batch.counted
    sums, largest = {}, {}
    for name, value in values.items():
        known = jnp.where(counted, value, 0)
        if name.startswith('max_'):
            largest[name] = jnp.max(known)
        else:
            sums[name] = jnp.sum(known)
    return sums, largest


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
    metrics: Metrics, grads: Params, params: Params
) -> Bool[Array, ' quantities']:
    """Whether all is finite; the loss of examples left out of the mean may not be."""
    loss = jnp.isfinite(metrics['loss']) | (metrics['skipped'] > 0)
    leaves = [*jax.tree.leaves(grads), *jax.tree.leaves(params)]
    return jnp.stack([loss, *(jnp.all(jnp.isfinite(leaf)) for leaf in leaves)])
