"""Files and folders, on a disk or in a bucket; and words on what goes wrong with them.

This is where files are written as a whole, and where folders are removed.
"""

import contextlib
import os
from collections.abc import Generator, Sequence

from etils import epath


def is_remote(path: epath.PathLike) -> bool:
    """Returns whether a path is in a bucket, where nothing is renamed or appended."""
    return '://' in str(path)


def write_whole(path: epath.PathLike, text: str) -> None:
    """Writes a file as a whole: whenever it is interrupted, the old one is there."""
    path = epath.Path(path)
    if is_remote(path):  # there what is written appears as a whole
        path.write_text(text)
        return
    unfinished = path.with_name(path.name + '.unfinished')
    unfinished.write_text(text, encoding='utf-8')
    unfinished.replace(path)


def remove(folder: epath.Path) -> None:
    """Removes a folder, if it is there, and all that is in it."""
    folder.rmtree(missing_ok=True)


@contextlib.contextmanager
def held(folder: os.PathLike[str]) -> Generator[None, None, None]:
    """Holds a folder against other processes, where the system has locks.

    Raises:
      ValueError: if another one holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(ImportError):
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        message = f'{folder} is in use by another process: wait for its end'
        raise ValueError(message) from error
    except OSError:  # it has none here
        pass
    try:
        yield
    finally:
        os.close(descriptor)


def reason(error: BaseException) -> str:
    """Returns the first line of what an error says."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def first_three(names: Sequence[str]) -> str:
    """Returns the first three, and how many more there are."""
    more = f'; and {len(names) - 3} more' if len(names) > 3 else ''
    return '; '.join(names[:3]) + more
