"""One step of learning.

    batch → free phase → estimate → penalty → alignment → optax → metrics

A batch may lie on several devices, and go through each of them in several turns where
it does not fit. What is computed of a part are sums over its examples, which are added
up before anything is divided by their number.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool

from eqprop_jax import alignment, dynamics, homeostasis, tree
from eqprop_jax.training import mesh, metrics
from eqprop_jax.training.metrics import Tally, Values
from eqprop_jax.training.state import Experiment, TrainState, stream
from eqprop_jax.types import Batch, Params

RESULT = 'the new value of'


class Sums(NamedTuple):
    """Over the examples of a part of a batch."""

    grads: Params
    """dC/dθ."""
    kept: Array
    """How many examples that is of, []."""
    penalty: Any
    """L_homeo and its gradient; None where there is no penalty."""
    measured: Any
    """How many examples that is of, likewise."""
    values: Values
    """What is measured beside it, of `kept` examples and others."""


def step(
    run: Experiment, state: TrainState, batch: Batch
) -> tuple[TrainState, Tally, Bool[Array, ' quantities']]:
    """Takes one step.

    Args:
      run: what is trained.
      state: before the step.
      batch: this device's part of it.

    Returns:
      The state after the step, what was measured, and which `quantities` are finite.
    """
    part = functools.partial(_of_part, run, state)
    tally = mesh.total(_in_turns(run.accumulation_steps, part, batch))
    sums, values = tally.sums, tally.sums.values
    grads = tree.scale(1 / jnp.maximum(sums.kept, 1), sums.grads)
    if run.kolen_pollack:
        grads = alignment.kolen_pollack(run.system, grads)
    if run.penalty is not None:
        value, slope = tree.scale(1 / jnp.maximum(sums.measured, 1), sums.penalty)
        grads = tree.add(grads, tree.scale(state.penalty_weight, slope))
        values = values | {'homeostasis': value * values['count']}
    updates, memory = run.optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    after = state.replace(step=state.step + 1, params=params, opt_state=memory)
    return after, tally.replace(sums=values), _finite(run, values, grads, params)


def _of_part(run: Experiment, state: TrainState, batch: Batch) -> Tally:
    """Returns the `Sums` over some examples that are gone through together."""
    key = jax.random.fold_in(stream(state.seed, 'estimate'), state.step)
    estimate_rng, penalty_rng = jax.random.split(key)
    free = dynamics.relax(run.system, state.params, batch.x, run.solve)
    grads, _, info = run.learn(state.params, batch, free, estimate_rng)
    values, largest = metrics.of_equilibrium(
        run.system, state.params, batch, free, run.dataset.variance
    )
    values |= {
        'nudged_steps': jnp.mean(info.num_steps, axis=0),
        'settled': info.converged,
        'skipped': info.skipped,
    }
    largest['nudged_residual'] = metrics.at_most_all(info.residual)
    kept, measured, penalty = info.num_kept.astype(batch.x.dtype), None, None
    if run.penalty is not None:
        measured = jnp.sum(homeostasis.measured(batch, free)).astype(kept.dtype)
        penalty = _on_a_fraction(
            jax.value_and_grad(run.penalty),
            run.penalty_fraction,
            penalty_rng,
            (state.params, batch, free),
        )
        penalty = tree.scale(measured, penalty)
    tally = metrics.tally(batch, values, largest)
    sums = Sums(tree.scale(kept, grads), kept, penalty, measured, tally.sums)
    return tally.replace(sums=sums)


def _in_turns(turns: int, part: Callable[[Batch], Tally], batch: Batch) -> Tally:
    """Returns the tally of equal parts of a batch, one after the other."""
    if turns == 1:
        return part(batch)
    parts = jax.tree.map(lambda a: a.reshape(turns, -1, *a.shape[1:]), batch)
    one = jax.eval_shape(part, jax.tree.map(lambda a: a[0], parts))
    tally, _ = lax.scan(
        lambda tally, batch: (tally + part(batch), None), tree.zeros_like(one), parts
    )
    return tally


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


def quantities(params: Params) -> list[str]:
    """Returns the names of what `step` says is finite."""
    names = tree.names(params)
    return [
        'the loss',
        'the gradient of any example',
        *(f'the gradient of {name}' for name in names),
        *(f'{RESULT} {name}' for name in names),
    ]


def _finite(
    run: Experiment, values: Values, grads: Params, params: Params
) -> Bool[Array, ' quantities']:
    """Whether all is finite; the loss of examples left out of the mean may not be.

    A batch of which all examples are left out has nothing to go on with, unless that
    is what was asked for.
    """
    loss = jnp.isfinite(values['loss']) | (values['skipped'] > 0)
    any_left = (values['skipped'] < values['count']) | run.skip_unconverged
    leaves = [*jax.tree.leaves(grads), *jax.tree.leaves(params)]
    return jnp.stack(
        [loss, any_left, *(jnp.all(jnp.isfinite(leaf)) for leaf in leaves)]
    )
