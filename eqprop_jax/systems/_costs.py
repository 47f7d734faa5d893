"""Costs per example, by name or as functions of one's own.

    name             C                                  of
    cross_entropy    −Σᵢ yᵢ log softmax(z)ᵢ             scores z of a `readout`
    squared_error    ½ Σᵢ (sᵢ − yᵢ)²                    output units s
    absolute_error   Σᵢ |sᵢ − yᵢ|                       output units; real nudges only
    hinge            Σᵢ (1 − yᵢ) max(0, 1 + sᵢ − s·y)   output units; real nudges only

The first two are analytic in the rates, so that complex nudges can be applied: there is
no modulus, (s − y)² and not |s − y|². The hinge is that of several classes of Weston
and Watkins 1999, for one-hot y.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Inexact, Shaped

from eqprop_jax.systems import _analytic as analytic
from eqprop_jax.types import Params, Rates

Scores = Inexact[Array, 'B n']
CostFunction = Callable[[Params, Rates, Array], Inexact[Array, ' B']]
"""(params, rates, y) -> C of each example."""


class Cost(NamedTuple):
    """What a network is trained to reduce."""

    name: str
    fn: Callable[..., Inexact[Array, ' B']]
    """(scores, targets) -> [B], or a `CostFunction`."""
    of_scores: bool = True
    """Which of the two."""
    analytic: bool = True
    """Whether it is known to be analytic, or looks after that itself."""
    readout: bool = False
    """Whether a softmax readout stands behind the network."""

    def __call__(
        self,
        predict: Callable[[Params, Rates], Scores],
        params: Params,
        rates: Rates,
        y: ArrayLike,
    ) -> Inexact[Array, ' B']:
        """Returns C of each example, of a network that predicts so."""
        if not self.of_scores:
            return self.fn(params, rates, jnp.asarray(y))
        scores = predict(params, rates)
        return self.fn(scores, targets(scores, y))


def squared_error(output: Scores, y: Scores) -> Inexact[Array, ' B']:
    """Returns ½ Σᵢ (sᵢ − yᵢ)² of each example."""
    return 0.5 * jnp.sum((output - y) ** 2, axis=-1)


def cross_entropy(logits: Scores, y: Scores) -> Inexact[Array, ' B']:
    """Returns log Σᵢ e^{zᵢ} Σᵢ yᵢ − Σᵢ yᵢ zᵢ of each example; y may be soft."""
    shift = lax.stop_gradient(jnp.max(jnp.real(logits), axis=-1, keepdims=True))
    shifted = logits - shift
    log_normalizer = jnp.log(jnp.sum(jnp.exp(shifted), axis=-1))
    return jnp.sum(y, axis=-1) * log_normalizer - jnp.sum(y * shifted, axis=-1)


def absolute_error(output: Scores, y: Scores) -> Inexact[Array, ' B']:
    """Returns Σᵢ |sᵢ − yᵢ| of each example; its slope at 0 is 0."""
    return jnp.sum(jnp.abs(output - y), axis=-1)


def hinge(output: Scores, y: Scores) -> Inexact[Array, ' B']:
    """Returns Σᵢ (1 − yᵢ) max(0, 1 + sᵢ − s·y) of each example."""
    right = jnp.sum(output * y, axis=-1, keepdims=True)
    return jnp.sum((1 - y) * jax.nn.relu(1 + output - right), axis=-1)


COSTS = {
    cost.name: cost
    for cost in (
        Cost('cross_entropy', cross_entropy, readout=True),
        Cost('squared_error', squared_error),
        Cost('absolute_error', absolute_error, analytic=False),
        Cost('hinge', hinge, analytic=False),
    )
}


def get(cost: str | CostFunction) -> Cost:
    """Returns the cost of that name, or a function, guarded (`analytic`).

    Raises:
      ValueError: if there is no cost of that name; lists the choices.
    """
    if callable(cost):
        guarded = analytic.guard(cost, 'cost')

        def of_rates(params: Params, rates: Rates, y: Array) -> Array:
            return check_each('cost', guarded(params, rates, y), y)

        return Cost('cost', of_rates, of_scores=False)
    if cost not in COSTS:
        raise ValueError(
            f'no cost {cost!r}; choose from {", ".join(COSTS)}, or pass a function '
            '(params, rates, y) -> [B]'
        )
    return COSTS[cost]


def check_each(name: str, values: Array, like: Array) -> Array:
    """Returns the values, or raises ValueError unless they are one for each example."""
    if values.shape != like.shape[:1]:
        raise ValueError(
            f'{name} has to return one value for each example, shape '
            f'{like.shape[:1]}, not {values.shape}: no sum or mean over the batch'
        )
    return values


def targets(scores: Scores, y: Shaped[ArrayLike, 'B ...']) -> Array:
    """Returns targets in the shape and precision of the scores.

    They may be one-hot, soft or continuous, of as many numbers an example as there are
    scores, in any shape; or class indices, integers [B]. An index that is no class has
    NaN.
    """
    y, dtype = jnp.asarray(y), jnp.real(scores).dtype
    inexact = jnp.issubdtype(y.dtype, jnp.inexact)
    if y.shape == scores.shape or (
        inexact and y.shape[:1] == scores.shape[:1] and y.size == scores.size
    ):
        return y.reshape(scores.shape).astype(dtype)
    if y.shape != scores.shape[:1] or inexact:
        raise ValueError(
            f'targets have shape {y.shape} but the network scores {scores.shape}: '
            'y is one-hot, [B, classes], holds class indices, integers [B], or has one '
            'number for each score'
        )
    one_hot = jax.nn.one_hot(y, scores.shape[1], dtype=dtype)
    known = (y >= 0) & (y < scores.shape[1])
    return jnp.where(known[:, None], one_hot, jnp.nan)
