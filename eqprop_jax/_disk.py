"""Files and folders, on a disk or in a bucket; and words on what goes wrong with them.

This is where files are written as a whole and brought to the disk, where folders are
made, held against other processes, and removed. In a bucket what was written is there,
and nothing is renamed, appended or held.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Generator, Sequence

from etils import epath

try:
    import fcntl
except ImportError:  # where there is none, nothing is locked, and folders not synced
    fcntl = None

NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)  # of file systems without it


def is_remote(path: epath.PathLike) -> bool:
    """Returns whether a path is in a bucket, where nothing is renamed or appended."""
    return '://' in str(path)


def write_whole(path: epath.PathLike, content: str | bytes) -> None:
    """Writes a file as a whole, and brings it to the disk, its name included.

    Whatever interrupts that, a power cut too, the old file or the new one is there.
    Links are followed. Raises OSError for what is no regular file.
    """
    path = epath.Path(path)
    content = content.encode() if isinstance(content, str) else content
    if is_remote(path):  # there what is written appears as a whole
        path.write_bytes(content)
        return
    path = epath.Path(os.path.realpath(path))
    check_file(path)
    unfinished = path.with_name(path.name + '.unfinished')
    unfinished.unlink(missing_ok=True)  # it may be no file
    with unfinished.open('wb') as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    sync_one(path.parent)


def read(path: epath.Path) -> bytes:
    """Returns the content of a file; raises OSError for what is no regular file."""
    check_file(path)
    return path.read_bytes()


def check_file(path: epath.PathLike) -> None:
    """Raises OSError if a path is there and no regular file: pipes are waited for."""
    if not is_remote(path) and os.path.exists(path) and not os.path.isfile(path):
        raise OSError(f'{path} is no regular file')


def sync(path: epath.PathLike) -> None:
    """Brings a file, or a folder with all that is below it, to the disk."""
    if os.path.isdir(path):
        for name in os.listdir(path):
            sync(os.path.join(path, name))
    sync_one(path)


def sync_one(path: epath.PathLike) -> None:
    """Brings the content of a file, or the names in a folder, to the disk."""
    if fcntl is None or is_remote(path):
        return
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
    finally:
        os.close(opened)


def make(folder: epath.Path) -> None:
    """Makes a folder, and those above it, if need be, and brings them to the disk."""
    missing = []
    if not is_remote(folder):
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_one(path.parent)


def remove_file(path: epath.Path) -> None:
    """Removes a file, if it is there, so that no power cut brings it back."""
    if path.exists():
        path.unlink()
        sync_one(path.parent)


def remove(folder: epath.Path) -> None:
    """Removes a folder, if it is there, and all that is in it."""
    folder.rmtree(missing_ok=True)


def remove_if_empty(folder: epath.Path) -> None:
    """Removes a folder unless it is a link, or something is in it."""
    if is_remote(folder) or os.path.islink(folder) or not folder.exists():
        return
    if not os.listdir(folder):
        os.rmdir(folder)


@contextlib.contextmanager
def locked(
    folder: epath.PathLike, *, wait: bool = False
) -> Generator[bool | None, None, None]:
    """Holds a folder against other processes; yields False if one of them holds it.

    If asked to, it waits for that one. The lock ends with the process, however that
    ends. Yields None for a bucket, and for file systems that know no locks.
    """
    if fcntl is None or is_remote(folder):
        yield None
        return
    opened, held = os.open(folder, os.O_RDONLY), True
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            held = False
        except OSError:
            held = None
        yield held
    finally:
        os.close(opened)


@contextlib.contextmanager
def pinned(*paths: epath.PathLike) -> Generator[Callable[[], bool], None, None]:
    """Yields what says whether paths still lead to what was there; buckets' always do.

    Files and folders are open meanwhile, so that no other one takes their inodes.
    """
    with contextlib.ExitStack() as files:
        known = {}
        for path in paths:
            if not is_remote(path):
                opened = os.open(path, os.O_RDONLY | getattr(os, 'O_NONBLOCK', 0))
                files.callback(os.close, opened)
                known[path] = os.fstat(opened)

        def are_there() -> bool:
            try:
                return all(os.path.samestat(os.stat(p), it) for p, it in known.items())
            except (FileNotFoundError, NotADirectoryError):
                return False

        yield are_there


def reason(error: BaseException) -> str:
    """Returns the first line of what an error says."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def first_three(names: Sequence[str]) -> str:
    """Returns the first three, and how many more there are."""
    more = f'; and {len(names) - 3} more' if len(names) > 3 else ''
    return '; '.join(names[:3]) + more
