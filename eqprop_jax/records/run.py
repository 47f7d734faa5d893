"""A run's workdir: claimed before it trains, read for figures and tables."""

import contextlib
import math
from collections.abc import Generator, Mapping
from typing import Any

import numpy as np
from etils import epath

from eqprop_jax import _disk as disk
from eqprop_jax.records import files
from eqprop_jax.records.files import Folder, WorkdirError
from eqprop_jax.records.writer import CONFIG, METRICS, SUMMARY, parse_record

RESTS_ON = 'rests_on'  # a key of config.json, beside those of the configuration
BIAS = 'bias.json'
OUTPUTS = (METRICS, SUMMARY, BIAS, 'checkpoint', 'tensorboard', 'curves.png')


def claim(
    workdir: Folder,
    config: Mapping[str, Any],
    *,
    defaults: Mapping[str, Any] | None = None,
    rests_on: Mapping[str, Any] | None = None,
    anew: bool = False,
    write: bool = True,
) -> None:
    """Writes config.json into a workdir, which is made if need be.

    A workdir that already holds a run of the same configuration may be claimed again:
    the run is a function of its configuration, and goes on from its checkpoint. On how
    many devices it runs (`mesh`) may change.

    Args:
      workdir: the folder.
      config: plain values, as JSON has them.
      defaults: what keys stand for that are missing in one of the configurations, by
        dotted name.
      rests_on: what else the numbers of the run are a function of, by name. A run that
        noted other values is refused; of what it did not note nothing is known.
      anew: whether the run is to begin anew, on whatever it rests now.
      write: if False look whether it may be claimed, and leave it as it is.

    Raises:
      WorkdirError: if the folder holds the run of another configuration, or one that
        rests on other things, or what runs leave but no readable configuration, or
        cannot be written, or if its name is one that checkpoints cannot be read from.
    """
    folder, advice = files.folder_of_run(workdir), ': choose another --workdir'
    path = folder / CONFIG
    with files.writing(folder, advice):
        if path.exists():
            _check_same(folder, config, defaults or {}, {} if anew else rests_on or {})
        elif there := [name for name in OUTPUTS if (folder / name).exists()]:
            raise WorkdirError(
                f'{folder} holds {there[0]} but no {CONFIG}, so it is not the '
                'folder of a run: choose another --workdir'
            )
    if write:
        noted = {RESTS_ON: rests_on} if rests_on else {}
        files.write_json(path, {**config, **noted}, advice)


def changed(workdir: Folder, rests_on: Mapping[str, Any]) -> list[str]:
    """Returns, in words, what the run in a workdir rests on that is other here.

    Args:
      workdir: of a run.
      rests_on: as in `claim`.

    Raises:
      WorkdirError: as `read_config`.
    """
    return _changes(_read_config(workdir).get(RESTS_ON), rests_on)


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


def reopen(workdir: Folder) -> None:
    """Removes summary.json, so that a run that has ended can begin anew.

    Raises:
      WorkdirError: if it cannot be removed.
    """
    folder = files.folder(workdir)
    with files.writing(folder):
        disk.remove_file(folder / SUMMARY)


def read_config(workdir: Folder) -> dict[str, Any]:
    """Returns the configuration of the run in a workdir.

    Raises:
      WorkdirError: if there is none, or none that can be read.
    """
    found = _read_config(workdir)
    found.pop(RESTS_ON, None)
    return found


def _read_config(workdir: Folder) -> dict[str, Any]:
    """Returns the configuration of a run, and what it rests on."""
    missing = f'{workdir} is not the workdir of a run: it has no {CONFIG}'
    return files.read_json(files.folder(workdir) / CONFIG, missing)


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


def _check_same(
    folder: epath.Path,
    config: Mapping[str, Any],
    defaults: Mapping[str, Any],
    rests_on: Mapping[str, Any],
) -> None:
    """Raises WorkdirError, naming some of what differs, if it holds another run."""
    advice = 'choose another --workdir, or delete that one'
    try:
        found = files.parse(disk.read(folder / CONFIG))
    except ValueError as error:
        message = f'{folder / CONFIG} is damaged ({error}): {advice}'
        raise WorkdirError(message) from error
    changes = _changes(found.pop(RESTS_ON, None), rests_on)
    there, here = (
        files.flat({**each, 'mesh': None})  # on which devices it runs is no matter
        for each in (found, config)
    )
    defaults = files.flat(defaults)
    if differences := files.differences(defaults | there, defaults | here):
        named = disk.first_three(differences)
        raise WorkdirError(
            f'{folder} holds a run with another config ({named}): {advice}'
        )
    if changes:
        named = disk.first_three(changes)
        raise WorkdirError(
            f'{folder} holds a run that rests on something else ({named}): bring that '
            f'back, {advice}'
        )


def _changes(noted: Any, rests_on: Mapping[str, Any]) -> list[str]:
    """Returns in words what is other than what was noted, if anything was."""
    there = noted if isinstance(noted, dict) else {}
    here = files.flat(rests_on)
    return files.differences(there, {key: here.get(key, there[key]) for key in there})
