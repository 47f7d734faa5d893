"""Checkpoints are read: the last one, the best, or where an interrupted run goes on."""

import contextlib
import json
from collections.abc import Callable, Generator, Mapping
from typing import Any

import jax
from absl import logging
from etils import epath

from eqprop_jax import _disk as disk
from eqprop_jax.checkpoint import folders, orbax
from eqprop_jax.checkpoint.folders import CheckpointError, Workdir

Accepts = Callable[[Mapping[str, Any]], bool]
"""Whether notes are those of a checkpoint of the run that is meant."""


def restore(
    workdir: Workdir,
    like: Any,
    *,
    best: bool = False,
    accepts: Accepts = lambda notes: True,
) -> Any:
    """Returns the state in a workdir.

    If the newest checkpoint was not finished, or has lost its sums, one before it is
    read, which is logged.

    Args:
      workdir: of a run that has ended.
      like: pytree of arrays or `jax.ShapeDtypeStruct`s: what the state must be. Arrays
        go where these are, or else to the first device.
      best: the one that did best on held-out examples, and not the last.
      accepts: of its notes.

    Raises:
      CheckpointError: if there is none, if its files are not those that were written
        or cannot be read, if its notes are not accepted, or if names, shapes or dtypes
        differ from those of `like`.
    """
    folder, prefix = folders.folder_of(workdir), folders.BEST if best else ''
    there = [folder / f'{prefix}{number}' for number in folders.numbers(folder, prefix)]
    if not there and best and folders.numbers(folder, ''):
        raise CheckpointError(
            f'{workdir} has no best checkpoint, which takes held-out examples '
            '(data.held_out): take the last one'
        )
    if not there:
        raise CheckpointError(
            f'{workdir} has no checkpoint, which a run leaves when it ends: choose the '
            'workdir of a run that has ended, or train again'
        )
    path = ([one for one in there if folders.is_finished(one)] or there)[-1]
    if path != there[-1]:
        logging.warning(
            '%s has no %s, so that it is damaged or unfinished: %s is read instead',
            there[-1],
            folders.SUMS,
            path,
        )
    folders.check_whole(path)
    if not accepts(_notes(path)):
        raise CheckpointError(f'{path} is of another run: remove it')
    return _read(path, like)


def newest(workdir: Workdir, accepts: Accepts = lambda notes: True) -> int | None:
    """Returns the number of the newest whole checkpoint of a workdir, None without any.

    A damaged one, or one whose notes are not accepted, is passed over for the one
    before it, which is logged.

    Args:
      workdir: of a run that may have been interrupted.
      accepts: of its notes.
    """
    folder = folders.folder_of(workdir)
    for number in reversed(folders.numbers(folder, '')):
        path = folder / str(number)
        try:
            if not folders.is_finished(path):
                continue
            folders.check_whole(path)
        except CheckpointError as error:
            damage = str(error).removesuffix(f': {folders.ADVICE}')
            logging.warning('%s: an earlier one is taken, or else the start', damage)
            continue
        if accepts(_notes(path)):
            return number
        logging.warning('%s is of another run, and is passed over', path)
    return None


def read(workdir: Workdir, number: int, like: Any) -> tuple[Any, dict[str, Any]]:
    """Returns a state and its notes.

    Args:
      workdir: of a run.
      number: from `newest`.
      like: as in `restore`.

    Raises:
      CheckpointError: if it cannot be read, or if names, shapes or dtypes differ from
        those of `like`.
    """
    path = folders.folder_of(workdir) / str(number)
    return _read(path, like), _notes(path)


def _notes(path: epath.Path) -> dict[str, Any]:
    """Returns the notes in the folder of a checkpoint, {} without any."""
    notes = path / folders.NOTES
    if not notes.exists():
        return {}
    with _reading(notes):
        found = json.loads(disk.read(notes))
        if not isinstance(found, dict):
            raise ValueError('it holds no notes')
    return found


def _read(path: epath.Path, like: Any) -> Any:
    """Returns the state in the folder of a checkpoint that is whole."""
    ocp = orbax.load()
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = {
        name: jax.ShapeDtypeStruct(
            leaf.shape,
            folders.dtype_of(leaf),
            sharding=getattr(leaf, 'sharding', None) or device,
        )
        for name, leaf in folders.by_name(like).items()
    }
    with _reading(path):
        there = ocp.metadata(str(path)).metadata
        if there is None:
            raise ValueError('its metadata are damaged')
    differences = [
        f'{name} is {_kind(there.get(name))} there, {_kind(wanted.get(name))} here'
        for name in sorted(there.keys() | wanted.keys())
        if _kind(there.get(name)) != _kind(wanted.get(name))
    ]
    if differences:
        raise CheckpointError(
            f'{path} has the state of another configuration or version '
            f'({disk.first_three(differences)}): build it from '
            f'{path.parents[1] / "config.json"}, by the version that wrote it'
        )
    with _reading(path):
        arrays = ocp.load(str(path), wanted)
    leaves = [arrays[name] for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


@contextlib.contextmanager
def _reading(path: epath.Path) -> Generator[None, None, None]:
    """Raises CheckpointError for whatever is raised: orbax has errors of all kinds."""
    try:
        yield
    except Exception as error:
        raise folders.cannot_read(path, error) from error


def _kind(leaf: Any) -> str:
    """Returns dtype and shape in words."""
    return 'absent' if leaf is None else f'{leaf.dtype} {list(leaf.shape)}'
