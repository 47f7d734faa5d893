"""Sizes that users give: positive integers, told by name where they are not."""

import math
import numbers
from collections.abc import Iterable
from typing import Any


def positive(name: str, values: Any) -> tuple[int, ...]:
    """Returns the values as Python integers.

    Args:
      name: what messages call them.
      values: a list of positive whole numbers.

    Raises:
      ValueError: for anything else.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ValueError(f'{name} holds positive integers, in a tuple: not {values!r}')
    values = tuple(values)
    for value in values:
        if not _is_positive(value):
            raise ValueError(
                f'{name} holds positive integers, not {value!r} in {values}'
            )
    return tuple(int(value) for value in values)


def _is_positive(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    return bool(math.isfinite(value) and value >= 1 and int(value) == value)
