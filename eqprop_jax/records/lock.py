"""One run at a time in a workdir."""

import contextlib
import os
from collections.abc import Generator

from eqprop_jax.disk import is_remote
from eqprop_jax.records.files import Folder, WorkdirError, folder_of_run, writing

try:
    import fcntl
except ImportError:  # where there is none, nothing is locked
    fcntl = None


@contextlib.contextmanager
def locked(workdir: Folder) -> Generator[None, None, None]:
    """Holds a workdir, which is made if need be, against other runs.

    The system lets go of it with the process, however that ends. Buckets, and file
    systems that know no locks, are not held.

    Args:
      workdir: the folder.

    Raises:
      WorkdirError: if another run holds it, if it cannot be made, or if its name is
        one that checkpoints cannot be read from.
    """
    path = folder_of_run(workdir)
    if fcntl is None or is_remote(path):
        yield
        return
    with writing(path, ': choose another --workdir'):
        path.mkdir(parents=True, exist_ok=True)
        held = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WorkdirError(
                f'{path} is in use by another run: wait for its end, or choose another '
                '--workdir'
            ) from error
        except OSError:  # no locks here
            pass
        yield
    finally:
        os.close(held)
