"""What a section may hold: keys with the types of their values.

The keys of a constructor are compiled from its signature. Whatever does not fit is told
in words that name the key and the choices, all of it at once: `problems` lists it, and
`refuse` raises it.
"""

import contextlib
import inspect
import types
import typing
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from eqprop_jax.config.variants import NoVariantError

FLOAT32_MAX = 2.0**128
REFUSALS = (OverflowError, TypeError, ValueError)  # of values that fit nowhere
MOST = {  # of loops that a signal has to wait for, far above what is of use
    **dict.fromkeys(('max_steps', 'num_steps', 'steps_per_point'), 100_000),
    **dict.fromkeys(('periods', 'burn_in', 'num_probes'), 10_000),
    'num_points': 1000,
}
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


Fits = Callable[[Any], bool]


class Key(NamedTuple):
    """What a key may hold."""

    words: str
    """What that is."""
    fits: Fits
    required: bool = True
    least: int | None = None
    """0 or 1; None: any number."""
    default: Any = None
    """What it stands for where it is left out."""


Keys = dict[str, Key]


def nested(values: Mapping[str, Any], section: str = '') -> dict[str, Any]:
    """Returns a section, and all those within it, by their dotted names."""
    found: dict[str, Any] = {section: values}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= nested(value, f'{section}.{key}'.lstrip('.'))
    return found


def keys(constructor: Callable[..., Any], given: Collection[str] = ()) -> Keys:
    """Returns the arguments of a constructor, but for those that the build gives it."""
    arguments = inspect.signature(constructor).parameters
    return {
        name: key(argument.annotation)
        if argument.default is argument.empty
        else key(argument.annotation, required=False, default=argument.default)
        for name, argument in arguments.items()
        if name not in given
    }


def key(
    kind: Any, *, required: bool = True, least: int | None = None, default: Any = None
) -> Key:
    """Returns a key of an annotated type; an integer is a number, True is not."""
    return Key(*_compiled(kind), required, least, default)


def choice(*names: str | None) -> Key:
    """Returns a key for one of some names."""
    return Key(f'one of {", ".join(map(str, names))}', lambda value: value in names)


def defaults(sections: Mapping[str, Keys]) -> dict[str, Any]:
    """Returns what keys stand for, by dotted name, unless that is None."""
    return {
        f'{section}.{name}': key.default
        for section, keys in sections.items()
        for name, key in keys.items()
        if key.default is not None
    }


def problems(
    section: str, values: Mapping[str, Any], keys: Keys, others: Collection[str] = ()
) -> list[str]:
    """Returns what is wrong with the values of a section, '' for the top level.

    Other keys are not wrong, but of no use.
    """
    prefix = f'{section}.' if section else ''
    choices, found = ', '.join(keys), []
    for name, value in values.items():
        if name in keys:
            found += _problem(prefix + name, value, keys[name])
        elif name not in others:
            found.append(f'unknown key {prefix}{name}: choose from {choices}')
    return found + [
        f'key {prefix}{name} is missing'
        for name, key in keys.items()
        if key.required and name not in values
    ]


def refuse(problems: Collection[str]) -> None:
    """Raises one ConfigError of all problems, if there are any, each told once."""
    if problems:
        raise ConfigError('; '.join(dict.fromkeys(problems)))


@contextlib.contextmanager
def naming(section: str) -> Generator[None, None, None]:
    """Raises what a constructor refuses as a ConfigError that names the section."""
    try:
        yield
    except REFUSALS as error:
        raise ConfigError(f'{section}: {error}') from error


@contextlib.contextmanager
def running(what: str) -> Generator[None, None, None]:
    """Raises whatever a program of the user's raises as a ConfigError that names it."""
    try:
        yield
    except (ConfigError, NoVariantError):
        raise
    except Exception as error:
        kind = type(error).__name__
        raise ConfigError(f'{what} raises {kind}: {error}') from error


def _compiled(kind: Any) -> tuple[str, Fits]:
    """Returns a type in words, and whether a value is of it."""
    origin, args = typing.get_origin(kind) or kind, typing.get_args(kind)
    if isinstance(kind, types.UnionType):
        choices = [_compiled(kind) for kind in args if kind is not jax.Array]
        words = ' or '.join(words for words, _ in choices)
        return words, lambda value: any(fits(value) for _, fits in choices)
    if origin in (Mapping, Sequence, tuple):
        words, entry_fits = _compiled(args[-1])
        form, noun = list | tuple, 'sequence'
        if origin is Mapping:
            form, noun = Mapping, 'section'
        return (
            f'a {noun}, each entry {words}',
            lambda value: (
                isinstance(value, form) and all(map(entry_fits, _entries(value)))
            ),
        )

    def fits(value: Any) -> bool:
        if kind in (Any, inspect.Parameter.empty):
            return True
        if isinstance(value, bool):
            return kind is bool
        return isinstance(value, int | float if origin is float else origin)

    return _WORDS.get(origin) or getattr(origin, '__name__', str(origin)), fits


def _problem(name: str, value: Any, key: Key) -> list[str]:
    """Returns why a value is not of its type, too small or too large, in a list."""
    if not key.fits(value):
        return [f'{name} has to be {key.words}, not {value!r}']
    if isinstance(value, float) and not abs(value) < FLOAT32_MAX:
        return [f'{name} has to be finite in float32, not {value}']
    limit = 2**32 if name == 'data.seed' else 2**31  # NumPy's seeds, JAX's integers
    if _largest(value) >= limit:
        return [f'{name} has to be less than {limit}']
    if key.least is not None and value < key.least:
        wanted = (
            'has to be a positive integer, not' if key.least else 'cannot be negative:'
        )
        return [f'{name} {wanted} {value}']
    most = MOST.get(name.rpartition('.')[2], limit)
    too_large = isinstance(value, int) and value > most
    return [f'{name} is at most {most:,}, not {value:,}'] if too_large else []


def _largest(value: Any) -> int:
    """Returns the size of the largest integer in a value, which JAX has to hold."""
    if isinstance(value, int):
        return abs(value)
    return max(map(_largest, _entries(value)), default=0)


def _entries(value: Any) -> Collection[Any]:
    """Returns what a section or a sequence holds."""
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()
