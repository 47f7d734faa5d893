"""Files and folders, on a disk or in a bucket; and words on what goes wrong with them.

This is where files are written as a whole, and where folders are removed.
"""

from collections.abc import Sequence

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


def reason(error: BaseException) -> str:
    """Returns the first line of what an error says."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def first_three(names: Sequence[str]) -> str:
    """Returns the first three, and how many more there are."""
    more = f'; and {len(names) - 3} more' if len(names) > 3 else ''
    return '; '.join(names[:3]) + more
