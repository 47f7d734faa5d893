"""JSON files in a folder: written as a whole, read with a message of one line."""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any


class WorkdirError(ValueError):
    """The workdir cannot take this run."""


def write_whole(path: pathlib.Path, text: str) -> None:
    """Writes a file as a whole: whenever it is interrupted, the old one is there."""
    unfinished = path.with_name(path.name + '.unfinished')
    unfinished.write_text(text, encoding='utf-8')
    unfinished.replace(path)


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Returns the value in a file.

    Raises:
      WorkdirError: if there is none, or none that can be read.
    """
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise WorkdirError(f'{path.parent} has no {path.name}') from error
    except ValueError as error:
        raise WorkdirError(f'{path} is damaged ({error})') from error


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
