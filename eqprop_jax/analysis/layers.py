"""Errors by layer: the cosine of a whole gradient hides the layers that are deaf.

The readout, under which no unit settles, receives its exact local gradient from every
method, and lifts each number that includes it.
"""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eqprop_jax import tree
from eqprop_jax.systems import _readout as readout
from eqprop_jax.types import Params, Rates

TOTAL = 'total'


def errors(estimate: Rates, exact: Rates) -> dict[str, Float[Array, '']]:
    """Returns |δ̂ − δ| / |δ| of every layer.

    NaN where both are 0 and nothing is to be compared, ∞ where δ̂ is not finite.

    Args:
      estimate: δ̂.
      exact: δ.
    """
    return {name: distance(estimate[name], exact[name], exact[name]) for name in exact}


def distance(a: Rates, b: Rates, scale: Rates) -> Float[Array, '']:
    """Returns |a − b| / |scale|, as `quotient` has it."""
    return quotient(tree.norm(tree.sub(a, b)), tree.norm(scale))


def norm_ratio(a: Rates, b: Rates) -> Float[Array, '']:
    """Returns |a| / |b|, as `quotient` has it."""
    return quotient(tree.norm(a), tree.norm(b))


def quotient(a: Float[Array, ''], b: Float[Array, '']) -> Float[Array, '']:
    """Returns a/b: NaN for 0/0, with nothing to compare, and ∞ if a is not finite."""
    return jnp.where(jnp.isfinite(a), a / b, jnp.inf)


def largest(errors: Mapping[str, Array]) -> Float[Array, '']:
    """Returns the error of the worst layer; NaN where no layer has one."""
    return jnp.nanmax(jnp.stack(list(errors.values())))


def worst(errors: Mapping[str, float]) -> str:
    """Returns the name of the worst layer; the first where no layer has an error."""
    known = {name: error for name, error in errors.items() if not np.isnan(error)}
    return max(known or errors, key=errors.__getitem__)


def without_readout(params: Params) -> Params:
    """Returns parameters, or their gradients, but for the readout's."""
    return {name: leaf for name, leaf in params.items() if name != readout.NAME}


def by_part(fn: Callable[..., Array], *trees: Rates) -> dict[str, float]:
    """Returns fn of every top-level part of some trees, and of the whole, 'total'."""
    parts = {name: fn(*(tree[name] for tree in trees)) for name in trees[0]}
    parts[TOTAL] = fn(*trees)
    return {name: float(value) for name, value in parts.items()}
