"""What the commands share: how they begin, their flags, and how they end.

What is wrong ends a command with one line, `NAME: MESSAGE`, within seconds, and with no
traceback.
"""

from eqprop_jax.cli import process

import functools
import os
import pathlib
import re
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, NoReturn, TypeVar

try:
    import jax
except ValueError as error:  # of a variable in the environment
    process.leave(f'JAX cannot start: {error}', 1)
from absl import app, flags, logging

from eqprop_jax import checkpoint, config, records, training
from eqprop_jax.data import NotPreparedError
from eqprop_jax.training.display import Display
from eqprop_jax.training.interrupts import Interrupted, Watch

T = TypeVar('T')
OUT_OF_MEMORY = 'RESOURCE_EXHAUSTED'  # in JAX's words
TOLD = (
    checkpoint.CheckpointError,
    config.ConfigError,
    config.variants.NoVariantError,
    NotPreparedError,
    records.WorkdirError,
    training.TrainingError,
    training.hosts.HostsError,
)
"""What the library raises for its users to read."""


class Failure(Exception):  # noqa: N818, not always an error
    """The end of a command: a message, and the exit code."""

    def __init__(self, message: str, code: int = 1):
        super().__init__(message)
        self.code = code


def fail(message: str, code: int = 1) -> NoReturn:
    """Ends a command with a message."""
    raise Failure(message, code)


def run(
    main: Callable[[list[str]], Any],
    parse: Callable[[list[str]], list[str]] = app.parse_flags_with_usage,
) -> None:
    """Runs a command: parses its flags, and calls its function of argv.

    The docstring of its module is what --help says, beside the flags defined there.

    Args:
      main: the function.
      parse: argv ↦ what is left of it.
    """
    module = main.__module__
    sys.modules['__main__'].__doc__ = sys.modules[module].__doc__
    for name in (module, __name__):
        for flag in flags.FLAGS.flags_by_module_dict().get(name, ()):
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    app.run(main, flags_parser=parse)


def told(fn: Callable[[list[str]], Any]) -> Callable[[list[str]], Any]:
    """Returns a command's function of argv, which tells in one line why it failed.

    What was not foreseen is told by a traceback. Either way the process ends at once,
    without waiting for its threads, and no signal and no display that went away keeps
    it from that.
    """

    @functools.wraps(fn)
    def run(argv: list[str]) -> Any:
        show()
        process.interrupted = 'interrupted'
        try:
            with process.watched(lambda: Watch.entered > 0):
                found = fn(argv)
            _check_shown()
            return found
        except Exception as error:
            end = _foreseen(error)
            if end is None:
                traceback.print_exc()
                end = Failure('this was not foreseen: please report it')
        except KeyboardInterrupt as stop:
            code = 128 + getattr(stop, 'number', signal.SIGINT)
            end = Failure(str(stop) or process.interrupted, code)
        process.leave(end, end.code, part=training.hosts.part)

    return run


def _foreseen(error: Exception) -> Failure | None:
    """Returns the end that an error comes to, None if it is a mistake of the code's."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, (*TOLD, OSError, app.UsageError)):
        return Failure(str(error))
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    if is_out_of_memory(error):
        return Failure(f'too large for the memory of this machine ({reason})')
    if lost := training.hosts.explain(str(error)):
        return Failure(lost)
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    if any(pathlib.Path(name).name == 'xla_bridge.py' for name in frames):
        platforms = os.environ.get('JAX_PLATFORMS')
        chosen = f' with JAX_PLATFORMS={platforms}' if platforms else ''
        return Failure(f'JAX finds no device{chosen} ({reason})')
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether memory, of the machine or of a device, was exhausted."""
    if isinstance(error, jax.errors.JaxRuntimeError):
        return OUT_OF_MEMORY in str(error)
    return isinstance(error, MemoryError)


def show() -> None:
    """Lets what is printed be dropped where it cannot be, instead of ending the run."""
    sys.stdout, sys.stderr = (
        stream if isinstance(stream, Display) else Display(stream)
        for stream in (sys.stdout, sys.stderr)
    )


def tell_aborts() -> None:
    """Ends a command in one line also where JAX aborts the process."""

    def explain(said: str) -> str:
        fatal = [line for line in said.splitlines() if line.startswith('F')]
        return training.hosts.explain(said) or next(iter(fatal), 'aborted')

    process.tell_aborts(explain)
    show()


def _check_shown() -> None:
    """Fails if what was printed is lost, unless whoever read it left."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        error = getattr(stream, 'error', None)
        if error is None:
            continue
        with open(os.devnull, 'wb') as nothing:  # nor does the end try again
            os.dup2(nothing.fileno(), stream.fileno())
        if stream is sys.stdout and not isinstance(error, BrokenPipeError):
            fail(
                f'the end was reached, but standard output cannot be written ({error})'
            )


def clean_up_first() -> None:
    """Lets signals raise Interrupted from here on, within seconds of an end."""

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        raise Interrupted(process.interrupted, number)

    for number in process.SIGNALS:
        signal.signal(number, stop)


class _PathParser(flags.ArgumentParser):
    """Reads a path; ~ stands for the home folder, also where no shell says so."""

    syntactic_help = 'a path'

    def parse(self, argument: str) -> str:
        """Returns the path."""
        return os.path.expanduser(argument)


def define_path(
    name: str, default: str | None, help: str, *, required: bool = False
) -> flags.FlagHolder[Any]:
    """Defines a flag for a file or folder."""
    serializer = flags.ArgumentSerializer()
    return flags.DEFINE(
        _PathParser(), name, default, help, serializer=serializer, required=required
    )


def define_cache() -> None:
    """Defines the flag for where compiled programs are kept."""
    define_path(
        'compilation_cache',
        str(pathlib.Path.home() / '.cache' / 'eqprop_jax'),
        'Folder that keeps compiled programs between runs; empty: none.',
    )


def begin(argv: list[str], verbosity: int = logging.WARNING) -> None:
    """Refuses what is no flag; sets what is logged, and where programs are kept."""
    if len(argv) > 1:
        raise app.UsageError(f'unexpected arguments: {" ".join(argv[1:])}')
    logging.set_verbosity(verbosity)
    jax.config.update('jax_numpy_dtype_promotion', 'standard')  # real with complex
    if 'compilation_cache' in flags.FLAGS and flags.FLAGS.compilation_cache:
        jax.config.update('jax_compilation_cache_dir', flags.FLAGS.compilation_cache)
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)


def matching(flag: flags.FlagHolder[str], named: Mapping[str, T]) -> dict[str, T]:
    """Returns what has a name that the expression of a flag matches; fails if none."""
    try:
        found = {n: one for n, one in named.items() if re.search(flag.value, n)}
    except re.error as error:
        fail(f'--{flag.name}={flag.value} is no regular expression: {error}')
    if not found:
        fail(f'--{flag.name}={flag.value}: choose from {", ".join(named)}')
    return found


def check_file(flag: flags.FlagHolder[str | None]) -> None:
    """Fails unless a file can be written where a flag says, if it does."""
    path = pathlib.Path(flag.value or 'none')
    if not path.parent.is_dir():
        fail(f'there is no folder {path.parent} for --{flag.name}')
    own = path.name in (records.CONFIG, *records.OUTPUTS)
    if own and (path.parent / records.CONFIG).is_file():
        fail(f'--{flag.name}={path} is what a run keeps there: choose another name')
    if flag.value and path.is_dir():
        fail(f'--{flag.name}={path} is a folder: name a file')
