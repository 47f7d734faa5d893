"""Equilibrium propagation: networks that settle, and gradients from how they move.

A part is imported when it is first used. `eqprop_jax.figures`, which needs matplotlib,
and `eqprop_jax.cli`, the commands, are imported by their own names.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what `__getattr__` finds, for editors and checkers of types
    from eqprop_jax import alignment as alignment
    from eqprop_jax import analysis as analysis
    from eqprop_jax import api as api
    from eqprop_jax import checkpoint as checkpoint
    from eqprop_jax import config as config
    from eqprop_jax import data as data
    from eqprop_jax import dynamics as dynamics
    from eqprop_jax import estimators as estimators
    from eqprop_jax import homeostasis as homeostasis
    from eqprop_jax import jacobian as jacobian
    from eqprop_jax import linear as linear
    from eqprop_jax import noise as noise
    from eqprop_jax import nudges as nudges
    from eqprop_jax import records as records
    from eqprop_jax import solvers as solvers
    from eqprop_jax import systems as systems
    from eqprop_jax import training as training
    from eqprop_jax import tree as tree
    from eqprop_jax import types as types
    from eqprop_jax._equilibrium import relax as relax
    from eqprop_jax.analysis import check as check
    from eqprop_jax.api import Aux as Aux
    from eqprop_jax.api import block as block
    from eqprop_jax.api import loss as loss
    from eqprop_jax.api import value_and_grad as value_and_grad
    from eqprop_jax.config import register_cost as register_cost
    from eqprop_jax.config import register_estimator as register_estimator
    from eqprop_jax.config import register_solver as register_solver
    from eqprop_jax.config import register_system as register_system
    from eqprop_jax.training import fit as fit
    from eqprop_jax.types import Batch as Batch
    from eqprop_jax.types import Equilibrium as Equilibrium
    from eqprop_jax.types import Estimate as Estimate
    from eqprop_jax.types import Estimator as Estimator
    from eqprop_jax.types import Solver as Solver
    from eqprop_jax.types import System as System

__version__ = '0.1.0'

_PARTS = frozenset(
    (
        *('alignment', 'analysis', 'api', 'checkpoint', 'config', 'data', 'dynamics'),
        *('estimators', 'homeostasis', 'jacobian', 'linear', 'noise', 'nudges'),
        *('records', 'solvers', 'systems', 'training', 'tree', 'types'),
    )
)
_HOMES = {
    'relax': '_equilibrium',
    'check': 'analysis',
    'Aux': 'api',
    'block': 'api',
    'loss': 'api',
    'value_and_grad': 'api',
    'fit': 'training',
    'register_cost': 'config',
    'register_estimator': 'config',
    'register_solver': 'config',
    'register_system': 'config',
    **dict.fromkeys(('Batch', 'Equilibrium', 'Estimate'), 'types'),
    **dict.fromkeys(('Estimator', 'Solver', 'System'), 'types'),
}


def __getattr__(name: str) -> Any:
    """Returns a part, or what a part has that is used by the name of the library."""
    if name in _PARTS:
        return importlib.import_module(f'{__name__}.{name}')
    if name in _HOMES:
        found = getattr(importlib.import_module(f'{__name__}.{_HOMES[name]}'), name)
        globals()[name] = found
        return found
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    """Returns the names of the library."""
    return sorted({*_PARTS, *_HOMES, '__version__'})
