"""Checkpoints are written in the background, and older ones removed."""

import json
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import jax
import numpy as np
from etils import epath

from eqprop_jax.checkpoint import folders, orbax
from eqprop_jax.checkpoint.folders import CheckpointError, Workdir

ERRORS = (OSError, ValueError, RuntimeError)  # of orbax, and Exception itself


class Saver:
    """Writes the checkpoints of a run while the run goes on.

    A save copies the state and returns. In the background files are written and summed
    up, and older ones removed; the next save, `wait` and the end of the context wait
    for that. The end removes older ones even if there was no save. On several hosts all
    of them save the same; the first one writes.

    Args:
      workdir: made if need be.
      keep: how many checkpoints are left, and the best beside them; positive.
    """

    def __init__(self, workdir: Workdir, *, keep: int = 1):
        self._folder = folders.folder_of(workdir)
        self._keep = keep
        self._number = folders.highest_number(self._folder)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(
        self,
        state: Any,
        notes: Mapping[str, Any] | None = None,
        *,
        best: bool = False,
    ) -> epath.Path:
        """Writes a state, and then removes older ones.

        Args:
          state: pytree of arrays, the same on all devices; random keys are not
            supported.
          notes: plain values that go with it, as JSON has them.
          best: write it as the best one, which is kept apart.

        Returns:
          The folder that it will be in.

        Raises:
          CheckpointError: if this one, or the one before it, cannot be written.
          ValueError: if two arrays of the state have the same name.
        """
        self.wait()
        ocp = orbax.load()
        arrays = {name: np.array(leaf) for name, leaf in folders.by_name(state).items()}
        text = None if notes is None else json.dumps(notes)
        self._number += 1
        path = self._folder / f'{folders.BEST if best else ""}{self._number}'

        def finish() -> None:
            try:
                written.result()
                if jax.process_index() == 0:
                    if text is not None:
                        (path / folders.NOTES).write_text(text)
                    folders.write_sums(path)
                    folders.keep_only(self._folder, self._keep)
            except BaseException as error:  # `wait` raises it
                self._error = error

        try:
            written = ocp.save_async(str(path), arrays)
        except ERRORS as error:
            raise _cannot_write(self._folder, error) from error
        self._thread = threading.Thread(target=finish, name='checkpoint')
        self._thread.start()
        return path

    def wait(self) -> None:
        """Returns when what was saved is on the disk.

        Raises:
          CheckpointError: if it cannot be written.
        """
        if self._thread is not None:
            self._thread.join()
        self._thread, error, self._error = None, self._error, None
        if isinstance(error, ERRORS) or type(error) is Exception:
            raise _cannot_write(self._folder, error) from error
        if error is not None:
            raise error

    def _remove_older(self) -> None:
        """Removes what a run left that was killed between its last save and this."""
        if jax.process_index() == 0 and self._folder.exists():
            try:
                folders.keep_only(self._folder, self._keep)
            except ERRORS as error:
                raise _cannot_write(self._folder, error) from error

    def __enter__(self) -> 'Saver':
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.wait()
            self._remove_older()
        elif self._thread is not None:
            self._thread.join()


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
    """Removes the checkpoints of a workdir, if there are any.

    Raises:
      CheckpointError: if they cannot be removed.
    """
    folder = folders.folder_of(workdir)
    try:
        if folder.exists():
            folder.rmtree()
    except OSError as error:
        reason = folders.reason(error)
        raise CheckpointError(f'cannot remove {folder} ({reason})') from error


def _cannot_write(folder: epath.Path, error: BaseException) -> CheckpointError:
    reason = folders.reason(error)
    return CheckpointError(f'cannot write a checkpoint to {folder} ({reason})')
