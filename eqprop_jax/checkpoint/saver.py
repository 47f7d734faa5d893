"""Checkpoints are written in the background, and older ones removed."""

import contextlib
import json
from collections.abc import Callable, Generator, Mapping
from concurrent import futures
from typing import Any

import jax
import numpy as np
from etils import epath

from eqprop_jax import _disk as disk
from eqprop_jax.checkpoint import folders, orbax
from eqprop_jax.checkpoint.folders import CheckpointError, Workdir

PATIENCE = 5.0  # seconds for a save when something else has failed, as the disk may
ERRORS = (OSError, ValueError, RuntimeError)  # of orbax, and Exception itself


class Saver:
    """Writes the checkpoints of a run while the run goes on.

    A save copies the state and returns. In the background files are written and summed
    up, and older ones removed; the next save, `wait` and the end of the context wait
    for that. The end removes older ones even if there was no save; where an error has
    ended the context, it waits for some seconds, since Orbax may never return. On
    several hosts all of them save the same; the first one writes.

    Args:
      workdir: made if need be.
      keep: how many checkpoints are left, and the best beside them; positive.
      is_ours: asked before anything is finished or removed: whether the workdir still
        is the one that it was.
    """

    def __init__(
        self,
        workdir: Workdir,
        *,
        keep: int = 1,
        is_ours: Callable[[], bool] = lambda: True,
    ):
        self._folder = folders.folder_of(workdir)
        self._keep, self._is_ours = keep, is_ours
        self._number = folders.highest_number(self._folder)
        self._background = futures.ThreadPoolExecutor(1, 'checkpoint')
        self._unfinished: futures.Future[None] | None = None

    def save(
        self, state: Any, notes: Mapping[str, Any] | None = None, *, best: bool = False
    ) -> epath.Path:
        """Writes a state, and then removes older ones.

        Args:
          state: pytree of arrays and numbers, the same on all devices. Of a random key
            save `jax.random.key_data`.
          notes: plain values that go with it, as JSON has them.
          best: write it as the best one, which is kept apart.

        Returns:
          The folder that it will be in.

        Raises:
          CheckpointError: if this one, or the one before it, cannot be written.
          ValueError: if two arrays of the state have the same name, or one is not of
            numbers.
        """
        self.wait()
        ocp = orbax.load()
        arrays = {
            name: np.array(leaf, folders.dtype_of(leaf))
            for name, leaf in folders.by_name(state).items()
        }
        text = None if notes is None else json.dumps(notes)
        self._number += 1
        path = self._folder / f'{folders.BEST if best else ""}{self._number}'

        with self._writing():
            written = ocp.save_async(str(path), arrays)

        def finish() -> None:
            written.result()
            if self._writes():
                if text is not None:
                    (path / folders.NOTES).write_text(text)
                folders.write_sums(path)
            if self._writes():
                folders.keep_only(self._folder, self._keep)

        self._unfinished = self._background.submit(finish)
        return path

    def wait(self) -> None:
        """Returns when what was saved is on the disk.

        Raises:
          CheckpointError: if it cannot be written.
        """
        saved, self._unfinished = self._unfinished, None
        if saved is not None:
            with self._writing():
                saved.result()

    def _writes(self) -> bool:
        """Returns whether this host is the one that writes, and may still do it."""
        return jax.process_index() == 0 and self._is_ours()

    @contextlib.contextmanager
    def _writing(self) -> Generator[None, None, None]:
        """Raises CheckpointError for the errors of a disk and of orbax."""
        try:
            yield
        except Exception as error:
            if type(error) is not Exception and not isinstance(error, ERRORS):
                raise
            raise CheckpointError(
                f'cannot write a checkpoint to {self._folder} ({disk.reason(error)})'
            ) from error

    def __enter__(self) -> 'Saver':
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is not None and self._unfinished is not None:
            futures.wait([self._unfinished], PATIENCE)
        self._background.shutdown(wait=error is None)
        if error is None:
            self.wait()
            with self._writing():  # what a killed run left after its last save
                if self._writes() and self._folder.exists():
                    folders.keep_only(self._folder, self._keep)


def save(
    workdir: Workdir,
    state: Any,
    notes: Mapping[str, Any] | None = None,
    *,
    keep: int = 1,
) -> epath.Path:
    """Writes a state and returns its folder, once it is there: as `Saver` does."""
    with Saver(workdir, keep=keep) as saver:
        return saver.save(state, notes)


def remove(workdir: Workdir) -> None:
    """Removes the checkpoints of a workdir, if there are any, and nothing else.

    Raises:
      CheckpointError: if they cannot be removed.
    """
    folder = folders.folder_of(workdir)
    try:
        folders.remove(folder)
        disk.remove_if_empty(folder)
    except OSError as error:
        reason = disk.reason(error)
        raise CheckpointError(f'cannot remove {folder} ({reason})') from error
