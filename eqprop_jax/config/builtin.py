"""The configurations that come with the library, by name."""

import functools
import os
import pathlib
import runpy
from typing import Any

from eqprop_jax.config.schema import ConfigError, running

PACKAGE = pathlib.Path(__file__).resolve().parents[1]
FOLDERS = (PACKAGE / 'configs', PACKAGE.parent / 'configs')  # installed; of a checkout


def names() -> list[str]:
    """Returns what `path` knows."""
    return sorted(file.stem for file in _folder().glob('*.py'))


def path(config: str) -> str:
    """Returns the path of a configuration, with its variant.

    Args:
      config: NAME or NAME:VARIANT of one that comes with the library, or the path of a
        file, in which ~ stands for the home folder.

    Raises:
      ConfigError: for a name that is none of `names`, nor of a file that is there.
    """
    config = os.path.expanduser(config)
    name, colon, variant = config.partition(':')
    is_path = pathlib.PurePath(name).name != name or name.endswith('.py')
    if not name or is_path or pathlib.Path(name).is_file():
        return config
    if name not in names():
        raise ConfigError(
            f'there is no configuration {name!r}: choose from {", ".join(names())}, or '
            'give the path of a file'
        )
    return f'{_folder() / name}.py{colon}{variant}'


def module(config: str) -> dict[str, Any]:
    """Returns what the file of a configuration defines, `get_config` with its variant.

    Raises:
      ConfigError: if there is no such file, or it raises anything.
      NoVariantError: if it has no such variant.
    """
    file, colon, variant = path(config).partition(':')
    if not pathlib.Path(file).is_file():
        raise ConfigError(f'cannot read the configuration: {file} does not exist')
    with running(f'cannot read {config}: it'):
        found = runpy.run_path(file)
        if colon:
            found['get_config'] = functools.partial(found['get_config'], variant)
        found['get_config']()
    return found


def located(argv: list[str]) -> list[str]:
    """Returns arguments of a command in which --config has a path."""
    found, follows = [], False
    for argument in argv:
        flag, equals, value = argument.partition('=')
        if flag in ('--config', '-config') and equals:
            argument = f'{flag}={path(value)}'
        elif follows:
            argument = path(argument)
        follows = argument in ('--config', '-config')
        found.append(argument)
    return found


def _folder() -> pathlib.Path:
    """Returns the folder of the configurations."""
    return next((folder for folder in FOLDERS if folder.is_dir()), FOLDERS[0])
