"""Changes of a configuration by dotted key: the rows of a sweep, and flags of a run.

A flag --config.KEY=VALUE takes the type that the key has. A value of another type is
--config.KEY==VALUE, as Python writes it, or --config.KEY=None.
"""

import ast
import keyword
import re
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
from ml_collections.config_flags import config_path

from eqprop_jax.config.schema import ConfigError, running
from eqprop_jax.records.sweep import slug

Changes = dict[str, Any]
_FLAG = re.compile(r'--?config\.([^=]+)=(?:(None)|=(.*))', re.DOTALL)


def rows(sweep: Callable[[Callable[..., None]], Any]) -> dict[str, Changes]:
    """Returns the changes of every row of an experiment, by its name.

    Args:
      sweep: calls its argument with name and changes for every row.

    Raises:
      ConfigError: if it raises anything, or if a name is no string, has a folder that
        is no name or that of another row, or if the changes are no dict by dotted key,
        or change the seed.
    """
    found: dict[str, Changes] = {}

    def add(name: str, changes: Mapping[str, Any]) -> None:
        if not isinstance(name, str) or not slug(name):
            raise ConfigError(f'the name {name!r} of a row has no letter and no digit')
        if name in found:
            raise ConfigError(f'two rows are called {name!r}')
        if slug(name) in map(slug, found):
            raise ConfigError(f'{name!r} and another row differ in punctuation only')
        keys = list(changes) if isinstance(changes, Mapping) else [None]
        if not all(isinstance(key, str) for key in keys):
            raise ConfigError(f'row {name!r} is no dict by dotted key, but {changes!r}')
        if 'seed' in keys:
            raise ConfigError(f'row {name!r} has a seed, which --seeds chooses for all')
        found[name] = dict(changes)

    with running('sweep(add)'):
        sweep(add)
    return found


def applied(values: Mapping[str, Any], changes: Changes) -> dict[str, Any]:
    """Returns a configuration with changes, both as plain values.

    Raises:
      ConfigError: if it has no section of a key.
    """
    changed = dict(values)
    for key, value in changes.items():
        first, dot, rest = key.partition('.')
        if not dot:
            changed[key] = value
        elif not isinstance(changed.get(first), Mapping):
            raise ConfigError(f'the configuration has no section {first!r} for {key!r}')
        else:
            changed[first] = applied(changed[first], {rest: value})
    return changed


def flags(values: Mapping[str, Any], changes: Changes) -> list[str]:
    """Returns the flags that make changes of a configuration.

    Raises:
      ConfigError: as `applied`.
    """
    found = []
    for key, value in changes.items():
        applied(values, {key: value})
        old: Any = values
        for name in key.split('.'):
            old = old.get(name)
        told = f'={value}' if _is_told(value, old) else f'=={value!r}'
        found.append(f'--config.{key}{told}')
    return found


def _is_told(value: Any, old: Any) -> bool:
    """Returns whether a flag that has the type of an old value gives this one.

    Without an old one a word is a string, and all else what Python makes of it.
    """
    if isinstance(value, str) and old is None:
        return value.isidentifier() and not keyword.iskeyword(value)
    if isinstance(value, str) and ('\n' in value or value == 'None'):
        return False  # commands are of one line
    kinds = (int, float), (tuple, list), (bool,), (str,), (dict,)
    alike = any(type(value) in kind and type(old) in kind for kind in kinds)
    return alike or value is None or old is None


def told(values: Mapping[str, Any], arguments: list[str]) -> Changes:
    """Returns what flags --config.KEY=VALUE change in a configuration of plain values.

    Raises:
      ConfigError: as `parsed`.
    """
    typed, exact = parsed(arguments)
    found = {}
    for argument in typed:
        key, _, text = argument.partition('.')[2].partition('=')
        old: Any = values
        for name in key.split('.'):
            old = old.get(name) if isinstance(old, Mapping) else None
        found[key] = text if isinstance(old, str) else _value(text)
    return found | exact


def _value(text: str) -> Any:
    """Returns what Python makes of a text, which is a word otherwise."""
    try:
        return ast.literal_eval({'true': 'True', 'false': 'False'}.get(text, text))
    except (SyntaxError, ValueError):
        return text


def put(config: ml_collections.ConfigDict, exact: Changes) -> None:
    """Sets values of whatever type in a configuration."""
    for key, value in exact.items():
        with config.ignore_type():
            config_path.set_value(key, config, value, accept_new_attributes=True)


def parsed(arguments: list[str]) -> tuple[list[str], Changes]:
    """Returns which arguments say nothing of types, and what the others change.

    Raises:
      ConfigError: if a value is not one that Python can write.
    """
    rest, changes = [], {}
    for argument in arguments:
        if (flag := _FLAG.fullmatch(argument)) is None:
            rest.append(argument)
            continue
        try:
            changes[flag[1]] = ast.literal_eval(flag[2] or flag[3])
        except (SyntaxError, ValueError) as error:
            raise ConfigError(f'{argument}: {flag[3]} is no value of Python') from error
    return rest, changes
