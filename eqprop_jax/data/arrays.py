"""The array cache: a prepared data set as plain .npy files with a manifest.

    <data_dir>/eqprop_arrays/<name, / as _>/
        train_images.npy  uint8 [n, height, width, channels]
        train_labels.npy  int32 [n]
        test_images.npy   uint8 [m, height, width, channels]
        test_labels.npy   int32 [m]
        manifest.json     name, num_classes, versions, and each file's sha256, shape,
                          dtype and bytes

A folder is written under a temporary name and renamed when it is complete, so that it
is whole or absent. Reading needs NumPy alone, and pages in only the images in use.
"""

import hashlib
import json
import os
import pathlib
import shlex
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

HASHED_BYTES = 1_000_000_000  # larger files are checked by size alone
SPLITS = ('train', 'test')


class Stream(NamedTuple):
    """One split on its way into the cache."""

    shape: tuple[int, int, int, int]  # n, height, width, channels
    batches: Iterable[tuple[np.ndarray, np.ndarray]]  # images, labels


def data_root(data_dir: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """Return the folder of all data sets.

    Args:
      data_dir: a local folder; None means the environment variable TFDS_DATA_DIR, or
        else ~/tensorflow_datasets, as for TFDS.

    Returns:
      The folder's path; it need not exist.

    Raises:
      ValueError: if `data_dir` is a URL.
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
    """Return the folder that holds, or would hold, the arrays of data set `name`.

    It lies in the folder eqprop_arrays, whatever the name.
    """
    own = name.replace('/', '_')
    return (
        data_root(data_dir) / 'eqprop_arrays' / (own if own.strip('.') else f'_{own}')
    )


def check_labels(name: str, split: str, labels: np.ndarray, num_classes: int) -> None:
    """Check that all labels lie in 0..num_classes - 1.

    Args:
      name: the data set's name, for the message.
      split: the split's name, for the message.
      labels: integers [n].
      num_classes: how many classes there are.

    Raises:
      ValueError: naming the first offending value and its position.
    """
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if wrong.size:
        raise ValueError(
            f'data set {name!r}, split {split!r}: label {labels[wrong[0]]} of example '
            f'{wrong[0]} is outside 0..{num_classes - 1} ({wrong.size} such labels); '
            'a data set without labels in this split cannot be used'
        )


def read(folder: pathlib.Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read a cached data set.

    Args:
      folder: from `folder_of`; it must hold a manifest.

    Returns:
      The manifest, and the arrays by file name without suffix: 'train_images' and
      'test_images', memory-mapped uint8 [n, height, width, channels], 'train_labels'
      and 'test_labels', int32 [n].

    Raises:
      ValueError: if a file is missing, or is not what the manifest says, or the arrays
        are not of these types and shapes.
    """
    try:
        manifest = json.loads((folder / 'manifest.json').read_text(encoding='utf-8'))
        name, files = manifest['name'], manifest['files']
        sums = {
            key: [files[f'{key}.npy'][value] for value in ('bytes', 'sha256')]
            for key in _keys()
        }
        num_classes = manifest['num_classes']
        if type(num_classes) is not int or num_classes < 1:
            raise ValueError(f'num_classes is {num_classes!r}')
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f'{folder / "manifest.json"} is damaged ({error!r}): run '
            'launch/prepare_data.py with --overwrite'
        ) from error
    arrays: dict[str, np.ndarray] = {}
    for key, (size, digest) in sums.items():
        path = folder / f'{key}.npy'
        fault = _fault(path, size, digest)
        if not fault:
            try:
                arrays[key] = _load(path)
            except (OSError, ValueError) as error:
                fault = f'is not one of its arrays ({error})'
        if not fault and key.endswith('labels'):
            images = arrays[key.replace('labels', 'images')]
            if len(arrays[key]) != len(images):
                fault = f'has {len(arrays[key])} labels for {len(images)} images'
        if fault:
            own = manifest.get('versions', {}).get('source')
            source = f' --source={shlex.quote(own)}' if own else ''
            raise ValueError(
                f'{path} {fault}: run `python launch/prepare_data.py --dataset={name} '
                f'--data_dir={folder.parent.parent}{source} --overwrite`'
            )
    return manifest, arrays


