"""Variants of an experiment, as in --config=configs/NAME.py:VARIANT."""

from collections.abc import Callable, Mapping

import ml_collections


def choose(
    variant: str, choices: Mapping[str, Callable[[], ml_collections.ConfigDict]]
) -> ml_collections.ConfigDict:
    """Returns the configuration of a variant.

    Args:
      variant: what stands behind the colon; '' where there is none.
      choices: functions by variant.

    Raises:
      ValueError: if there is no such variant; lists the choices.
    """
    if variant not in choices:
        names = ', '.join(repr(name) for name in choices if name)
        raise ValueError(f'no variant {variant!r}; choose from {names}')
    return choices[variant]()
