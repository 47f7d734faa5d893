"""The array cache: a prepared data set as plain .npy files with a manifest.

    <data_dir>/eqprop_arrays/<name, / as _>/
        manifest.json           name, num_classes, versions, the folder of the files,
                                and each one's sha256, shape, dtype and bytes
        arrays.<8 digits>/
            train_images.npy    uint8 [n, height, width, channels]
            train_labels.npy    int32 [n]
            test_images.npy     uint8 [m, height, width, channels]
            test_labels.npy     int32 [m]

Files are there before a manifest names them, and until another one does: whatever
happens, a data set is the old one, or the new one, or absent. One process at a time
writes it, and removes what an interrupted one has left. Caches of older versions have
the files beside the manifest. Reading needs NumPy alone, and pages in only the images
in use.
"""

import contextlib
import glob
import hashlib
import json
import os
import pathlib
import re
import secrets
import shlex
import shutil
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from eqprop_jax import _disk as disk
from eqprop_jax.data._splits import Dataset, Split, check_labels, whole

MANIFEST = 'manifest.json'
HASHED_BYTES = 1_000_000_000  # larger files are checked by size alone
SPLITS = ('train', 'test')
FILES = tuple(f'{split}_{part}.npy' for split in SPLITS for part in Split._fields)
DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


class Stream(NamedTuple):
    """One split on its way into the cache."""

    shape: tuple[int, int, int, int]  # n, height, width, channels
    batches: Iterable[tuple[np.ndarray, np.ndarray]]  # images, labels


def data_root(data_dir: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """Return the folder of all data sets, which need not exist; it cannot be a URL.

    None means the environment variable TFDS_DATA_DIR, or else ~/tensorflow_datasets, as
    for TFDS.
    """
    given = os.fspath(data_dir or os.environ.get('TFDS_DATA_DIR') or '')
    if '://' in given:
        raise ValueError(
            f'data_dir must be a local folder, since arrays are memory-mapped; got '
            f'{given!r}. Copy the folder eqprop_arrays from there and name its parent'
        )
    return pathlib.Path(os.path.expanduser(given or '~/tensorflow_datasets'))


def folder_of(
    name: str, data_dir: str | os.PathLike[str] | None = None
) -> pathlib.Path:
    """Return the folder of a data set's arrays; in eqprop_arrays, whatever the name."""
    own = name.replace('/', '_')
    own = own if own.strip('.') else f'_{own}'
    return data_root(data_dir) / 'eqprop_arrays' / own


def command(name: str, root: pathlib.Path, *more: str) -> str:
    """Return the command line that prepares a data set in the folder of all of them."""
    options = (f'--dataset={name}', f'--data_dir={root}', *more)
    return shlex.join(['eqprop-prepare', *options])


def read(folder: pathlib.Path) -> Dataset:
    """Return a data set with nothing held out, its images memory-mapped.

    Raises ValueError if a file is missing, is not what the manifest says, or holds
    other than the arrays described above.
    """
    while True:
        before = (folder / MANIFEST).stat()
        try:
            return _read(folder)
        except ValueError:
            now = (folder / MANIFEST).stat()
            if (now.st_ino, now.st_mtime_ns) == (before.st_ino, before.st_mtime_ns):
                raise  # else it was written anew meanwhile


def _read(folder: pathlib.Path) -> Dataset:
    """Return the data set that the manifest describes."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding='utf-8'))
        name, num_classes = manifest['name'], manifest['num_classes']
        source = manifest.get('versions', {}).get('source')
        entries, place = manifest['files'], folder / manifest.get('folder', '')
        wanted = {f: (entries[f]['bytes'], entries[f]['sha256']) for f in FILES}
        if type(num_classes) is not int or num_classes < 1:
            raise ValueError(f'num_classes is {num_classes!r}')
    except DAMAGED as error:
        raise ValueError(
            f'{folder / MANIFEST} is damaged ({error!r}): run '
            'eqprop-prepare with --overwrite'
        ) from error
    try:
        found = [_open(place / file, *wanted[file]) for file in FILES]
        return whole(name, Split(*found[:2]), Split(*found[2:]), num_classes)
    except (OSError, ValueError) as error:
        options = [f'--source={source}'] if source else []
        again = command(name, folder.parent.parent, *options, '--overwrite')
        raise ValueError(f'{error}: run `{again}`') from error


def write(
    folder: pathlib.Path,
    *,
    name: str,
    num_classes: int,
    versions: Mapping[str, str],
    splits: Mapping[str, Stream],
) -> None:
    """Write a data set, one batch in memory at a time, and replace an earlier one.

    `versions` is what the arrays were read from, for the manifest. Raises ValueError if
    a split does not hold as many images as it announced, an image has another shape, or
    a label is outside the classes, or if another process writes it; an earlier one is
    then kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with disk.locked(folder) as held:
        if held is False:
            raise ValueError(f'{folder} is in use by another process: wait for its end')
        try:
            _clean(folder)
            place = folder / f'arrays.{secrets.token_hex(4)}'
            place.mkdir()
            for split in SPLITS:
                where = f'{name!r}, split {split!r}'
                images = place / f'{split}_images.npy'
                labels = _write_images(images, where, splits[split])
                check_labels(where, labels, num_classes)
                np.save(place / f'{split}_labels.npy', labels)
            manifest = {
                'name': name,
                'num_classes': num_classes,
                'versions': dict(versions),
                'folder': place.name,
                'files': {file: _describe(place / file) for file in FILES},
            }
            if (folder / MANIFEST).is_dir():  # in place of which no file can be put
                shutil.rmtree(folder / MANIFEST)
            disk.write_whole(folder / MANIFEST, json.dumps(manifest, indent=2) + '\n')
        finally:
            _clean(folder)
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()


def _clean(folder: pathlib.Path) -> None:
    """Remove what a manifest that can be read does not name, as far as can be done."""
    path = folder / MANIFEST
    try:
        used = json.loads(path.read_bytes() if path.exists() else '{}').get('folder')
    except DAMAGED:  # nobody knows
        return
    names = [path.name for path in folder.iterdir()]
    own = [name for name in names if re.fullmatch('arrays[.][0-9a-f]{8}', name)]
    stale = [folder / name for name in own if name != used]
    if used:  # older versions had files, and unfinished ones, in other places
        stale += [folder / file for file in FILES]
        stale += folder.parent.glob(f'.{glob.escape(folder.name)}.incomplete.*')
    for path in stale:
        shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):
            path.unlink()


