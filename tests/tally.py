"""A run that counts: its params say which examples were seen, and how often.

The system does not move; example i is an image of one pixel, i, and the gradient is
−1 for each example of the batch, so that sgd with a rate of 1 counts.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import runs

from eqprop_jax.data import Dataset, Split
from eqprop_jax.types import Estimate, Info, System

SIZE, BATCH = 23, 5
INFO = Info(
    residual=jnp.zeros((1, BATCH)),
    num_steps=jnp.zeros((1, BATCH), jnp.int32),
    converged=jnp.ones(()),
    skipped=jnp.zeros(()),
    kept=jnp.ones(BATCH, bool),
)


@functools.cache
def bare():
    """A run to put other parts into."""
    return runs.experiment(runs.FEEDFORWARD)


def tally(**changes):
    """Returns an experiment that counts; `state.params['seen']` has the counts."""
    images = np.arange(SIZE, dtype=np.uint8).reshape(SIZE, 1, 1, 1)
    split = Split(images, np.zeros(SIZE, np.int32))
    system = System(
        init=lambda rng, x: {'seen': jnp.zeros(SIZE)},
        inject=lambda params, x: x.reshape(-1, 1),
        rest=lambda injection: {'unit': jnp.zeros_like(injection)},
        rates=lambda state: state,
        drive=lambda params, injection, rates: {'unit': injection},
        cost=lambda params, rates, y: rates['unit'][:, 0],
        predict=lambda params, rates: rates['unit'] * jnp.array([[1.0, 0.0]]),
    )
    experiment = bare()._replace(
        system=system,
        learn=lambda params, batch, free, rng: Estimate(count(batch), None, INFO),
        optimizer=optax.sgd(1.0),
        dataset=Dataset('numbers', split, split, split, num_classes=2, scale=1.0),
        preprocess=lambda images: images.astype(jnp.float64),
        batch_size=BATCH,
        log_every_steps=2,
    )
    return experiment._replace(**changes)


def count(batch):
    """Returns −1 for each example of the batch."""
    numbers = batch.x.reshape(-1).astype(int)
    return {'seen': -jnp.sum(jax.nn.one_hot(numbers, SIZE), axis=0)}
