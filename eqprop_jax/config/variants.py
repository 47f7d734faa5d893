"""Variants of an experiment, as in --config=configs/NAME.py:VARIANT."""

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
