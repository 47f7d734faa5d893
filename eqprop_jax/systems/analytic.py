"""A guard for functions that users declare analytic.

Operations such as `maximum`, `abs` or a comparison accept complex numbers or fail deep
inside a trace, and what they return is no analytic continuation. The guard looks at
the operations of the traced function and names the first that cannot be one.

It knows operations, not functions: `real` and `imag` pass, since real weights are
applied to the parts, and so does the maximum over an axis, by which a softmax shifts
its argument to no effect.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Names of jax primitives that are not analytic in a complex argument.
NOT_ANALYTIC = frozenset(
    (
        *('abs', 'conj', 'ceil', 'floor', 'round', 'clamp', 'max', 'min'),
        *('ge', 'gt', 'le', 'lt', 'sort', 'argmax', 'argmin', 'cummax', 'cummin'),
        *('reduce_window_max', 'reduce_window_min', 'select_and_scatter_add'),
    )
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
        bounded = any(_is_minus_infinity(var) for var in equation.invars)
        if not (inner or bounded) and any(
            jnp.issubdtype(getattr(var.aval, 'dtype', bool), jnp.complexfloating)
            for var in equation.invars
        ):
            yield equation.primitive.name


def _is_minus_infinity(var: Any) -> bool:
    """Whether it is the constant from which a maximum over an axis starts."""
    value = getattr(var, 'val', None)
    return value is not None and bool(np.all(np.real(value) == -np.inf))
