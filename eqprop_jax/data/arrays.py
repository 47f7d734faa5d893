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
    return pathlib.Path(given or '~/tensorflow_datasets').expanduser()


def folder_of(
    name: str, data_dir: str | os.PathLike[str] | None = None
) -> pathlib.Path:
    """Return the folder that holds, or would hold, the arrays of data set `name`."""
    return data_root(data_dir) / 'eqprop_arrays' / name.replace('/', '_')


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
      ValueError: if a file is missing, or is not what the manifest says.
    """
    try:
        manifest = json.loads((folder / 'manifest.json').read_text(encoding='utf-8'))
        name, files = manifest['name'], manifest['files']
        entries = {key: files[f'{key}.npy'] for key in _keys()}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'{folder / "manifest.json"} is damaged ({error!r}): run '
            'launch/prepare_data.py with --overwrite'
        ) from error
    arrays = {}
    for key, entry in entries.items():
        path = folder / f'{key}.npy'
        fault = _fault(path, entry)
        if fault:
            raise ValueError(
                f'{path} {fault}: run `python launch/prepare_data.py --dataset={name} '
                f'--data_dir={folder.parent.parent} --overwrite`'
            )
        mode = 'r' if key.endswith('images') else None
        arrays[key] = np.load(path, mmap_mode=mode)
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
    images = np.lib.format.open_memmap(
        folder / f'{split}_images.npy', mode='w+', dtype=np.uint8, shape=stream.shape
    )
    labels = np.empty(num_images, np.int32)
    start = 0
    for image_batch, label_batch in stream.batches:
        stop = start + len(image_batch)
        if stop > num_images or list(image_batch.shape[1:]) != image_shape:
            raise ValueError(
                f'data set {name!r}, split {split!r}: announced {stream.shape}, but '
                f'images {start} to {stop - 1} have shape {image_batch.shape[1:]}'
            )
        images[start:stop] = image_batch
        labels[start:stop] = label_batch
        start = stop
    if start != num_images:
        raise ValueError(
            f'data set {name!r}, split {split!r}: announced {num_images} images, but '
            f'holds {start}'
        )
    images.flush()
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


def _fault(path: pathlib.Path, entry: Mapping[str, Any]) -> str | None:
    """Return how the file differs from its manifest entry, or None."""
    if not path.exists():
        return 'is missing'
    size = path.stat().st_size
    if size != entry['bytes']:
        return f'has {size} bytes instead of {entry["bytes"]}'
    if size < HASHED_BYTES and _sha256(path) != entry['sha256']:
        return 'does not match its sha256'
    return None


def _sha256(path: pathlib.Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
