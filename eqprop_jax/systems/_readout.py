"""From the rates of the last layer to class scores and the cost of each example.

    cross_entropy    scores = (m ⊙ f(s)) W + b      softmax readout outside the system
    other costs      scores = s                     no weights: the units themselves

No unit settles under the readout's weights: they receive their exact local gradient
∂C/∂W, and pass (softmax(scores) − y) Wᵀ on as the nudge. The mask m is 1, or that of a
dropout, which is drawn once for each batch and stays while the network settles: it
changes the cost and not the field, so that the free equilibrium is the same with it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax.linen import initializers
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Inexact, Int

from eqprop_jax import linear, tree
from eqprop_jax.systems import _activations as activations
from eqprop_jax.systems._activations import Activation
from eqprop_jax.systems._costs import Cost
from eqprop_jax.types import Params, Rates, System

NAME = 'readout'


class Readout(NamedTuple):
    """Which layer is read, and how."""

    layer: str
    """Name of the layer."""
    units: int
    """How many units it has."""
    classes: int
    """Number of scores."""
    of: Cost
    """What the scores, or the rates, are to reduce."""
    activation: Activation = activations.ACTIVATIONS['identity']
    """f, for layers whose rates are potentials."""
    keep: Bool[Array, 'B units'] | None = None
    """Which units the readout sees of each example; None: all of them."""
    dropout: float = 0.0
    """The fraction that it does not see when `keep` is drawn."""

    @property
    def weights(self) -> bool:
        """Whether a softmax layer stands behind it."""
        return self.of.readout

    def init(self, rng: jax.Array, dtype: jnp.dtype | None) -> Params:
        """Returns the readout's weights, {} where it has none."""
        if not self.weights:
            return {}
        kernel = initializers.lecun_normal()(rng, (self.units, self.classes), dtype)
        return {NAME: {'kernel': kernel, 'bias': jnp.zeros((self.classes,), dtype)}}

    def predict(self, params: Params, rates: Rates) -> Inexact[Array, 'B classes']:
        """Returns the scores."""
        output = rates[self.layer]
        output = self.activation.fn(output.reshape(output.shape[0], -1))
        if self.keep is not None:
            output = jnp.where(self.keep, output / (1 - self.dropout), 0)
        if not self.weights:
            return output
        scores = linear.dense(output, params[NAME]['kernel'])
        return scores + params[NAME]['bias'][None]

    def cost(self, params: Params, rates: Rates, y: ArrayLike) -> Array:
        """Returns the cost of each example, [B]."""
        return self.of(self.predict, params, rates, y)


def with_dropout(system: System, readout: Readout) -> System:
    """Returns the system with `thin`, which draws what its readout sees."""

    def thin(rng: jax.Array, numbers: Int[Array, ' B']) -> System:
        def draw(key: jax.Array) -> Array:
            return jax.random.bernoulli(key, 1 - readout.dropout, (readout.units,))

        keep = tree.per_example_draw(draw, rng, numbers)
        predict = readout._replace(keep=keep).predict
        return system._replace(cost=Partial(cost, keep), predict=predict)

    def cost(keep: Array, params: Params, rates: Rates, y: ArrayLike) -> Array:
        return readout._replace(keep=keep).cost(params, rates, y)

    return system._replace(thin=thin) if readout.dropout else system


def check_dropout(dropout: float, cost: Cost) -> None:
    """Raises ValueError unless the dropout is a fraction that the cost can use."""
    if not 0 <= dropout < 1:
        raise ValueError(f'dropout lies from 0 to below 1, not {dropout}')
    if dropout and not cost.readout:
        raise ValueError(
            f'dropout={dropout} acts on what a softmax readout sees: set '
            f'cost="cross_entropy" instead of {cost.name!r}, or dropout=0'
        )
