"""The records of a run, written while it trains."""

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any

from absl import logging
from etils import epath

from eqprop_jax import _disk as disk
from eqprop_jax.records import files
from eqprop_jax.records.events import Events
from eqprop_jax.records.files import Folder, WorkdirError, writing

CONFIG = 'config.json'
METRICS = 'metrics.jsonl'
SUMMARY = 'summary.json'
SPLITS = ('train', 'eval', 'test')


class Writer:
    """Appends records to a workdir; a context manager that closes its files.

    In a bucket, where nothing can be appended, the file of records is replaced at every
    `flush`, and there is no tensorboard/.

    Args:
      workdir: the folder.
      step: that a run goes on from: records up to it stay, and later ones, or half a
        line, are removed. 0: a new run.
      idle: whether to write nothing at all, on hosts that are not the first.
      config: plain values, which TensorBoard lists as the hyperparameters of the run.

    Raises:
      WorkdirError: if the workdir cannot be written to, or is another one meanwhile,
        from every method.
    """

    def __init__(
        self,
        workdir: Folder,
        step: int = 0,
        *,
        idle: bool = False,
        config: Mapping[str, Any] | None = None,
    ):
        self._idle, self._last = idle, step
        self._events: Events | None = None  # of a bucket there are none
        self._pins = contextlib.ExitStack()
        self.is_ours: Callable[[], bool] = lambda: True
        """Says whether the workdir, its configuration and its records are the same."""
        if idle:
            return
        self._folder = files.folder(workdir)
        self._path = self._folder / METRICS
        with writing(self._folder):
            disk.make(self._folder)
            disk.remove_file(self._folder / SUMMARY)
            self._lines = _lines_up_to(self._path, step)
            disk.write_whole(self._path, ''.join(self._lines))
            if not disk.is_remote(self._folder):
                self._events = Events(self._folder / 'tensorboard', step)
                if config and not step:
                    self._events.describe(files.flat(config))
            paths = (self._folder, self._folder / CONFIG, self._path)
            there = [path for path in paths if path.exists()]
            self.is_ours = self._pins.enter_context(disk.pinned(*there))

    def check(self) -> None:
        """Raises WorkdirError if the workdir is not the one that it was."""
        if self._idle:
            return
        with writing(self._folder):
            is_ours = self.is_ours()
        if not is_ours:
            raise WorkdirError(
                f'{self._folder}, or {CONFIG} or {METRICS} in it, was moved, deleted '
                'or replaced while a run was writing there: the run stops. What it '
                f'saved is where they are now, with records up to step {self._last}'
            )

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
        self.check()
        self._last = step
        values = {name: float(value) for name, value in metrics.items()}
        record = {'step': step, 'epoch': round(epoch, 6), 'split': split}
        line = files.dumps(record | values) + '\n'
        if self._events is None:
            self._lines.append(line)
            return
        with writing(self._folder):
            with self._path.open('a', encoding='utf-8') as lines:
                lines.write(line)
            scalars = {
                f'{split}/{name}': value
                for name, value in values.items()
                if math.isfinite(value)
            }
            self._events.write(step, scalars)

    def flush(self) -> None:
        """Brings records to the disk: before the checkpoint that they belong to."""
        if self._idle:
            return
        self.check()
        with writing(self._folder):
            if self._events is None:
                disk.write_whole(self._path, ''.join(self._lines))
            else:
                disk.sync(self._path)
                self._events.flush()

    def __enter__(self) -> 'Writer':
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if self._events is None:
                self.flush()
                return
            with writing(self._folder):
                self._events.close()
        except WorkdirError:
            if error is None:
                raise
        finally:
            self._pins.close()


def parse_record(line: bytes | str) -> dict[str, Any]:
    """Returns the record in a line; raises ValueError if there is none."""
    record = files.parse(line)
    missing = {'step', 'epoch', 'split'} - record.keys()
    if missing:
        raise ValueError(f'it has no {min(missing)}')
    if not isinstance(record['step'], int):
        raise ValueError(f'its step is {record["step"]!r}')
    return record


def _lines_up_to(path: epath.Path, step: int) -> list[str]:
    """Returns the whole lines of a file of records up to a step, in their order.

    A run saves its state after the record of the same step: if that is not there some
    were lost, which is logged.
    """
    kept: list[str] = []
    if not step or not path.exists():
        return kept
    found, whole = 0, True
    *lines, _ = disk.read(path).decode(errors='replace').split('\n')
    for line in lines:
        try:
            number = parse_record(line)['step']
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