def _write_images(path: pathlib.Path, where: str, stream: Stream) -> np.ndarray:
    """Write the images of a split and return its labels, int32 [n]."""
    num_images, *image_shape = stream.shape
    labels = np.empty(num_images, np.int32)
    start = 0
    # Not memory-mapped: where the disk is full that ends in a bus error.
    with path.open('wb') as file:
        header = {'descr': '|u1', 'fortran_order': False, 'shape': stream.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for image_batch, label_batch in stream.batches:
            stop = start + len(image_batch)
            if stop > num_images or list(image_batch.shape[1:]) != image_shape:
                raise ValueError(
                    f'{where}: announced {stream.shape}, but images {start} to '
                    f'{stop - 1} have shape {image_batch.shape[1:]}'
                )
            file.write(image_batch.astype(np.uint8).tobytes())
            labels[start:stop] = label_batch
            start = stop
    if start != num_images:
        raise ValueError(f'{where}: announced {num_images} images, but holds {start}')
    return labels


def _describe(path: pathlib.Path) -> dict[str, Any]:
    """Return the manifest's entry for one file."""
    array = np.load(path, mmap_mode='r')
    return {
        'sha256': _sha256(path),
        'shape': list(array.shape),
        'dtype': str(array.dtype),
        'bytes': path.stat().st_size,
    }


def _open(path: pathlib.Path, wanted: int, digest: str) -> np.ndarray:
    """Return the array of a file of that size and sum; raise ValueError for another."""
    if not path.is_file():
        raise ValueError(f'{path} is missing')
    size = path.stat().st_size
    if size != wanted:
        raise ValueError(f'{path} has {size} bytes instead of {wanted}')
    if size < HASHED_BYTES and _sha256(path) != digest:
        raise ValueError(f'{path} does not match its sha256')
    is_images = path.stem.endswith('images')
    try:
        array = np.lib.format.open_memmap(path, mode='r')
        if (array.dtype, array.ndim) != ((np.uint8, 4) if is_images else (np.int32, 1)):
            raise ValueError(f'{array.dtype} of shape {array.shape}')
    except (OSError, ValueError) as error:
        raise ValueError(f'{path} is not one of its arrays ({error})') from error
    return array if is_images else np.array(array)


def _sha256(path: pathlib.Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
