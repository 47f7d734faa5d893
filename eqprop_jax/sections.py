"""Sections of a configuration: the name of a constructor, and its arguments.

What a section may hold is read off the constructors' signatures: their keyword
arguments, with the types they are annotated with. Whatever does not fit is a
`ConfigError` that names the key and the choices.
"""

import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from absl import logging

_EMPTY = inspect.Parameter.empty
_KINDS = {
    int: 'an integer',
    float: 'a number',
    bool: 'True or False',
    str: 'a string',
    dict: 'a section',
    type(None): 'None',
}
FLOAT32_MAX = 2.0**128
REFUSALS = (OverflowError, TypeError, ValueError)  # of values that fit nowhere


class ConfigError(ValueError):
    """A configuration that cannot be built; the message, of one line, names the key."""

    def __init__(self, message: str):
        super().__init__(' '.join(message.split()))


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a copy in which 'None', as the command line spells it, is None."""
    return {
        key: plain(value)
        if isinstance(value, Mapping)
        else None
        if value == 'None'
        else value
        for key, value in values.items()
    }


def named(
    section: str,
    choices: Mapping[str, Callable[..., Any]],
    values: Mapping[str, Any],
    *args: Any,
    name_key: str = 'name',
    others: Collection[str] = (),
    **fixed: Any,
) -> Any:
    """Calls the constructor that a section names, with the section's values.

    A key that only other choices take is logged as not used, so that a method can be
    switched by its name alone.

    Args:
      section: what messages call it.
      choices: constructors by name.
      values: the name under `name_key`, and arguments of the constructor.
      *args: what the constructor takes before those.
      name_key: the key of the name.
      others: what else the section may hold, for messages.
      **fixed: what it takes beside those, and no section may hold.

    Raises:
      ConfigError: for an unknown key or name, or a value out of range.
    """
    values = dict(values)
    name = values.pop(name_key, None)
    if not isinstance(name, str) or name not in choices:
        raise ConfigError(
            f'{section}.{name_key}={name!r}: choose from {", ".join(choices)}'
        )
    own = _keywords(choices[name], len(args), fixed)
    known = {
        key
        for choice in choices.values()
        for key in _keywords(choice, len(args), fixed)
    }
    for key in values:
        if key not in known:
            takes = ', '.join((*own, *others))
            raise ConfigError(f'unknown key {section}.{key}; {name!r} takes {takes}')
    unused = [key for key in values if key not in own and values[key] is not None]
    if unused:
        logging.warning('%s %r does not use: %s', section, name, ', '.join(unused))
    values = {key: value for key, value in values.items() if key in own}
    return call(section, choices[name], values, *args, **fixed)


def call(
    section: str,
    constructor: Callable[..., Any],
    values: Mapping[str, Any],
    *args: Any,
    **fixed: Any,
) -> Any:
    """Calls a constructor with the values of a section.

    Args:
      section: what messages call it.
      constructor: its signature says which keys there are, and of what type.
      values: its keyword arguments.
      *args: what it takes before those.
      **fixed: what it takes beside those, and no section may hold.

    Raises:
      ConfigError: if a key is unknown or missing, a value is not of its type or not
        finite, or the constructor refuses one.
    """
    own = _keywords(constructor, len(args), fixed)
    required = [key for key, parameter in own.items() if parameter.default is _EMPTY]
    expect(f'{section}.', values, own, required)
    kinds = {key: parameter.annotation for key, parameter in own.items()}
    check_types(f'{section}.', values, kinds)
    try:
        return constructor(*args, **values, **fixed)
    except REFUSALS as error:
        raise ConfigError(f'{section}: {error}') from error


def name_of(values: Mapping[str, Any]) -> str:
    """Returns the name that a section has; '' without any that could be one."""
    name = values.get('name')
    return name if isinstance(name, str) else ''


def expect(
    prefix: str,
    values: Mapping[str, Any],
    known: Collection[str],
    required: Collection[str],
) -> None:
    """Raises ConfigError unless the keys are known and the required ones are there.

    Args:
      prefix: what messages put before a key, such as 'data.'.
      values: whose keys are looked at.
      known: all keys there are.
      required: those that have to be there.
    """
    for key in values:
        if key not in known:
            raise ConfigError(
                f'unknown key {prefix}{key}; choose from {", ".join(known)}'
            )
    for key in required:
        if key not in values:
            raise ConfigError(f'key {prefix}{key} is missing')


def check_types(
    prefix: str, values: Mapping[str, Any], kinds: Mapping[str, Any]
) -> None:
    """Raises ConfigError unless every value is of its type, finite, and not immense.

    Args:
      prefix: what messages put before a key, such as 'data.'.
      values: what to check.
      kinds: the annotation of each key.
    """
    for key, value in values.items():
        if not _fits(value, kinds[key]):
            raise ConfigError(
                f'{prefix}{key} has to be {_words(kinds[key])}, not {value!r}'
            )
        if isinstance(value, float) and not abs(value) < FLOAT32_MAX:
            raise ConfigError(f'{prefix}{key} has to be finite in float32, not {value}')
        limit = 2**32 if key == 'seed' else 2**31  # NumPy's seeds, and JAX's integers
        if _largest(value) >= limit:
            raise ConfigError(f'{prefix}{key} has to be less than {limit}')


def positive(prefix: str, values: Mapping[str, Any], keys: Collection[str]) -> None:
    """Raises ConfigError unless the values of these keys are positive."""
    for key in keys:
        if values[key] < 1:
            raise ConfigError(
                f'{prefix}{key} has to be a positive integer, not {values[key]}'
            )


def _keywords(
    constructor: Callable[..., Any], num_args: int, fixed: Collection[str]
) -> dict[str, inspect.Parameter]:
    """Returns what a constructor takes beside what is given to it anyway."""
    parameters = list(inspect.signature(constructor).parameters.items())[num_args:]
    return {key: parameter for key, parameter in parameters if key not in fixed}


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of an annotated type; an integer is a number, True is not."""
    if kind in (_EMPTY, Any):
        return True
    if isinstance(kind, types.UnionType):
        return any(_fits(value, choice) for choice in kind.__args__)
    origin, args = typing.get_origin(kind) or kind, typing.get_args(kind)
    if isinstance(value, bool):
        return origin is bool
    if origin is float:
        return isinstance(value, int | float)
    if origin in (Sequence, tuple):
        return isinstance(value, list | tuple) and all(
            _fits(entry, args[0]) for entry in value
        )
    if origin is Mapping:
        return isinstance(value, Mapping) and all(
            _fits(entry, args[1]) for entry in value.values()
        )
    return isinstance(value, origin)


def _largest(value: Any) -> int:
    """Returns the size of the largest integer in a value, which JAX has to hold."""
    if isinstance(value, int):
        return abs(value)
    if isinstance(value, Mapping):
        value = list(value.values())
    entries = value if isinstance(value, list | tuple) else ()
    return max(map(_largest, entries), default=0)


def _words(kind: Any) -> str:
    if isinstance(kind, types.UnionType):
        return ' or '.join(map(_words, kind.__args__))
    if typing.get_origin(kind) in (Sequence, tuple):
        return f'a sequence, each entry {_words(typing.get_args(kind)[0])}'
    if typing.get_origin(kind) is Mapping:
        return f'a section, each entry {_words(typing.get_args(kind)[1])}'
    return _KINDS.get(kind) or getattr(kind, '__name__', str(kind))
