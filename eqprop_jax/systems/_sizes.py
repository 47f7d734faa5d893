"""Checks of sizes and options that users give; messages name what is wrong."""

import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any


def positive(name: str, values: Any) -> tuple[int, ...]:
    """Returns a list of positive whole numbers as Python integers.

    Raises:
      ValueError: for anything else, called `name`.
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


def for_each(
    name: str, value: Any, count: int, what: str = 'convolutions'
) -> tuple[Any, ...]:
    """Returns one value for each of `count`, from one for all or a list of them.

    Raises:
      ValueError: for a list of another length, called `name`.
    """
    if isinstance(value, str) or not isinstance(value, Iterable):
        return (value,) * count
    values = tuple(value)
    if len(values) == 1:
        return values * count
    if len(values) != count:
        raise ValueError(
            f'{name}={values} has {len(values)} entries for {count} {what}: give '
            'one for each, or one for all'
        )
    return values


def check_feedback(
    feedback: str, angle: float | None, choices: Sequence[str] = ('tied', 'free')
) -> None:
    """Raises ValueError for an unknown name, or an angle that nothing can have."""
    if feedback not in choices:
        raise ValueError(f'no feedback {feedback!r}; choose from {", ".join(choices)}')
    if angle is None:
        return
    if feedback != 'free':
        raise ValueError(
            f'angle={angle} needs feedback of its own: set feedback="free" '
            f'instead of {feedback!r}, or leave the angle out'
        )
    if not 0 <= angle <= 180:
        raise ValueError(f'an angle lies between 0 and 180 degrees, not {angle}')


def _is_positive(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    return bool(math.isfinite(value) and value >= 1 and int(value) == value)
