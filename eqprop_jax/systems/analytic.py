"""A guard for functions that users declare analytic.

Operations such as `max`, `abs` or a comparison accept complex numbers or fail deep
inside a trace, and what they return is no analytic continuation. The guard looks at
the operations of the traced function and names the first that cannot be one.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

# Names of jax primitives that are not analytic in a complex argument.
NOT_ANALYTIC = frozenset(
    [
        'abs',
        'argmax',
        'argmin',
        'ceil',
        'clamp',
        'conj',
        'cummax',
        'cummin',
        'floor',
        'max',
        'min',
        'reduce_max',
        'reduce_min',
        'reduce_window_max',
        'reduce_window_min',
        'round',
        'select_and_scatter_add',
        'sign',
        'sort',
    ]
)


def guard(fn: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Returns fn, refusing complex arguments where it is not analytic in them.

    Args:
      fn: a function of pytrees of arrays.
      name: what the message calls it.

    Raises (when the returned function is traced with a complex argument):
      TypeError: naming the first operation that is not analytic.
    """

    @functools.wraps(fn)
    def guarded(*args: Any) -> Any:
        if any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(args)):
            for operation in _on_complex(jax.make_jaxpr(fn)(*args).jaxpr):
                if operation in NOT_ANALYTIC:
                    raise TypeError(
                        f'{name} takes "{operation}" of a complex number, which is '
                        'not analytic: build the system with holomorphic=False and '
                        'use a real nudge (one_sided, random_sign, symmetric)'
                    )
        return fn(*args)

    return guarded


def _on_complex(jaxpr: Any) -> Iterator[str]:
    for equation in jaxpr.eqns:
        inner = [
            getattr(value, 'jaxpr', value)
            for value in equation.params.values()
            if hasattr(getattr(value, 'jaxpr', value), 'eqns')
        ]
        for sub_jaxpr in inner:
            yield from _on_complex(sub_jaxpr)
        if not inner and any(
            jnp.issubdtype(getattr(var.aval, 'dtype', bool), jnp.complexfloating)
            for var in equation.invars
        ):
            yield equation.primitive.name
