"""A guard for functions that users declare analytic.

Operations such as `maximum`, `abs`, `sign` or a comparison accept complex numbers or
fail deep inside a trace, and what they return is no analytic continuation. The guard
looks at the operations of the traced function, those inside of branches and loops
included, and names one that is not known to be analytic.

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

# Names of primitives that are analytic in complex arguments.
ANALYTIC = frozenset(
    (
        *('neg', 'add', 'add_any', 'sub', 'mul', 'div', 'square', 'integer_pow', 'pow'),
        *('sqrt', 'rsqrt', 'exp', 'exp2', 'expm1', 'log', 'log1p', 'logistic'),
        *('sin', 'cos', 'tan', 'asin', 'acos', 'atan'),
        *('sinh', 'cosh', 'tanh', 'asinh', 'acosh', 'atanh'),
        *('dot_general', 'conv_general_dilated', 'fft'),
        *('multiply', 'convolve', 'correlate'),
        *('lu', 'triangular_solve'),
        *('reduce_sum', 'reduce_prod', 'reduce_window_sum'),
        *('cumsum', 'cumprod', 'cumlogsumexp'),
        *('reshape', 'transpose', 'broadcast_in_dim', 'broadcast_to', 'squeeze', 'rev'),
        *('concatenate', 'stack', 'unstack', 'split', 'tile', 'pad', 'zeros_like'),
        *('slice', 'dynamic_slice', 'dynamic_update_slice', 'gather', 'select_n'),
        *('scatter', 'scatter-add', 'scatter-sub', 'scatter-mul', 'psum', 'pvary'),
        *('copy', 'name', 'stop_gradient', 'optimization_barrier', 'device_put'),
        *('convert_element_type', 'reduce_precision', 'sharding_constraint'),
        *('complex', 'real', 'imag', 'reduce_max'),  # of the last three see above
        *('eq', 'ne'),  # what they choose at single points continuity chooses, too
    )
)
ORDER = ('gt', 'ge', 'lt', 'le')


def guard(fn: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Returns fn, which raises TypeError for complex arguments if it is not analytic.

    The message has this name, and names the operation.
    """

    @functools.wraps(fn)
    def guarded(*args: Any) -> Any:
        if any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(args)):
            for operation in _on_complex(jax.make_jaxpr(fn)(*args)):
                if operation not in ANALYTIC:
                    raise TypeError(
                        f'{name} takes "{operation}" of a complex number, which is '
                        'not known to be analytic: declare holomorphic=False and use '
                        'a real nudge (one_sided, random_sign, symmetric)'
                    )
        return fn(*args)

    return guarded


def _on_complex(program: Any) -> Iterator[str]:
    """Yields the names of the operations on complex numbers that a result depends on.

    The last one comes first.
    """
    program = getattr(program, 'jaxpr', program)
    parts = {
        var
        for equation in program.eqns
        if equation.primitive.name in ('real', 'imag')
        for var in equation.outvars
    }
    needed = set(filter(_is_variable, program.outvars))
    for equation in reversed(program.eqns):
        if needed.isdisjoint(equation.outvars):
            continue
        needed.update(filter(_is_variable, equation.invars))
        inner = list(_programs(tuple(equation.params.values())))
        for one in inner:
            yield from _on_complex(one)
        name = equation.primitive.name
        shift = name == 'max' and any(map(_is_minus_infinity, equation.invars))
        of_complex = any(
            jnp.issubdtype(getattr(var.aval, 'dtype', bool), jnp.complexfloating)
            for var in equation.invars
        )
        if name in ORDER:  # of complex numbers jax compares the parts of both
            of_complex = all(_is_variable(v) and v in parts for v in equation.invars)
        if of_complex and not (inner or shift):
            yield name


def _programs(parameter: Any) -> Iterator[Any]:
    """Yields the programs in an operation's parameter: branches, or a loop's body."""
    if hasattr(parameter, 'eqns'):
        yield parameter
    elif isinstance(parameter, tuple | list):
        for item in parameter:
            yield from _programs(item)


def _is_variable(operand: Any) -> bool:
    return not hasattr(operand, 'val')


def _is_minus_infinity(operand: Any) -> bool:
    """Whether it is the constant from which a maximum over an axis starts."""
    return not _is_variable(operand) and bool(np.all(np.real(operand.val) == -np.inf))
