"""What figures and tables are drawn from, and by which commit it was found."""

import datetime
import pathlib
import subprocess
from collections.abc import Mapping
from typing import Any

from eqprop_jax.records import files
from eqprop_jax.records.files import Folder, Path


def commit() -> str | None:
    """Returns the commit of the code that runs, with a + where it was changed since.

    None where the code is no part of a repository, as when it was installed into one.
    """
    if _git('ls-files', pathlib.Path(__file__).name) is None:
        return None
    return _git('describe', '--always', '--dirty=+')


def provenance() -> dict[str, Any]:
    """Returns when numbers were found, and by which commit."""
    return {'date': datetime.date.today().isoformat(), 'commit': commit()}


def _git(*arguments: str) -> str | None:
    """Returns what git says of this folder, None for nothing."""
    folder = pathlib.Path(__file__).parent
    try:
        result = subprocess.run(
            ['git', *arguments], cwd=folder, capture_output=True, text=True
        )
    except OSError:
        return None
    return result.stdout.strip() or None


def write_data(folder: Folder, name: str, data: Mapping[str, Any]) -> Path:
    """Writes what a figure is drawn from to <name>.json, and returns its path.

    Args:
      folder: where to; made if need be.
      name: of the figure.
      data: plain values, as JSON has them.

    Raises:
      WorkdirError: if the folder cannot be written to.
    """
    path = files.folder(folder) / f'{name}.json'
    files.write_json(path, data)
    return path


def read_data(folder: Folder, name: str) -> dict[str, Any]:
    """Returns what `write_data` wrote; what was not finite is None.

    Raises:
      WorkdirError: if there is none, or none that can be read.
    """
    return files.read_json(files.folder(folder) / f'{name}.json')
