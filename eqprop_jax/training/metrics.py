"""What is measured of examples while a network learns: sums, and the largest values."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array

from eqprop_jax import tree
from eqprop_jax.types import Batch, Equilibrium, Params, System

Values = dict[str, Array]


class Tally(struct.PyTreeNode):
    """What was measured of some examples; tallies of others are added to it."""

    sums: Any
    """Pytree: of each quantity the sum over them."""
    largest: Any
    """`Values`: of others the largest."""

    def __add__(self, other: 'Tally') -> 'Tally':
        """Returns the tally of both."""
        largest = jax.tree.map(jnp.maximum, self.largest, other.largest)
        return Tally(tree.add(self.sums, other.sums), largest)


def tally(batch: Batch, values: Values, largest: Values) -> Tally:
    """Returns that of the examples of a batch that are no fillers; 'count' of them.

    Args:
      batch: what was measured of.
      values: to add up, [B], or [] where one number is the mean of these examples.
      largest: of which the largest is looked for, [B]; not negative.
    """

    def known(value: Array) -> Array:
        return jnp.where(batch.counted, value, 0)

    count = jnp.sum(batch.counted.astype(batch.x.dtype))
    sums = {name: jnp.sum(known(value)) for name, value in values.items()}
    return Tally(
        {'count': count, **sums},
        {name: jnp.max(known(value)) for name, value in largest.items()},
    )


def means(tally: Tally) -> Values:
    """Returns the means, and the largest as 'max_...': what records have."""
    count = jnp.maximum(tally.sums['count'], 1)
    found = {name: value / count for name, value in tally.sums.items()}
    del found['count']
    return found | {f'max_{name}': value for name, value in tally.largest.items()}


def of_equilibrium(
    system: System, params: Params, batch: Batch, free: Equilibrium
) -> tuple[Values, Values]:
    """Returns what is measured of every free equilibrium: the arguments of `tally`."""
    scores = system.predict(params, free.rates)
    wrong = jnp.argmax(scores, axis=-1) != jnp.argmax(batch.y, axis=-1)
    residual = at_most_all(free.residual)
    num_steps = free.num_steps.astype(scores.dtype)
    values = {
        'loss': system.cost(params, free.rates, batch.y),
        'error': wrong.astype(scores.dtype),
        'residual': residual,
        'converged': free.converged.astype(scores.dtype),
        'free_steps': num_steps,
    }
    return values, {'residual': residual, 'free_steps': num_steps}


def at_most_all(residual: Array) -> Array:
    """Returns residuals up to 1, which those have that are larger, infinite or NaN."""
    return jnp.where(residual < 1, residual, 1)
