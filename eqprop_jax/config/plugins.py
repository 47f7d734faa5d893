"""Parts and costs of one's own, by the names that configurations use.

    def halved(system, solve, *, contour, tol=1e-3): ...     -> Estimator

    eqprop_jax.register_estimator('halved', halved)

Then `--config.estimator.name=halved --config.estimator.tol=1e-4` is a run, with every
check that parts of the library have: the keys of its section are the arguments, and
their annotations the types. The run remembers in which module or file it was
registered, so that it can be evaluated and diagnosed.
"""

import functools
import hashlib
import importlib
import inspect
import os
import pathlib
import runpy
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from eqprop_jax.config import registry
from eqprop_jax.config.registry import Part
from eqprop_jax.config.schema import running
from eqprop_jax.systems import _costs as costs
from eqprop_jax.systems._costs import CostFunction
from eqprop_jax.types import Estimator, Solver, System

_OWN: dict[tuple[str, str], str] = {}
"""(section, name) -> origin: a module, a file, or '' where it can be found in none."""


def register_cost(name: str, cost: CostFunction) -> None:
    """Lets configurations name a cost of one's own.

    Args:
      name: as `system.cost`.
      cost: (params, rates, y) -> [B], as in `systems.mlp`. Of classes y is one-hot.

    Raises:
      ValueError: if there is another cost of that name.
    """
    _put('cost', costs.COSTS, name, costs.get(cost)._replace(name=name), _origin(cost))


def register_estimator(name: str, factory: Callable[..., Estimator]) -> None:
    """Lets configurations name an estimator of one's own.

    Args:
      name: as `estimator.name`.
      factory: of its arguments `system`, `solve` (that of nudged phases), `contour` and
        `axis_name` are given by the run; all others are keys of the section. With a
        contour, the section also has the keys of one.

    Raises:
      ValueError: if there is another estimator of that name, or it takes no `system`.
    """
    arguments = inspect.signature(factory).parameters
    if 'system' not in arguments:
        raise ValueError(f'estimator {name!r} has to take an argument "system"')
    needs = (key for key in registry.NUDGED if key in arguments)
    _register('estimator', name, factory, *needs)


def register_solver(name: str, factory: Callable[..., Solver]) -> None:
    """Lets configurations name a solver of one's own.

    Args:
      name: as `solver.name` and `nudged_solver.name`.
      factory: its arguments are the keys of the section.

    Raises:
      ValueError: if there is another solver of that name.
    """
    _register('solver', name, factory)


def register_system(name: str, factory: Callable[..., System]) -> None:
    """Lets configurations name a system of one's own.

    Args:
      name: as `system.name`.
      factory: its arguments are the keys of the section.

    Raises:
      ValueError: if there is another system of that name.
    """
    _register('system', name, factory)


def load(origins: Iterable[str]) -> None:
    """Imports modules, and runs files, that register parts; each once.

    Raises:
      ConfigError: if one of them cannot be found, or raises.
    """
    known = isinstance(origins, tuple | list)  # others the check of types refuses
    named = [one for one in origins if isinstance(one, str)] if known else []
    for origin in map(_whole, named):
        if origin in _OWN.values():
            continue
        with running(f'plugins: {origin} cannot be loaded: it'):
            if origin.endswith('.py'):
                runpy.run_path(origin)
            else:
                importlib.import_module(origin)


def used(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the origins of the parts that a configuration names, and those it has."""
    tables = {'system': 'system', 'solver': 'solver', 'nudged_solver': 'solver'}
    named = [
        _OWN.get((table, values[section]['name']))
        for section, table in (tables | {'estimator': 'estimator'}).items()
    ]
    cost = _OWN.get(('cost', values['system'].get('cost')))
    every = [*map(_whole, values['plugins']), *filter(None, [*named, cost])]
    return tuple(dict.fromkeys(every))


def digest(origins: Iterable[str]) -> str | None:
    """Returns 16 digits of the SHA-256 of files and modules; None: there are none."""
    paths = [
        origin
        if origin.endswith('.py')
        else getattr(sys.modules.get(origin), '__file__', None)
        for origin in origins
    ]
    contents = [pathlib.Path(path).read_bytes() for path in paths if path]
    found = hashlib.sha256(b'\0'.join(contents)).hexdigest()[:16]
    return found if contents else None


def _whole(origin: str) -> str:
    """Returns the path of a file from the root, and a module as it is."""
    return os.path.abspath(origin) if origin.endswith('.py') else origin


def _register(
    section: str, name: str, factory: Callable[..., Any], *needs: str
) -> None:
    """Puts a part into the table of its section."""
    table = registry.NAMED[section]['name']
    _put(section, table, name, Part(factory, *needs), _origin(factory))


def _put(kind: str, table: dict[str, Any], name: str, entry: Any, origin: str) -> None:
    """Puts an entry into a table; one may replace itself."""
    if name in table and _OWN.get((kind, name)) != origin:
        raise ValueError(f'there is another {kind} {name!r}: choose another name')
    table[name] = entry
    _OWN[kind, name] = origin


def _origin(factory: Callable[..., Any]) -> str:
    """Returns where a factory is found: a module of a package, or else a file."""
    while isinstance(factory, functools.partial):
        factory = factory.func
    try:
        path = pathlib.Path(inspect.getfile(inspect.unwrap(factory))).resolve()
    except TypeError:  # it is no function of Python
        return ''
    libraries = [sysconfig.get_path(name) for name in ('purelib', 'platlib')]
    if '.' in factory.__module__ or any(map(path.is_relative_to, libraries)):
        return factory.__module__
    return str(path) if path.is_file() else ''
