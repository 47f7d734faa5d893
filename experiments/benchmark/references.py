"""What methods are measured against: the exact gradient; and on: trained weights."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool

from eqprop_jax import dynamics, estimators, solvers
from eqprop_jax.types import Batch, Params, Rates
from experiments.benchmark.methods import methods
from experiments.benchmark.networks import Network

TOL, MAX_STEPS = 1e-6, 5000  # as tight as single precision allows


class Exact(NamedTuple):
    """What recurrent backprop finds, solved tightly."""

    grads: Params
    error: Rates
    """δ, leaves [B, ...]."""
    solved: Bool[Array, ' B']
    """Whether an example has settled, and its δ been found."""


def exact(network: Network) -> Callable[[Params, Batch, Any], Exact]:
    """Returns (params, batch, key) -> the gradient at a tightly settled equilibrium."""
    system = network.system
    tight = solvers.anderson(tol=TOL, max_steps=MAX_STEPS)
    backprop = estimators.recurrent_backprop(
        system, tol=TOL, method='anderson', max_steps=MAX_STEPS
    )

    def solve(params: Params, batch: Batch, rng: Any) -> Exact:
        del rng
        free = dynamics.relax(system, params, batch.x, tight)
        grads, error, info = backprop(params, batch, free, None)
        residual = jnp.maximum(free.residual, info.residual[0])
        return Exact(grads, error, residual <= 10 * TOL)

    return solve


def trained(network: Network, batches: Batch, learning_rate: float = 0.01) -> Params:
    """Returns the params after an epoch of SGD with momentum, by symmetric nudges.

    Args:
      network: from whose params.
      batches: of the epoch, leaves [T, B, ...].
      learning_rate: of SGD; published: 0.01.
    """
    optimizer = optax.sgd(learning_rate, momentum=0.9)
    step = methods(network)['symmetric'].step
    key = jax.random.key(0)  # of a method that draws nothing

    def update(carry: tuple, batch: Batch) -> tuple:
        params, state = carry
        updates, state = optimizer.update(step(params, batch, key).grads, state)
        return (optax.apply_updates(params, updates), state), None

    def epoch(params: Params, batches: Batch) -> Params:
        start = (params, optimizer.init(params))
        return jax.lax.scan(update, start, batches)[0][0]

    return jax.jit(epoch)(network.params, batches)
