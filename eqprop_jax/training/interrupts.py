"""Signals to leave, which a run obeys between two chunks, once it has saved."""

import signal
import threading
from types import FrameType
from typing import Any, ClassVar

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A run was asked to leave and has saved; the message says how to go on."""

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.number = number
        """Of the signal."""


class Watch:
    """Notes SIGINT and SIGTERM while it is entered; a second SIGINT is not held back.

    A second SIGTERM is: schedulers send several. Outside the main thread, where Python
    takes no signals, it sees none.
    """

    entered: ClassVar[int] = 0
    """How many watches hold signals back now."""

    def __init__(self) -> None:
        self.number: int | None = None
        """Of the signal that came, if one has."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> 'Watch':
        if threading.current_thread() is threading.main_thread():
            self._before = {one: signal.signal(one, self._note) for one in SIGNALS}
        Watch.entered += 1
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        Watch.entered -= 1
        self._restore(*self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.number is None:
            self.number = number
            self._restore(signal.SIGINT)

    def _restore(self, *numbers: int) -> None:
        for number in numbers:
            before = self._before.pop(number, None)
            signal.signal(number, signal.SIG_DFL if before is None else before)
