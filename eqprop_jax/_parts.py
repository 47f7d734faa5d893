"""Whether what is passed as a part of a run is one, told in words.

A factory that was not called, or the name of a part, would otherwise fail far from
where it was passed.
"""

import inspect
from typing import Any

HOMES = {
    'system': 'eqprop_jax.systems, like mlp((64, 32, 10))',
    'solve': 'eqprop_jax.solvers, like relaxation(tol=1e-3)',
    'estimate': 'eqprop_jax.estimators, like recurrent_backprop(system)',
    'contour': 'eqprop_jax.nudges, like complex_step(1e-3)',
    'optimizer': 'optax, like adam(1e-3)',
}
FIELDS = {'system': 'inject', 'contour': 'points', 'optimizer': 'update'}
ARGUMENTS = {
    'solve': ('field', 'state'),
    'estimate': ('params', 'batch', 'free', 'rng'),
}


def check(**given: Any) -> None:
    """Raises TypeError for what is given as a part, by a key of HOMES, and is none."""
    for name, part in given.items():
        if name in FIELDS:
            is_one = hasattr(part, FIELDS[name])
        else:
            is_one = _takes(part, ARGUMENTS[name])
        if is_one:
            continue
        what = f'a {type(part).__name__}'
        if part is None or isinstance(part, str):
            what = repr(part)
        if callable(part):
            what = f'{getattr(part, "__name__", what)} (if that makes one, call it)'
        raise TypeError(f'{name} has to be from {HOMES[name]}, not {what}')


def _takes(fn: Any, arguments: tuple[str, ...]) -> bool:
    """Whether a function can be called with as many arguments."""
    if not callable(fn) or isinstance(fn, type):
        return False
    try:
        inspect.signature(fn).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # it tells nobody
        return True
    return True
