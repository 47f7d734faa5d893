"""The records of a run: written while it trains, read for figures and tables."""

import math
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np
from absl import logging
from etils import epath

from eqprop_jax.records import files
from eqprop_jax.records.events import Events
from eqprop_jax.records.files import (
    DISK,
    Folder,
    WorkdirError,
    dumps,
    parse,
    plain,
    read_json,
    write_whole,
    writing,
)

METRICS = 'metrics.jsonl'
CONFIG = 'config.json'
SUMMARY = 'summary.json'
BIAS = 'bias.json'
SPLITS = ('train', 'eval', 'test')
PATTERN = '*?[\\'  # what orbax, which looks for its files by glob, does not quote


class Writer:
    """Appends records to a workdir; a context manager that closes its files.

    In a bucket, where nothing can be appended, the file of records is replaced at every
    `flush`, and there is no tensorboard/.

    Args:
      workdir: the folder.
      step: that a run goes on from: records up to it stay, and later ones, or half a
        line, are removed. 0: a new run.
      idle: whether to write nothing at all, on hosts that are not the first.

    Raises:
      WorkdirError: if the workdir cannot be written to, from every method.
    """

    def __init__(self, workdir: Folder, step: int = 0, *, idle: bool = False):
        self._idle = idle
        self._events: Events | None = None
        if idle:
            return
        self._folder = files.folder(workdir)
        self._path = self._folder / METRICS
        self._is_remote = files.is_remote(self._folder)
        with writing(self._folder):
            self._open(step)

    def _open(self, step: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / SUMMARY).unlink(missing_ok=True)
        events = [] if step else list(self._folder.glob('tensorboard/events.*'))
        for stale in events:
            stale.unlink(missing_ok=True)
        self._lines = _lines_up_to(self._path, step)
        write_whole(self._path, ''.join(self._lines))
        if not self._is_remote:
            self._events = Events(self._folder / 'tensorboard', step)

    def write(
        self, step: int, epoch: float, split: str, metrics: Mapping[str, Any]
    ) -> None:
        """Appends one record and closes the file, so that a crash loses none.

        Args:
          step: training steps taken so far.
          epoch: the same in epochs.
          split: 'train', 'eval' or 'test'.
          metrics: scalars by name, `loss` and `error` among them.

        Raises:
          ValueError: for another split.
        """
        if split not in SPLITS:
            raise ValueError(f'no split {split!r}; choose from {", ".join(SPLITS)}')
        if self._idle:
            return
        values = {name: float(value) for name, value in metrics.items()}
        record = {'step': step, 'epoch': round(epoch, 6), 'split': split}
        line = dumps({**record, **values}) + '\n'
        if self._is_remote:
            self._lines.append(line)
            return
        finite = {
            f'{split}/{name}': value
            for name, value in values.items()
            if math.isfinite(value)
        }
        with writing(self._folder):
            with self._path.open('a', encoding='utf-8') as lines:
                lines.write(line)
            if self._events is not None:
                self._events.write(step, finite)

    def flush(self) -> None:
        """Brings records to where a crash cannot reach them, before a checkpoint."""
        if self._idle:
            return
        with writing(self._folder):
            if self._is_remote:
                write_whole(self._path, ''.join(self._lines))
            if self._events is not None:
                self._events.flush()

    def __enter__(self) -> 'Writer':
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._idle:
            return
        try:
            with writing(self._folder):
                self.flush()
                if self._events is not None:
                    self._events.close()
        except WorkdirError:
            if error is None:
                raise


def claim(workdir: Folder, config: Mapping[str, Any], *, write: bool = True) -> None:
    """Writes config.json into a workdir, which is made if need be.

    A workdir that already holds a run of the same configuration may be claimed again:
    the run is a function of its configuration. One that has ended starts anew, one
    that has not goes on from its checkpoint, if it left any. On how many devices it
    runs (`mesh`) may change.

    Args:
      workdir: the folder.
      config: plain values, as JSON has them.
      write: if False look whether it may be claimed, and leave it as it is.

    Raises:
      WorkdirError: if the folder holds the run of another configuration, or metrics
        but no readable configuration, or cannot be written, or if its name is one that
        checkpoints cannot be read from.
    """
    folder = files.folder(workdir)
    path = folder / CONFIG
    if set(PATTERN) & set(str(folder.resolve())):
        raise WorkdirError(
            f'{folder} cannot hold checkpoints, since its path has one of '
            f'{" ".join(PATTERN)}: choose another --workdir'
        )
    with writing(folder, ': choose another --workdir'):
        if path.exists():
            _check_same(folder, path, config)
        elif (folder / METRICS).exists():
            raise WorkdirError(
                f'{folder} holds {METRICS} but no {CONFIG}: choose another --workdir'
            )
        if not write:
            return
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, dumps(config, indent=2) + '\n')


