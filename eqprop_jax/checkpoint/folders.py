"""The folders of checkpoints: which are there, and whether they are whole."""

import hashlib
import os
import re
from collections.abc import Collection
from typing import Any

import jax
import numpy as np
from etils import epath

from eqprop_jax import _disk as disk
from eqprop_jax import tree

CHECKPOINT = 'checkpoint'
BEST = 'best_'
SUMS = 'SHA256SUMS'
NOTES = 'notes.json'
ADVICE = 'train again, or copy it again from where it was written'
OWN = re.compile(rf'({BEST}|)([1-9][0-9]*)(\.orbax-checkpoint-tmp.*|)')
"""Names of checkpoints, and of what Orbax has not finished: others are not ours."""
MARKS = (SUMS, '_CHECKPOINT_METADATA', 'orbax.checkpoint', 'commit_success.txt')
"""Of these every save has one, and no folder of a user with a number for its name."""
NUMBERS = (np.number, np.bool_)

Workdir = epath.PathLike


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or written; the message says why."""


def folder_of(workdir: Workdir) -> epath.Path:
    """Returns where a workdir has its checkpoints."""
    path = epath.Path(workdir)
    return (path if disk.is_remote(path) else path.expanduser().resolve()) / CHECKPOINT


def numbers(folder: epath.Path, prefix: str) -> list[int]:
    """Returns those of checkpoints, finished or not, ascending."""
    names = _begun(folder).values()
    return sorted(int(name[2]) for name in names if name[1] == prefix and not name[3])


def highest_number(folder: epath.Path) -> int:
    """Returns the highest number of any save that was ever begun; 0: none."""
    return max((int(name[2]) for name in _begun(folder).values()), default=0)


def _begun(folder: epath.Path) -> dict[epath.Path, re.Match[str]]:
    """Returns every save that was ever begun: prefix, number, rest of the name."""
    try:
        paths = list(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise cannot_read(folder, error) from error
    found = ((path, OWN.fullmatch(path.name)) for path in paths)
    return {path: name for path, name in found if name}


def is_finished(path: epath.Path) -> bool:
    """Returns whether a save has come to its end."""
    return (path / SUMS).exists()


def keep_only(folder: epath.Path, keep: int) -> None:
    """Removes all but the newest finished checkpoints, and the newest of the best."""
    kept = set()
    for prefix, count in (('', keep), (BEST, 1)):
        there = [folder / f'{prefix}{number}' for number in numbers(folder, prefix)]
        kept.update([path for path in there if is_finished(path)][-count:])
    remove(folder, kept)


def remove(folder: epath.Path, kept: Collection[epath.Path] = ()) -> None:
    """Removes the checkpoints in a folder, but for some; what is not ours stays."""
    for path, name in _begun(folder).items():
        if not path.is_dir() or path in kept or os.path.islink(path):
            continue
        there = {entry.name for entry in path.iterdir()}
        if name[3] or not there or not there.isdisjoint(MARKS):
            disk.remove(path)


def by_name(state: Any) -> dict[str, Any]:
    """Returns the leaves by name, in their order: {'params/layer_1/bias': ...}.

    Raises:
      ValueError: if two have one name, or one is neither number nor array of numbers.
    """
    leaves = jax.tree.leaves(state)
    leaves = [a if hasattr(a, 'dtype') else np.asarray(a) for a in leaves]
    named = dict(zip(tree.names(state), leaves, strict=True))
    if len(named) < len(leaves):
        raise ValueError('two arrays of the state have the same name')
    for name, leaf in named.items():
        if not any(jax.dtypes.issubdtype(leaf.dtype, kind) for kind in NUMBERS):
            raise ValueError(f'{name} of the state is of no numbers: {leaf.dtype}')
    return named


def dtype_of(leaf: Any) -> Any:
    """Returns the type in which JAX has an array, also one of NumPy."""
    return jax.dtypes.canonicalize_dtype(leaf.dtype)


def write_sums(path: epath.Path) -> None:
    """Writes the sums, which finishes a checkpoint, once all of it is on the disk."""
    disk.sync(path)
    for folder in (path.parent, path.parent.parent):  # their names for it
        disk.sync_one(folder)
    disk.write_whole(path / SUMS, sums_of(path))


def sums_of(path: epath.Path) -> str:
    """Returns a line with the SHA-256 and the name for each file below a folder."""
    lines = []
    for file in sorted(_files(path)):
        if file != path / SUMS:
            disk.check_file(file)
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
        written = disk.read(sums).decode(errors='replace') if sums.exists() else ''
        there = sums_of(path)
    except OSError as error:
        raise cannot_read(path, error) from error
    differences = set(written.splitlines()) ^ set(there.splitlines())
    if differences or not written:
        names = sorted({line.partition('  ')[2] for line in differences} - {''})
        named = disk.first_three(names if written else [SUMS])
        raise CheckpointError(f'{path} is damaged, in {named}: {ADVICE}')


def cannot_read(path: epath.Path, error: BaseException) -> CheckpointError:
    """Returns the error that a checkpoint, or a file of it, cannot be read."""
    return CheckpointError(f'{path} cannot be read ({disk.reason(error)}): {ADVICE}')
