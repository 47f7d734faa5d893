"""TensorBoard's files of events, written by the thread that asks for it.

tensorboardX's own writer leaves that to a thread. Where the disk is full the thread
dies, and whoever hands it the next scalars waits for ever.
"""

import socket
import time
from collections.abc import Mapping
from typing import Any

from tensorboardX import summary
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import RecordWriter

from eqprop_jax.records.files import Path

EVENT: Any = event_pb2  # whose members are made when it is imported


class Events:
    """Appends scalars to a new file of events.

    Args:
      folder: where to; made if need be.
      step: that a run goes on from: TensorBoard forgets later ones. 0: a new run.

    Raises:
      OSError: if it cannot be written, from every method.
    """

    def __init__(self, folder: Path, step: int = 0):
        folder.mkdir(parents=True, exist_ok=True)
        suffix = f'.{step}' if step else ''
        name = f'events.out.tfevents.{int(time.time())}.{socket.gethostname()}{suffix}'
        self._writer = RecordWriter(str(folder.resolve() / name))
        self._add(0, file_version='brain.Event:2')
        if step:
            start = EVENT.SessionLog(status=EVENT.SessionLog.START)
            self._add(step + 1, session_log=start)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends scalars of a step, by tag."""
        for tag, value in scalars.items():
            self._add(step, summary=summary.scalar(tag, value))

    def flush(self) -> None:
        """Brings what was written to the disk."""
        self._writer.flush()

    def close(self) -> None:
        """Does so, and closes the file, even if that cannot be done."""
        try:
            self._writer.flush()
        finally:
            self._writer.close()

    def _add(self, step: int, **content: Any) -> None:
        event = EVENT.Event(wall_time=time.time(), step=step, **content)
        self._writer.write(event.SerializeToString())