def is_unfinished(workdir: Folder) -> bool:
    """Returns whether a run was begun in a workdir and did not end."""
    folder = files.folder(workdir)
    return (folder / METRICS).exists() and not (folder / SUMMARY).exists()


def read_config(workdir: Folder) -> dict[str, Any]:
    """Returns the configuration of the run in a workdir.

    Raises:
      WorkdirError: if there is none, or none that can be read.
    """
    path = files.folder(workdir) / CONFIG
    try:
        return parse(path.read_bytes())
    except DISK as error:
        raise WorkdirError(
            f'{workdir} is not the workdir of a run: it has no {CONFIG}'
        ) from error
    except ValueError as error:
        raise WorkdirError(f'{path} is damaged ({error})') from error


def write_summary(workdir: Folder, summary: Mapping[str, Any]) -> None:
    """Writes summary.json.

    Raises:
      WorkdirError: if it cannot be written.
    """
    with writing(workdir):
        write_whole(files.folder(workdir) / SUMMARY, dumps(summary, indent=2) + '\n')


def write_bias(workdir: Folder, report: Mapping[str, Any]) -> None:
    """Writes bias.json, a report of `analysis.bias` as nested dicts.

    Raises:
      WorkdirError: if it cannot be written.
    """
    with writing(workdir):
        write_whole(files.folder(workdir) / BIAS, dumps(report, indent=2) + '\n')


def read_bias(workdir: Folder) -> dict[str, Any]:
    """Returns the report of a run; what was not finite is None.

    Raises:
      WorkdirError: if there is none, or none that can be read.
    """
    return read_json(files.folder(workdir) / BIAS)


def read(workdir: Folder) -> list[dict[str, Any]]:
    """Returns the records of a run in their order; an unfinished line is left out.

    Raises:
      FileNotFoundError: if the workdir has none.
      WorkdirError: if one of them is damaged.
    """
    path = files.folder(workdir) / METRICS
    if not path.exists():
        raise FileNotFoundError(f'{path} does not exist: is {workdir} a run?')
    *lines, _ = path.read_bytes().split(b'\n')
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(_record(line))
        except ValueError as error:
            raise WorkdirError(
                f'{path} is damaged in line {number} ({error})'
            ) from error
    return records


def _record(line: bytes | str) -> dict[str, Any]:
    """Returns the record in a line; raises ValueError if there is none."""
    record = parse(line)
    missing = {'step', 'epoch', 'split'} - record.keys()
    if missing:
        raise ValueError(f'it has no {min(missing)}')
    if not isinstance(record['step'], int):
        raise ValueError(f'its step is {record["step"]!r}')
    return record


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


def _lines_up_to(path: epath.Path, step: int) -> list[str]:
    """Returns the whole lines of a file of records up to a step, in their order.

    A run saves its state after the record of the same step: if that is not there some
    were lost, which is logged.
    """
    kept: list[str] = []
    if not step or not path.exists():
        return kept
    found, whole = 0, True
    *lines, _ = path.read_bytes().decode(errors='replace').split('\n')
    for line in lines:
        try:
            number = _record(line)['step']
        except ValueError:
            whole = False
            continue
        if number > step:
            break
        found = number
        kept.append(f'{line}\n')
    if found < step or not whole:
        logging.warning(
            '%s is damaged: the run goes on from step %d, but records up to there are '
            'lost',
            path,
            step,
        )
    return kept


def _check_same(folder: epath.Path, path: epath.Path, new: Mapping[str, Any]) -> None:
    """Raises WorkdirError, naming some of the keys, if the configurations differ."""
    try:
        old = parse(path.read_bytes())
    except ValueError as error:
        raise WorkdirError(
            f'{path} is damaged ({error}): choose another --workdir, or delete that one'
        ) from error
    mesh = {'mesh': None}  # on which devices it runs is no matter
    differences = _differences(old | mesh, plain(new) | mesh)
    if differences:
        more = f'; and {len(differences) - 3} more' if len(differences) > 3 else ''
        raise WorkdirError(
            f'{folder} holds a run with another config ({"; ".join(differences[:3])}'
            f'{more}): choose another --workdir, or delete that one'
        )


def _differences(old: Any, new: Any, prefix: str = '') -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [
            line
            for key in keys
            for line in _differences(old.get(key), new.get(key), f'{prefix}{key}.')
        ]
    return [] if old == new else [f'{prefix[:-1]} is {old!r} there, {new!r} here']