def write(
    folder: pathlib.Path,
    *,
    name: str,
    num_classes: int,
    versions: Mapping[str, str],
    splits: Mapping[str, Stream],
) -> None:
    """Write a data set, one batch in memory at a time, and replace an earlier one.

    Args:
      folder: from `folder_of`; its parents are made.
      name: the data set's name.
      num_classes: how many classes there are.
      versions: what the arrays were read from, recorded in the manifest.
      splits: 'train' and 'test'.

    Raises:
      ValueError: if a split does not hold as many images as it announced, an image has
        another shape, or a label is outside the classes. An earlier folder is kept.
      OSError: if the folder cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f'.{folder.name}.incomplete.{uuid.uuid4().hex}')
    earlier = partial.with_name(f'{partial.name}.earlier')
    partial.mkdir()
    try:
        for split in SPLITS:
            labels = _write_split(partial, name, split, splits[split])
            check_labels(name, split, labels, num_classes)
        manifest = {
            'name': name,
            'num_classes': num_classes,
            'versions': dict(versions),
            'files': {
                f'{key}.npy': _describe(partial / f'{key}.npy') for key in _keys()
            },
        }
        text = json.dumps(manifest, indent=2) + '\n'
        (partial / 'manifest.json').write_text(text, encoding='utf-8')
        if folder.exists():
            folder.rename(earlier)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(earlier, ignore_errors=True)


def _keys() -> Iterator[str]:
    """Return the four files' names without suffix."""
    return (f'{split}_{part}' for split in SPLITS for part in ('images', 'labels'))


def _write_split(
    folder: pathlib.Path, name: str, split: str, stream: Stream
) -> np.ndarray:
    """Write the two files of one split and return its labels, int32 [n]."""
    num_images, *image_shape = stream.shape
    labels = np.empty(num_images, np.int32)
    start = 0
    # Not memory-mapped: where the disk is full that ends in a bus error.
    with (folder / f'{split}_images.npy').open('wb') as file:
        header = {'descr': '|u1', 'fortran_order': False, 'shape': stream.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for image_batch, label_batch in stream.batches:
            stop = start + len(image_batch)
            if stop > num_images or list(image_batch.shape[1:]) != image_shape:
                raise ValueError(
                    f'data set {name!r}, split {split!r}: announced {stream.shape}, '
                    f'but images {start} to {stop - 1} have shape '
                    f'{image_batch.shape[1:]}'
                )
            file.write(image_batch.astype(np.uint8).tobytes())
            labels[start:stop] = label_batch
            start = stop
    if start != num_images:
        raise ValueError(
            f'data set {name!r}, split {split!r}: announced {num_images} images, but '
            f'holds {start}'
        )
    np.save(folder / f'{split}_labels.npy', labels)
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


def _fault(path: pathlib.Path, wanted: int, digest: str) -> str | None:
    """Return how the file differs from its manifest entry, or None."""
    if not path.is_file():
        return 'is missing'
    size = path.stat().st_size
    if size != wanted:
        return f'has {size} bytes instead of {wanted}'
    if size < HASHED_BYTES and _sha256(path) != digest:
        return 'does not match its sha256'
    return None


def _load(path: pathlib.Path) -> np.ndarray:
    """Return the array of a file; raise ValueError if it has another type or shape."""
    array = np.lib.format.open_memmap(path, mode='r')
    is_images = path.stem.endswith('images')
    dtype, num_axes = (np.uint8, 4) if is_images else (np.int32, 1)
    if array.dtype != dtype or array.ndim != num_axes:
        raise ValueError(f'{array.dtype} of shape {array.shape}')
    return array if is_images else np.array(array)


def _sha256(path: pathlib.Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
