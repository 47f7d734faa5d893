"""The state of a run on the disk: written atomically, checked when it is read.

    checkpoint/1/             what orbax writes; arrays by name: params/layer_1/bias
    checkpoint/1/notes.json   plain values that go with them, if there are any
    checkpoint/1/SHA256SUMS   of those files; `sha256sum --check` reads it, too

The highest number is the checkpoint. A save writes under another name, renames, and
only then removes older ones: whenever it is interrupted, a whole one is left. Names,
shapes and dtypes are all that stands beside the arrays; nothing is unpickled.
"""

import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import jax

CHECKPOINT = 'checkpoint'
SUMS = 'SHA256SUMS'
NOTES = 'notes.json'
UNFINISHED = 'unfinished'


class CheckpointError(ValueError):
    """There is no checkpoint that can be read; the message says why."""


def save(
    workdir: str | pathlib.Path,
    state: Any,
    notes: Mapping[str, Any] | None = None,
    *,
    keep: int = 1,
) -> pathlib.Path:
    """Writes a state, and then removes older ones.

    Args:
      workdir: made if need be.
      state: pytree of arrays; random keys are not supported.
      notes: plain values that go with it, as JSON has them.
      keep: how many checkpoints are left, this one included.

    Returns:
      The folder of the checkpoint.

    Raises:
      ValueError: if two arrays of the state have the same name.
    """
    from orbax.checkpoint import v1 as ocp  # here: it takes a while

    folder = pathlib.Path(workdir).resolve() / CHECKPOINT
    older = _newest(folder)
    unfinished, path = folder / UNFINISHED, folder / str(older + 1)
    _keep_only(folder, older, keep)
    ocp.save(str(unfinished), _by_name(state))
    if notes is not None:
        (unfinished / NOTES).write_text(json.dumps(notes), encoding='utf-8')
    (unfinished / SUMS).write_text(_sums(unfinished), encoding='utf-8')
    unfinished.rename(path)
    _keep_only(folder, older + 1, keep)
    return path


def restore(workdir: str | pathlib.Path, like: Any) -> Any:
    """Returns the state in a workdir.

    Args:
      workdir: of a run that has ended.
      like: pytree of arrays or `jax.ShapeDtypeStruct`s: what the state must be. Arrays
        go where these are, or else to the first device.

    Raises:
      CheckpointError: if there is none, if its files are not those that were written,
        or if names, shapes or dtypes differ from those of `like`.
    """
    folder = pathlib.Path(workdir).resolve() / CHECKPOINT
    path = folder / str(_newest(folder))
    if not path.exists():
        raise CheckpointError(
            f'{workdir} has no checkpoint, which a run leaves when it ends: choose the '
            'workdir of a run that has ended, or train again'
        )
    _check_whole(path)
    return _read(path, like)


def latest(
    workdir: str | pathlib.Path, like: Any, warn: Callable[[str], None]
) -> tuple[Any, dict[str, Any]] | None:
    """Returns the newest whole state in a workdir and its notes, None without any.

    A damaged checkpoint is passed over for the one before it.

    Args:
      workdir: of a run that may have been interrupted.
      like: as in `restore`.
      warn: is told of damaged ones.

    Raises:
      CheckpointError: if names, shapes or dtypes differ from those of `like`.
    """
    folder = pathlib.Path(workdir).resolve() / CHECKPOINT
    for number in sorted(_numbers(folder), reverse=True):
        path = folder / str(number)
        try:
            _check_whole(path)
        except CheckpointError as error:
            damage = str(error).partition(':')[0]
            warn(f'{damage}: an earlier one is taken, or else the start')
            continue
        notes = path / NOTES
        known = json.loads(notes.read_text(encoding='utf-8')) if notes.exists() else {}
        return _read(path, like), known
    return None


def _read(path: pathlib.Path, like: Any) -> Any:
    """Returns the state in the folder of a checkpoint that is whole."""
    from orbax.checkpoint import v1 as ocp

    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = {
        name: jax.ShapeDtypeStruct(
            leaf.shape,
            jax.dtypes.canonicalize_dtype(leaf.dtype),
            sharding=getattr(leaf, 'sharding', None) or device,
        )
        for name, leaf in _by_name(like).items()
    }
    _check_same(path, ocp.metadata(str(path)).metadata, wanted)
    arrays = ocp.load(str(path), wanted)
    leaves = [arrays[name] for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def remove(workdir: str | pathlib.Path) -> None:
    """Removes the checkpoint of a workdir, if there is one."""
    folder = pathlib.Path(workdir) / CHECKPOINT
    if folder.exists():
        shutil.rmtree(folder)


def _newest(folder: pathlib.Path) -> int:
    """Returns the number of the newest whole checkpoint; 0: there is none."""
    return max(_numbers(folder), default=0)


def _numbers(folder: pathlib.Path) -> list[int]:
    return [int(path.name) for path in folder.glob('*') if path.name.isdecimal()]


def _keep_only(folder: pathlib.Path, number: int, count: int) -> None:
    """Removes all but the `count` checkpoints up to that number."""
    kept = {str(number - index) for index in range(count)}
    for path in folder.glob('*'):
        if path.is_dir() and path.name not in kept:
            shutil.rmtree(path)


def _by_name(state: Any) -> dict[str, Any]:
    """Returns the leaves by name, in their order: {'params/layer_1/bias': ...}."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    named = {
        jax.tree_util.keystr(path, simple=True, separator='/'): leaf
        for path, leaf in leaves
    }
    if len(named) < len(leaves):
        raise ValueError('two arrays of the state have the same name')
    return named


def _sums(path: pathlib.Path) -> str:
    """Returns a line with the SHA-256 and the name for each file below a folder."""
    lines = []
    for file in sorted(path.rglob('*')):
        if file.is_file() and file != path / SUMS:
            with file.open('rb') as content:
                digest = hashlib.file_digest(content, 'sha256').hexdigest()
            lines.append(f'{digest}  {file.relative_to(path).as_posix()}\n')
    return ''.join(lines)


def _check_whole(path: pathlib.Path) -> None:
    """Raises CheckpointError unless the files are the ones that were written.

    What orbax does with a damaged file is between a page of tracebacks and other
    numbers.
    """
    sums = path / SUMS
    written = (
        sums.read_text(encoding='utf-8', errors='replace') if sums.exists() else ''
    )
    differences = set(written.splitlines()) ^ set(_sums(path).splitlines())
    if differences or not written:
        names = sorted({line.partition('  ')[2] for line in differences} - {''})
        names = names if written else [SUMS]
        raise CheckpointError(
            f'{path} is damaged, in {_some(names)}: train again, or copy it again from '
            'where it was written'
        )


def _check_same(
    path: pathlib.Path, there: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
    """Raises CheckpointError, naming some arrays, if name, shape or dtype differ."""
    differences = [
        f'{name} is {_kind(there.get(name))} there, {_kind(wanted.get(name))} here'
        for name in sorted(there.keys() | wanted.keys())
        if _kind(there.get(name)) != _kind(wanted.get(name))
    ]
    if differences:
        raise CheckpointError(
            f'{path} has the state of another configuration ({_some(differences)}): '
            f'build it from {path.parents[1] / "config.json"}'
        )


def _kind(leaf: Any) -> str:
    """Returns dtype and shape in words."""
    return 'absent' if leaf is None else f'{leaf.dtype} {list(leaf.shape)}'


def _some(names: list[str]) -> str:
    more = f'; and {len(names) - 3} more' if len(names) > 3 else ''
    return '; '.join(names[:3]) + more
