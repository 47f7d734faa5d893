"""What a section may hold: the arguments of a constructor, read off its signature.

Whatever does not fit is told in words that name the key and the choices, all of it at
once: `problems` lists them, and who has gathered those of all sections refuses them.
"""

import contextlib
import inspect
import types
import typing
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from typing import Any

Keys = dict[str, inspect.Parameter]
"""Keys with their types, of which those without a default are required."""

FLOAT32_MAX = 2.0**128
REFUSALS = (OverflowError, TypeError, ValueError)  # of values that fit nowhere
_EMPTY = inspect.Parameter.empty
_WORDS = {
    int: 'an integer',
    float: 'a number',
    bool: 'True or False',
    str: 'a string',
    dict: 'a section',
    type(None): 'None',
}


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


def keys(constructor: Callable[..., Any], given: Collection[str] = ()) -> Keys:
    """Returns the arguments of a constructor, but for those that the build gives it."""
    parameters = inspect.signature(constructor).parameters
    return {key: parameters[key] for key in parameters if key not in given}


def key(kind: Any, *default: Any) -> inspect.Parameter:
    """Returns a key that is no argument of a constructor; required without default."""
    value = default[0] if default else _EMPTY
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter('key', keyword, default=value, annotation=kind)


def problems(
    section: str, values: Mapping[str, Any], keys: Keys, others: Collection[str] = ()
) -> list[str]:
    """Returns what is wrong with the values of a section, in a message each.

    Args:
      section: its name; '' for the top level.
      values: what it holds.
      keys: what it may hold.
      others: keys that are not wrong, but of no use.
    """
    prefix = f'{section}.' if section else ''
    choices, found = ', '.join(keys), []
    for key, value in values.items():
        if key in keys:
            found += _problem(prefix + key, value, keys[key].annotation)
        elif key not in others:
            found.append(f'unknown key {prefix}{key}: choose from {choices}')
    return found + [
        f'key {prefix}{key} is missing'
        for key, parameter in keys.items()
        if parameter.default is _EMPTY and key not in values
    ]


def refuse(problems: Collection[str]) -> None:
    """Raises one ConfigError of all problems, if there are any."""
    if problems:
        raise ConfigError('; '.join(problems))


@contextlib.contextmanager
def naming(section: str) -> Generator[None, None, None]:
    """Raises what a constructor refuses as a ConfigError that names the section."""
    try:
        yield
    except REFUSALS as error:
        raise ConfigError(f'{section}: {error}') from error


def _problem(key: str, value: Any, kind: Any) -> list[str]:
    """Returns why a value is not of its type, not finite, or immense, in a list."""
    if not _fits(value, kind):
        return [f'{key} has to be {_words(kind)}, not {value!r}']
    if isinstance(value, float) and not abs(value) < FLOAT32_MAX:
        return [f'{key} has to be finite in float32, not {value}']
    limit = 2**32 if key == 'data.seed' else 2**31  # NumPy's seeds, JAX's integers
    return [f'{key} has to be less than {limit}'] if _largest(value) >= limit else []


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
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Sequence, tuple):
        return f'a sequence, each entry {_words(args[0])}'
    if origin is Mapping:
        return f'a section, each entry {_words(args[1])}'
    return _WORDS.get(kind) or getattr(kind, '__name__', str(kind))
