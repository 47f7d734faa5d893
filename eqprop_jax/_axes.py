"""Settings of JAX that its users choose, and that loops of this package do not take.

On a mesh whose axes are explicit (`jax.sharding.AxisType.Explicit`) the type of an
array says how it is divided among devices, and a loop that begins with zeros and goes
on with examples that are divided has none. Inside of the functions here the axes are
automatic ones, and what comes out is divided as the examples are.

Where types are not promoted (`jax_numpy_dtype_promotion='strict'`) real and complex
numbers do not go together. Inside of the functions here they do.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array

from eqprop_jax.types import Batch, Equilibrium, Estimate, Params

Fn = TypeVar('Fn', bound=Callable)
WHOLE: Any = PartitionSpec()


def promoting(fn: Fn) -> Fn:
    """Returns fn, inside of which types are promoted as JAX does by default."""

    @functools.wraps(fn)
    def run(*args: Any, **named: Any) -> Any:
        with jax.numpy_dtype_promotion('standard'):
            return fn(*args, **named)

    return cast(Fn, run)


def automatic(fn: Callable, specs: Callable[..., Any]) -> Callable:
    """Returns fn, inside of which axes are automatic, and types are promoted.

    Args:
      fn: of arrays.
      specs: takes the same, and returns how the results are divided: a prefix of them,
        of `PartitionSpec`.
    """

    def called(args: tuple, named: dict[str, Any]) -> Any:
        return fn(*args, **named)

    @promoting
    @functools.wraps(fn)
    def run(*args: Any, **named: Any) -> Any:
        leaves = jax.tree.leaves((args, named))
        shardings = [jax.typeof(leaf).sharding for leaf in leaves]
        meshes = [sharding.mesh for sharding in shardings]
        for mesh in (jax.sharding.get_abstract_mesh(), *meshes):
            if mesh.explicit_axes:
                place = functools.partial(NamedSharding, mesh)
                out = jax.tree.map(place, specs(*args, **named))
                whole = jax.sharding.auto_axes(called, out_sharding=out)
                return jax.jit(whole)(args, named)
        return fn(*args, **named)

    return run


def own(values: Any) -> Any:
    """Returns how the leaves of a tree are divided."""
    return jax.tree.map(lambda leaf: jax.typeof(leaf).sharding.spec, values)


def of_examples(x: Array) -> Any:
    """Returns how arrays [B, ...] are divided that are made of x [B, ...]."""
    return PartitionSpec(*own(x)[:1])


def of_equilibrium(x: Array) -> Equilibrium:
    """Returns how the free equilibrium of x is divided."""
    each = of_examples(x)
    return Equilibrium(
        *5 * (each,),
        trajectory=PartitionSpec(None, *each),
        injection=each,
        held=each,
    )


def of_estimate(params: Params, batch: Batch, *_: Any, **__: Any) -> Estimate:
    """Returns how the estimate of a batch is divided."""
    return Estimate(own(params), of_examples(batch.x), WHOLE)
