"""Variants of an experiment, --config=configs/NAME.py:VARIANT, and its relatives."""

import pathlib
import runpy
import types
from collections.abc import Callable, Mapping

import ml_collections


class NoVariantError(LookupError):
    """A configuration was asked for a variant that it has not."""


def choose(
    variant: str, choices: Mapping[str, Callable[[], ml_collections.ConfigDict]]
) -> ml_collections.ConfigDict:
    """Returns the configuration of a variant.

    Args:
      variant: what stands behind the colon; '' where there is none.
      choices: functions by variant.

    Raises:
      NoVariantError: lists the choices. No ValueError, which absl would wrap into a
        traceback.
    """
    if variant not in choices:
        names = ', '.join(repr(name) for name in choices if name)
        raise NoVariantError(f'no variant {variant!r}; choose from {names}')
    return choices[variant]()


def beside(file: str, name: str) -> types.SimpleNamespace:
    """Returns what another configuration defines, read from its path.

    It needs no package, and no package of that name can get in its way.

    Args:
      file: of the configuration that builds on it, `__file__`.
      name: of the other one: its path from the folder of that file, without '.py'.
    """
    path = pathlib.Path(file).parent / f'{name}.py'
    return types.SimpleNamespace(**runpy.run_path(str(path)))
