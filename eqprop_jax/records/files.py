"""JSON files in a folder: written as a whole, read with a message of one line."""

import contextlib
import json
import math
import os
import re
from collections.abc import Generator, Mapping
from typing import Any

from etils import epath

from eqprop_jax import _disk as disk

Path = epath.Path
Folder = epath.PathLike
"""What a path is made from: a string, or a path of any kind."""
PATTERN = '*?[\\'  # what orbax, which looks for its files by glob, does not quote
DISK = (OSError, ImportError)  # of a bucket for which a package is missing


class WorkdirError(ValueError):
    """The workdir cannot take this run."""


def folder(workdir: Folder) -> epath.Path:
    """Returns a workdir, local or gs://bucket/folder, as a path.

    Raises:
      WorkdirError: for another kind of URL, or an empty name.
    """
    if not os.fspath(workdir):
        raise WorkdirError('the name of the workdir is empty: choose a folder')
    try:
        return epath.Path(workdir).expanduser()
    except KeyError as error:
        raise WorkdirError(
            f'{workdir} is neither a local folder nor gs://bucket/folder'
        ) from error


def folder_of_run(workdir: Folder) -> epath.Path:
    """Does so for a workdir that is to hold checkpoints.

    Raises:
      WorkdirError: as `folder`, and if the name is one that they cannot be read from.
    """
    path = folder(workdir)
    if set(PATTERN) & set(str(path.resolve())):
        raise WorkdirError(
            f'{path} cannot hold checkpoints, since its path has one of '
            f'{" ".join(PATTERN)}: choose another --workdir'
        )
    return path


@contextlib.contextmanager
def writing(folder: Folder, advice: str = '') -> Generator[None, None, None]:
    """Raises WorkdirError, which ends with the advice, for the errors of a disk."""
    try:
        yield
    except DISK as error:
        raise WorkdirError(f'cannot write to {folder} ({error}){advice}') from error


def write_whole(path: Folder, content: str | bytes) -> None:
    """Writes a file as a whole: whatever interrupts that, the old or the new is there.

    Raises:
      OSError: if it cannot be written, or is there and no regular file.
    """
    disk.write_whole(folder(path), content)


def write_json(path: epath.Path, value: Any, advice: str = '') -> None:
    """Writes plain values to a file, lists of numbers in rows; makes its folder.

    Raises:
      WorkdirError: if it cannot be written; the message ends with the advice.
    """
    numbers = r'\[\n\s+([^][{}"]+)\n\s*\]'
    text = re.sub(
        numbers, lambda row: f'[{" ".join(row[1].split())}]', dumps(value, indent=2)
    )
    with writing(path.parent, advice):
        disk.make(path.parent)
        disk.write_whole(path, text + '\n')


def read_json(path: epath.Path, missing: str = '') -> dict[str, Any]:
    """Returns the object in a file; `missing` is what to say if there is none.

    Raises:
      WorkdirError: if there is none, or none that can be read.
    """
    try:
        return parse(disk.read(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        message = missing or f'{path.parent} has no {path.name}'
        raise WorkdirError(message) from error
    except DISK as error:
        raise WorkdirError(f'{path} cannot be read ({error})') from error
    except ValueError as error:
        raise WorkdirError(f'{path} is damaged ({error})') from error


def parse(text: bytes | str) -> dict[str, Any]:
    """Returns a JSON object; raises ValueError if it is none."""
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError('it is nested too deeply') from error
    if not isinstance(value, dict):
        raise ValueError('it is not an object')
    return value


def parse_rows(text: bytes) -> list[dict[str, Any]]:
    """Returns a JSON list of objects; raises ValueError if it is none."""
    rows = json.loads(text)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError('it is no list of rows')
    return rows


def dumps(value: Any, indent: int | None = None) -> str:
    """Returns plain values as JSON, null for what is not finite."""
    return json.dumps(plain(value), indent=indent, allow_nan=False)


def plain(value: Any) -> Any:
    """Returns the value as JSON will give it back: null for NaN, lists for tuples."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def flat(values: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Returns values as JSON has them, by dotted key; empty sections are none."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f'{prefix}{key}.')
        else:
            found[f'{prefix}{key}'] = plain(value)
    return found


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Returns in words where values differ; what is missing is None."""
    return [
        f'{key} is {there.get(key)!r} there, {here.get(key)!r} here'
        for key in sorted({**there, **here})
        if there.get(key) != here.get(key)
    ]
