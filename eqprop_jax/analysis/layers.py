"""Errors by layer: the cosine of a whole gradient hides the layers that are deaf.

The readout, under which no unit settles, receives its exact local gradient from every
method, and lifts each number that includes it.
"""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eqprop_jax import tree
from eqprop_jax.systems import readout
from eqprop_jax.types import Params, Rates

TOTAL = 'total'


def errors(estimate: Rates, exact: Rates) -> dict[str, Float[Array, '']]:
    """Returns |δ̂ − δ| / |δ| of every layer.

    NaN where both are 0 and nothing is to be compared, ∞ where δ̂ is not finite.

    Args:
      estimate: δ̂.
      exact: δ.
    """

    def relative(name: str) -> Array:
        distance = tree.norm(tree.sub(estimate[name], exact[name]))
        size = tree.norm(exact[name])
        return jnp.where(jnp.isnan(distance), jnp.inf, distance / size)

    return {name: relative(name) for name in exact}


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
    return {name: float(value) for name, value in parts.items()} | {
        TOTAL: float(fn(*trees))
    }


def quotient(a: Array | float, b: Array | float) -> float:
    """Returns a/b: NaN for 0/0, with nothing to compare, and ∞ if a is not finite."""
    a, b = float(a), float(b)
    if not np.isfinite(a):
        return np.inf
    return a / b if b else (np.inf if a else np.nan)
