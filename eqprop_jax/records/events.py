"""A file of TensorBoard's events."""

import re
import socket
import time
from collections.abc import Mapping
from typing import Any

from etils import epath
from tensorboardX import summary
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import RecordWriter

from eqprop_jax import _disk as disk

EVENTS = re.compile(r'events\.out\.tfevents\.(\d+)\..+')
EVENT: Any = event_pb2  # whose members are made when it is imported
ERRORS = ('train/error', 'eval/error', 'test/error')


class Events:
    """Appends scalars to a new file of TensorBoard's events, by the thread that asks.

    tensorboardX's own writer leaves that to a thread. Where the disk is full the thread
    dies, and whoever hands it the next scalars waits for ever.

    Args:
      folder: where to; made if need be.
      step: that a run goes on from: TensorBoard forgets later ones. 0: a new run, for
        which files of an earlier one are removed.

    Raises:
      OSError: if it cannot be written, from every method.
    """

    def __init__(self, folder: epath.Path, step: int = 0):
        disk.make(folder)
        earlier = {path: EVENTS.fullmatch(path.name) for path in folder.iterdir()}
        seconds = [int(time.time())]
        for path, name in earlier.items():
            if name and not step:
                path.unlink(missing_ok=True)
            elif name:  # TensorBoard reads files in the order of their names
                seconds.append(int(name[1]) + 1)
        suffix = f'.{step}' if step else ''
        name = f'events.out.tfevents.{max(seconds):010}.{socket.gethostname()}{suffix}'
        self._path = folder.resolve() / name
        self._writer = RecordWriter(str(self._path))
        self._add(0, file_version='brain.Event:2')
        if step:
            start = EVENT.SessionLog(status=EVENT.SessionLog.START)
            self._add(step + 1, session_log=start)

    def describe(self, values: Mapping[str, Any]) -> None:
        """Lists hyperparameters, by dotted name, beside the errors of the run."""
        plain = {
            name: value if isinstance(value, bool | int | float) else str(value)
            for name, value in values.items()
        }
        for found in summary.hparams(plain, dict.fromkeys(ERRORS, 0.0)):
            self._add(0, summary=found)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends scalars of a step, by tag."""
        for tag, value in scalars.items():
            self._add(step, summary=summary.scalar(tag, value))

    def flush(self) -> None:
        """Brings what was written to the disk."""
        self._writer.flush()
        disk.sync(self._path)

    def close(self) -> None:
        """Does so, and closes the file, even if that cannot be done."""
        try:
            self._writer.flush()
        finally:
            self._writer.close()

    def _add(self, step: int, **content: Any) -> None:
        event = EVENT.Event(wall_time=time.time(), step=step, **content)
        self._writer.write(event.SerializeToString())
