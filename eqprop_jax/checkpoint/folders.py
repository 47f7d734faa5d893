"""The folders of checkpoints: which are there, and whether they are whole."""

import hashlib
import re
from typing import Any

import jax
from etils import epath

CHECKPOINT = 'checkpoint'
BEST = 'best_'
SUMS = 'SHA256SUMS'
NOTES = 'notes.json'
ADVICE = 'train again, or copy it again from where it was written'

Workdir = epath.PathLike


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or written; the message says why."""


def folder_of(workdir: Workdir) -> epath.Path:
    """Returns where a workdir has its checkpoints."""
    path = epath.Path(workdir)
    return (path if is_remote(path) else path.expanduser().resolve()) / CHECKPOINT


def is_remote(path: epath.PathLike) -> bool:
    """Returns whether a path is that of a bucket, where nothing can be renamed."""
    return '://' in str(path)


def names(folder: epath.Path) -> list[tuple[str, int]]:
    """Returns prefix and number of what is there, finished or not."""
    found = [re.fullmatch(rf'({BEST})?(\d+)', name) for name in _entries(folder)]
    return [(name[1] or '', int(name[2])) for name in found if name]


def highest_number(folder: epath.Path) -> int:
    """Returns the highest number of any save that was ever begun; 0: none."""
    found = [re.match(rf'({BEST})?(\d+)', name) for name in _entries(folder)]
    return max((int(name[2]) for name in found if name), default=0)


def _entries(folder: epath.Path) -> list[str]:
    """Returns the names of what is in a folder, if it is one."""
    try:
        return [path.name for path in folder.iterdir()] if folder.is_dir() else []
    except OSError as error:
        raise cannot_read(folder, error) from error


def numbers(folder: epath.Path, prefix: str) -> list[int]:
    """Returns those of one prefix, ascending."""
    return sorted({number for own, number in names(folder) if own == prefix})


def is_finished(path: epath.Path) -> bool:
    """Returns whether a save has come to its end."""
    return (path / SUMS).exists()


def keep_only(folder: epath.Path, keep: int) -> None:
    """Removes all but the newest finished checkpoints, and the newest of the best."""
    kept = set()
    for prefix, count in (('', keep), (BEST, 1)):
        there = (f'{prefix}{number}' for number in numbers(folder, prefix))
        kept |= set([name for name in there if is_finished(folder / name)][-count:])
    for path in folder.iterdir():
        if path.is_dir() and path.name not in kept:
            path.rmtree()


def by_name(state: Any) -> dict[str, Any]:
    """Returns the leaves by name, in their order: {'params/layer_1/bias': ...}."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    named = {
        jax.tree_util.keystr(path, simple=True, separator='/'): leaf
        for path, leaf in leaves
    }
    if len(named) < len(leaves):
        raise ValueError('two arrays of the state have the same name')
    return named


def write_sums(path: epath.Path) -> None:
    """Writes the sums, which finishes a checkpoint, at once."""
    text = sums_of(path)
    if is_remote(path):  # there what is written appears as a whole
        (path / SUMS).write_text(text)
        return
    unfinished = path / f'{SUMS}.unfinished'
    unfinished.write_text(text)
    unfinished.rename(path / SUMS)


def sums_of(path: epath.Path) -> str:
    """Returns a line with the SHA-256 and the name for each file below a folder."""
    lines = []
    for file in sorted(_files(path)):
        if file != path / SUMS:
            digest = hashlib.sha256()
            with file.open('rb') as content:
                while block := content.read(2**20):
                    digest.update(block)
            lines.append(f'{digest.hexdigest()}  {file.relative_to(path).as_posix()}\n')
    return ''.join(lines)


def _files(path: epath.Path) -> list[epath.Path]:
    """Returns all files below a folder."""
    found = []
    for entry in path.iterdir():
        found += _files(entry) if entry.is_dir() else [entry]
    return found


def check_whole(path: epath.Path) -> None:
    """Raises CheckpointError unless the files are the ones that were written.

    What orbax does with a damaged file is between a page of tracebacks and other
    numbers.
    """
    sums = path / SUMS
    try:
        written = sums.read_bytes().decode(errors='replace') if sums.exists() else ''
        there = sums_of(path)
    except OSError as error:
        raise cannot_read(path, error) from error
    differences = set(written.splitlines()) ^ set(there.splitlines())
    if differences or not written:
        names = sorted({line.partition('  ')[2] for line in differences} - {''})
        names = names if written else [SUMS]
        raise CheckpointError(f'{path} is damaged, in {some(names)}: {ADVICE}')


def cannot_read(path: epath.Path, error: BaseException) -> CheckpointError:
    """Returns the error that a checkpoint, or a file of it, cannot be read."""
    return CheckpointError(f'{path} cannot be read ({reason(error)}): {ADVICE}')


def reason(error: BaseException) -> str:
    """Returns the first line of what an error says."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def some(names: list[str]) -> str:
    """Returns the first three, and how many more there are, in words."""
    more = f'; and {len(names) - 3} more' if len(names) > 3 else ''
    return '; '.join(names[:3]) + more
