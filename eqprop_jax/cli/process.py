"""The process of a command: what signals do to it, and how it ends.

`command` imports it before everything that takes long. From then on a signal ends the
process in one line, and once `watched` is entered so does a second Ctrl-C, whatever the
main thread is waiting for.
"""

import contextlib
import ctypes
import os
import pathlib
import select
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any, NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 5.0  # seconds that a process has to clean up, before it is ended
DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)
interrupted: str = 'interrupted'
"""What a process tells that a signal ends."""
asked: int = 0
"""The number of the first signal that came while `watched` was entered; 0: none."""
_leaving = threading.Lock()
_kept: list[Any] = []  # what C code holds a pointer to


def name() -> str:
    """Returns what the command was called by, without folder and suffix."""
    return pathlib.Path(sys.argv[0]).stem


def command(name: str) -> list[str]:
    """Returns how another of the commands is called: as this one was."""
    is_script = sys.argv[0].endswith('.py')
    return ['python', f'launch/{name}.py'] if is_script else [f'eqprop-{name}']


def tell(message: object) -> None:
    """Prints a message in one line, as far as anybody is there to read it."""
    begin = '\n' if getattr(sys.stderr, 'within_line', False) else ''
    line = f'{begin}{name()}: {" ".join(str(message).split())}'
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def leave(
    message: object, code: int, *, part: Callable[[], Any] | None = None
) -> NoReturn:
    """Tells why, and ends the process without waiting for any thread.

    Threads that write a checkpoint may wait for minutes for a disk that has failed.

    Args:
      message: printed in one line.
      code: the exit code.
      part: called in between; where it takes longer than `GRACE` it is left alone.
    """
    with _leaving:  # whoever comes second waits for the end
        tell(message)
        if part is not None:
            parting = threading.Thread(target=part, daemon=True)
            parting.start()
            parting.join(GRACE)
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)


@contextlib.contextmanager
def watched(is_held: Callable[[], bool]) -> Generator[None, None, None]:
    """Lets signals be obeyed at once, also while the main thread is in C code.

    Nothing is raised: JAX swallows exceptions at some places. The first signal may be
    held back, by the training loop, which saves first; a SIGINT after it is not.

    Args:
      is_held: tells whether signals are held back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    read, write = os.pipe()
    os.set_blocking(write, False)
    watch = threading.Thread(target=_watch, args=(read, is_held), daemon=True)
    watch.start()
    fd = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    before = {number: signal.signal(number, _leave_it) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(fd)
        os.close(write)
        watch.join()


def _leave_it(number: int, frame: FrameType | None) -> None:
    """Leaves a signal to `_watch`, which Python tells of it before it calls this."""


def _watch(read: int, is_held: Callable[[], bool]) -> None:
    """Follows the numbers of signals, which Python writes when they come."""
    global asked
    asked, grace = 0, None
    with open(read, 'rb', buffering=0) as numbers:
        while True:
            if not select.select([numbers], [], [], grace)[0]:
                leave(interrupted, 128 + asked)
            found = numbers.read(1)
            if not found:
                return
            number = found[0]
            if number not in SIGNALS:
                continue
            if asked and number == signal.SIGINT:
                leave('left at once; what was saved last stays', 130)
            if asked:  # schedulers send SIGTERM several times
                continue
            asked = number
            if is_held():
                tell('asked to leave: saving first; Ctrl-C to leave at once')
            elif signal.getsignal(number) is _leave_it:
                leave(interrupted, 128 + number)
            else:  # something is cleaned up
                grace = GRACE


def tell_aborts(explain: Callable[[str], str]) -> None:
    """Ends in one line what C code aborts, as JAX does where a host is gone.

    From here on what C code prints is held back: it is a page by then.

    Args:
      explain: returns in words what C code has printed.
    """
    from absl import logging

    stream = os.fdopen(os.dup(2), 'w', buffering=1)
    said, path = tempfile.mkstemp()
    os.unlink(path)
    os.dup2(said, 2)
    sys.stderr = stream
    logging.get_absl_handler().python_handler.setStream(stream)

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def aborted(number: int) -> None:
        del number
        leave(explain(os.pread(said, 2**20, 0).decode(errors='replace')), 1)

    ctypes.CDLL(None).signal(int(signal.SIGABRT), aborted)
    _kept.append(aborted)


def _begin() -> None:
    """Opens what was closed of the standard streams, and tells of early signals.

    The next file that is opened would be one of them otherwise, for C code to print
    its warnings into.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number
    sys.stdout, sys.stderr = (
        stream or os.fdopen(os.open(os.devnull, os.O_WRONLY), 'w')
        for stream in (sys.stdout, sys.stderr)
    )

    def hook(error: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            sys.__unraisablehook__(error)

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        tell(interrupted)
        os._exit(128 + number)

    sys.unraisablehook = hook  # a failed save leaves dozens in threads of C code
    for number in SIGNALS:
        if signal.getsignal(number) in DEFAULTS:
            signal.signal(number, stop)


os.environ['MPLBACKEND'] = 'agg'  # matplotlib ends with an unknown one
_begin()
