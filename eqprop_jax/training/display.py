"""What a run shows of itself, which may not end it."""

from typing import Any


class Display:
    """A stream whose reader may go away: what it does not take is dropped.

    A terminal is closed, a pipe is broken by the same Ctrl-C that the run saves at, a
    disk is full. Characters that the stream has not are escaped.

    Args:
      stream: that is written to, or None, of a process that has none.
    """

    def __init__(self, stream: Any):
        self._stream = stream
        self.error: OSError | ValueError | None = None
        """Of what was written last in vain, if anything was."""
        self.within_line = False
        """Whether a line was begun and is not at its end, as that of a progress bar."""
        if hasattr(stream, 'reconfigure'):
            stream.reconfigure(errors='backslashreplace')

    def write(self, text: str) -> int:
        """Shows a text, if that can be."""
        self._attempt('write', text)
        self.within_line = not text.endswith('\n') if text else self.within_line
        return len(text)

    def flush(self) -> None:
        """Shows what was held back of it."""
        self._attempt('flush')

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _attempt(self, name: str, *values: str) -> None:
        try:
            if self._stream is not None:
                getattr(self._stream, name)(*values)
        except (OSError, ValueError) as error:  # the latter of a closed one
            self.error = error
