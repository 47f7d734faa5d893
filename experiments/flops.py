"""How many multiplications and additions a function takes, by an analytic model.

    dense product      2 · rows · m · n
    convolution        2 · positions · height · width · m · n

and four times that of two complex factors, twice that of one, whose parts are taken
apart. What is elementwise is not counted. XLA's own count takes a loop once and a
complex product for a real one.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn
from jax.typing import ArrayLike


def count(fn: Callable[..., Any], *args: Any) -> int:
    """Returns the floating-point operations of the products in fn(*args).

    A `scan` counts as often as it runs, a `while_loop` not at all: how often that runs
    is not known before (`solvers` say it in `num_steps`). Of the branches of a `cond`
    the most expensive one counts.

    Args:
      fn: to be traced.
      *args: what it is traced with; only shapes and types matter.
    """
    return _jaxpr(jax.make_jaxpr(fn)(*args).jaxpr)


def rows(num_steps: ArrayLike, stages: list[int]) -> int:
    """Returns how many rows the sweeps of a relaxation moved, all sweeps together.

    Args:
      num_steps: sweeps that each example used, [B].
      stages: from `solvers._settle.sizes` for a relaxation that compacts, else [].
    """
    steps = np.sort(np.asarray(num_steps))
    total, done, size = 0, 0, len(steps)
    for leave in (*stages, 0):
        until = max(int(steps[len(steps) - leave - 1]), done)
        total += size * (until - done)
        done, size = until, leave
    return total


def _jaxpr(jaxpr: Jaxpr) -> int:
    return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation: JaxprEqn) -> int:
    name, params = equation.primitive.name, equation.params
    shapes = [getattr(var.aval, 'shape', ()) for var in equation.invars]
    outs = [getattr(var.aval, 'shape', ()) for var in equation.outvars]
    out = math.prod(outs[0]) if outs else 0  # nothing comes out of checks
    if name in ('multiply', 'convolve', 'correlate'):  # of a second factor [..., n]
        several = shapes[1][0] if len(shapes[1]) == 3 else 1  # networks
        return 2 * out * math.prod(shapes[1][:-1]) // several
    if name == 'dot_general':
        (contracted, _), _ = params['dimension_numbers']
        summed = math.prod(shapes[0][axis] for axis in contracted)
        return 2 * out * summed * _kind(equation)
    if name == 'conv_general_dilated':
        numbers = params['dimension_numbers']
        kernel = [shapes[1][axis] for axis in numbers.rhs_spec]
        return 2 * out * math.prod(kernel[1:]) * _kind(equation)
    if name == 'while':
        return 0
    if name == 'cond':
        return max(_jaxpr(branch.jaxpr) for branch in params['branches'])
    times = params['length'] if name == 'scan' else 1
    return times * sum(_jaxpr(inner) for inner in _inner(params))


def _kind(equation: JaxprEqn) -> int:
    """Returns 1 for real factors, 2 if one is complex, 4 if both are."""
    kinds = [getattr(var.aval, 'dtype', np.float32) for var in equation.invars]
    return 2 ** sum(jnp.issubdtype(kind, jnp.complexfloating) for kind in kinds)


def _inner(params: dict[str, Any]) -> list[Jaxpr]:
    found = []
    for value in jax.tree.leaves(
        list(params.values()), is_leaf=lambda v: isinstance(v, ClosedJaxpr | Jaxpr)
    ):
        if isinstance(value, ClosedJaxpr):
            found.append(value.jaxpr)
        elif isinstance(value, Jaxpr):
            found.append(value)
    return found
