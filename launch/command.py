"""What the launchers share: the checkout on the path, flags, and how they end.

What is wrong ends a launcher with one line, `NAME: MESSAGE`, and no traceback.
"""

import functools
import inspect
import pathlib
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import jax
from absl import app, flags, logging

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from eqprop_jax import checkpoint, config, records, training
from eqprop_jax.data import NotPreparedError

ROOT = pathlib.Path(__file__).resolve().parents[1]
OUT_OF_MEMORY = 'RESOURCE_EXHAUSTED'  # in JAX's words
TOLD = (
    checkpoint.CheckpointError,
    config.ConfigError,
    config.variants.NoVariantError,
    NotPreparedError,
    records.WorkdirError,
    training.TrainingError,
)
"""What the library raises for its users to read."""


class Failure(Exception):  # noqa: N818, not always an error
    """The end of a launcher: a message, and the exit code."""

    def __init__(self, message: str, code: int = 1):
        super().__init__(message)
        self.code = code


def fail(message: str, code: int = 1) -> NoReturn:
    """Ends a launcher with a message."""
    raise Failure(message, code)


def told(fn: Callable[[list[str]], Any]) -> Callable[[list[str]], Any]:
    """Returns a launcher's function of argv, which tells in one line why it failed."""
    name = pathlib.Path(inspect.getfile(fn)).stem

    @functools.wraps(fn)
    def run(argv: list[str]) -> Any:
        try:
            return fn(argv)
        except Failure as failure:
            end = failure
        except TOLD as error:
            end = Failure(str(error))
        except KeyboardInterrupt as stop:
            end = Failure(str(stop) or 'interrupted', exit_code(stop))
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if not isinstance(error, MemoryError) and OUT_OF_MEMORY not in str(error):
                raise
            reason = next(iter(str(error).splitlines()), 'MemoryError')
            end = Failure(f'too large for the memory of this machine ({reason})')
        tell(name, end)
        sys.exit(end.code)

    return run


def tell(name: str, error: Exception) -> None:
    """Prints what is wrong in one line."""
    print(f'{name}: {" ".join(str(error).split())}', file=sys.stderr, flush=True)


def exit_code(stop: KeyboardInterrupt) -> int:
    """Returns the exit code of what a signal has stopped."""
    return 128 + getattr(stop, 'number', signal.SIGINT)


def define_cache() -> None:
    """Defines the flag for where compiled programs are kept."""
    flags.DEFINE_string(
        'compilation_cache',
        str(pathlib.Path.home() / '.cache' / 'eqprop_jax'),
        'Folder that keeps compiled programs between runs; empty: none.',
    )


def begin(argv: list[str], verbosity: int = logging.WARNING) -> None:
    """Refuses what is no flag; sets what is logged, and where programs are kept."""
    if len(argv) > 1:
        raise app.UsageError(f'unexpected arguments: {" ".join(argv[1:])}')
    logging.set_verbosity(verbosity)
    if 'compilation_cache' in flags.FLAGS and flags.FLAGS.compilation_cache:
        jax.config.update('jax_compilation_cache_dir', flags.FLAGS.compilation_cache)
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)


def check_file(flag: flags.FlagHolder[str | None]) -> None:
    """Fails unless a file can be written where a flag says, if it does."""
    path = pathlib.Path(flag.value or 'none')
    if not path.parent.is_dir():
        fail(f'there is no folder {path.parent} for --{flag.name}')
    if flag.value and path.is_dir():
        fail(f'--{flag.name}={path} is a folder: name a file')
