"""A run's workdir: held while it trains, read for figures and tables."""

import contextlib
import math
from collections.abc import Generator, Mapping
from typing import Any

import numpy as np

from eqprop_jax import _disk as disk
from eqprop_jax.records import files
from eqprop_jax.records.files import Folder, WorkdirError
from eqprop_jax.records.writer import METRICS, SUMMARY, parse_record

BIAS = 'bias.json'


@contextlib.contextmanager
def locked(workdir: Folder, *, wait: bool = False) -> Generator[None, None, None]:
    """Holds a workdir, which is made if need be, against other runs.

    The system lets go of it with the process, however that ends. Buckets, and file
    systems that know no locks, are not held.

    Args:
      workdir: the folder.
      wait: whether to wait for whoever holds it.

    Raises:
      WorkdirError: if another run holds it, if it cannot be made, or if its name is
        one that checkpoints cannot be read from.
    """
    path = files.folder_of_run(workdir)
    with contextlib.ExitStack() as lock:
        with files.writing(path, ': choose another --workdir'):
            if not disk.is_remote(path):
                disk.make(path)
            held = lock.enter_context(disk.locked(path, wait=wait))
        if held is False:
            raise WorkdirError(
                f'{path} is in use by another run: wait for its end, or choose another '
                '--workdir'
            )
        yield


def is_unfinished(workdir: Folder) -> bool:
    """Returns whether a run was begun in a workdir and did not end."""
    return (files.folder(workdir) / METRICS).exists() and not is_finished(workdir)


def is_finished(workdir: Folder) -> bool:
    """Returns whether a run has come to its end in a workdir, and left its summary.

    Raises:
      WorkdirError: if what has the summary's name is no file.
    """
    path = files.folder(workdir) / SUMMARY
    with files.writing(path.parent):
        disk.check_file(path)
    return path.exists()


def check_summary(workdir: Folder, summary: Mapping[str, Any]) -> None:
    """Compares the last test error of a summary with that of the records.

    Args:
      workdir: of a run; one without records says nothing.
      summary: as summary.json has it.

    Raises:
      WorkdirError: if they are not of one run.
    """
    if not (files.folder(workdir) / METRICS).exists():
        return
    last = (summary.get('last') or {}).get('test') or {}
    rows = [row for row in read(workdir) if row['split'] == 'test']
    if rows and 'error' in last and rows[-1]['error'] != last['error']:
        raise WorkdirError(
            f'{files.folder(workdir) / SUMMARY} is of another run than {METRICS} '
            'beside it: delete it, and run the same command again'
        )


def reopen(workdir: Folder) -> None:
    """Removes summary.json, so that a run that has ended can begin anew.

    Raises:
      WorkdirError: if it cannot be removed.
    """
    folder = files.folder(workdir)
    with files.writing(folder):
        disk.remove_file(folder / SUMMARY)


def write_summary(workdir: Folder, summary: Mapping[str, Any]) -> None:
    """Writes summary.json.

    Raises:
      WorkdirError: if it cannot be written.
    """
    files.write_json(files.folder(workdir) / SUMMARY, summary)


def write_bias(workdir: Folder, report: Mapping[str, Any]) -> None:
    """Writes bias.json, a report of `analysis.bias` as nested dicts.

    Raises:
      WorkdirError: if it cannot be written.
    """
    files.write_json(files.folder(workdir) / BIAS, report)


def read_bias(workdir: Folder) -> dict[str, Any]:
    """Returns the report of a run; what was not finite is None.

    Raises:
      WorkdirError: if there is none, or none that can be read.
    """
    return files.read_json(files.folder(workdir) / BIAS)


def read(workdir: Folder) -> list[dict[str, Any]]:
    """Returns the records of a run in their order; an unfinished line is left out.

    Raises:
      FileNotFoundError: if the workdir has none.
      WorkdirError: if one of them is damaged, or cannot be read.
    """
    path = files.folder(workdir) / METRICS
    if not path.exists():
        raise FileNotFoundError(f'{path} does not exist: is {workdir} a run?')
    try:
        *lines, _ = disk.read(path).split(b'\n')
    except OSError as error:
        raise WorkdirError(f'{path} cannot be read ({error})') from error
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(parse_record(line))
        except ValueError as error:
            raise WorkdirError(
                f'{path} is damaged in line {number} ({error})'
            ) from error
    return records


def series(
    records: list[dict[str, Any]], split: str, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (epochs, values) of one metric; null becomes NaN.

    Args:
      records: from `read`.
      split: 'train', 'eval' or 'test'.
      name: of the metric; records without it are passed over.
    """
    rows = [
        (record['epoch'], math.nan if record[name] is None else record[name])
        for record in records
        if record['split'] == split and name in record
    ]
    epochs, values = zip(*rows, strict=True) if rows else ((), ())
    return np.asarray(epochs, float), np.asarray(values, float)
