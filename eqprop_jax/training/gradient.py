"""The gradient of a batch that devices divide, and what is measured beside it."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from eqprop_jax import alignment, dynamics, homeostasis, tree
from eqprop_jax.training import mesh
from eqprop_jax.training.state import Experiment, TrainState, stream
from eqprop_jax.types import Batch, Equilibrium, Params

Metrics = dict[str, Array]


def of_batch(
    experiment: Experiment, state: TrainState, batch: Batch
) -> tuple[Params, Metrics]:
    """Returns the gradient of the whole batch, and means and maxima over it.

    Args:
      experiment: the run.
      state: before the step.
      batch: this device's part; it is gone through in `accumulation_steps` turns.
    """
    one = 1 / experiment.batch_size
    part = functools.partial(_of_part, experiment, state)
    sums, largest = _in_turns(experiment.accumulation_steps, part, batch)
    sums = mesh.add_up(sums)
    grads = tree.scale(1 / jnp.maximum(sums['kept'], one), sums['grads'])
    if experiment.kolen_pollack:
        grads = alignment.kolen_pollack(experiment.system, grads)
    metrics = tree.scale(one, sums['metrics']) | mesh.largest(largest)
    if experiment.penalty is not None:
        share = jnp.maximum(sums['measured'], one)
        penalty, penalty_grads = tree.scale(1 / share, sums['penalty'])
        grads = tree.add(grads, tree.scale(experiment.penalty_weight, penalty_grads))
        metrics['homeostasis'] = penalty
    return grads, metrics


def _of_part(
    experiment: Experiment, state: TrainState, batch: Batch
) -> tuple[dict[str, Any], Metrics]:
    """Returns what adds up over the parts of a batch, and what the largest counts of.

    The gradients are weighted by the shares of the whole batch that they are means of.
    """
    key = jax.random.fold_in(stream(experiment.seed, 'estimate'), state.step)
    estimate_rng, penalty_rng = jax.random.split(key)
    free = dynamics.relax(experiment.system, state.params, batch.x, experiment.solve)
    grads, _, info = experiment.learn(state.params, batch, free, estimate_rng)
    one = 1 / experiment.batch_size
    kept = one * jnp.round(jnp.sum(batch.counted) * (1 - info.skipped))
    metrics, largest = over_examples(
        batch,
        {
            **per_example(experiment, state.params, batch, free),
            'max_nudged_residual': _at_most_all(info.residual),
            'nudged_steps': jnp.mean(info.num_steps, axis=0),
            'settled': info.converged,
            'skipped': info.skipped,
        },
    )
    sums = {'grads': tree.scale(kept, grads), 'kept': kept, 'metrics': metrics}
    if experiment.penalty is not None:
        penalty = _on_a_fraction(
            jax.value_and_grad(experiment.penalty),
            experiment.penalty_fraction,
            penalty_rng,
            (state.params, batch, free),
        )
        measured = one * jnp.sum(homeostasis.measured(batch, free))
        sums['penalty'] = tree.scale(measured, penalty)
        sums['measured'] = measured
    return sums, largest


def _in_turns(
    turns: int, part: Callable[[Batch], tuple[Any, Metrics]], batch: Batch
) -> tuple[Any, Metrics]:
    """Returns the sums and the largest values over equal parts of a batch."""
    if turns == 1:
        return part(batch)
    parts = jax.tree.map(lambda a: a.reshape(turns, -1, *a.shape[1:]), batch)

    def add(total: tuple, batch: Batch) -> tuple[tuple, None]:
        sums, largest = part(batch)
        most = jax.tree.map(jnp.maximum, total[1], largest)
        return (tree.add(total[0], sums), most), None

    one = jax.eval_shape(part, jax.tree.map(lambda a: a[0], parts))
    return lax.scan(add, tree.zeros_like(one), parts)[0]


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


def per_example(
    experiment: Experiment, params: Params, batch: Batch, free: Equilibrium
) -> Metrics:
    """Returns what is measured of every example; of 'max_...' the largest counts."""
    scores = experiment.system.predict(params, free.rates)
    wrong = jnp.argmax(scores, axis=-1) != jnp.argmax(batch.y, axis=-1)
    return {
        'loss': experiment.system.cost(params, free.rates, batch.y),
        'error': wrong.astype(scores.dtype),
        'residual': _at_most_all(free.residual),
        'max_residual': _at_most_all(free.residual),
        'converged': free.converged.astype(scores.dtype),
        'free_steps': free.num_steps.astype(scores.dtype),
        'max_free_steps': free.num_steps.astype(scores.dtype),
    }


def _at_most_all(residual: Array) -> Array:
    """Returns residuals up to 1, which those have that are larger, infinite or NaN."""
    return jnp.where(residual < 1, residual, 1)


def over_examples(batch: Batch, values: Metrics) -> tuple[Metrics, Metrics]:
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
