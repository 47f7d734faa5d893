"""Data sets by name, or from a file or folder of one's own, as arrays in memory.

`load` returns scikit-learn's 1,797 handwritten digits, which need no download, what
`prepare` or `prepare_files` once wrote into the array cache (`arrays.py`), or what lies
at a path. Training hosts thus need neither TensorFlow nor TFDS.
"""

import os
import pathlib

import numpy as np

from eqprop_jax.data import _arrays as arrays
from eqprop_jax.data import _files_reader as files_reader
from eqprop_jax.data._catalog import DATASETS, INSTALL
from eqprop_jax.data._from_arrays import from_arrays
from eqprop_jax.data._splits import Dataset, Split, hold_out, whole


class NotPreparedError(FileNotFoundError):
    """A known data set is not in the array cache."""


def load(
    name: str,
    *,
    path: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    held_out: int | None = None,
    num_train: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Load a data set; download nothing.

    Held-out and kept training examples are drawn class by class, each class within one
    example of its share, and stay in the source's order. The test split depends on
    neither `held_out`, `num_train` nor `seed`.

    Args:
      name: a key of `DATASETS`, or the name of another set that `prepare` or
        `prepare_files` has cached. Not used beside a path.
      path: an .npz file or a folder of images (`prepare_files`), which is read whole;
        arrays of the file may also be any that `from_arrays` takes.
      data_dir: the folder of all data sets; None means the environment variable
        TFDS_DATA_DIR, or else ~/tensorflow_datasets. Not used for 'digits'.
      held_out: number of training examples to set aside; by default 150 of 'digits',
        a tenth of what lies at a path, and 5,000 of other data sets.
      num_train: number of training examples to keep of those left; None keeps all.
      seed: of the draw, 0 to 2³² − 1.

    Returns:
      The data set. Splits that hold all of a cached file's images are memory-mapped,
      the others are in memory.

    Raises:
      FileNotFoundError: if there is nothing at the path.
      NotPreparedError: if a known data set is not in the cache.
      ValueError: if the name is unknown, a size does not fit, a file is damaged, or a
        label is outside the classes.
    """
    if path is not None:
        file = files_reader.located(path)
        train, test = files_reader.read(file)
        own = {'held_out': held_out, 'num_train': num_train, 'seed': seed}
        return from_arrays(train, test, name=file.stem, **own)
    if name == 'digits':
        dataset, default = _digits(), 150
    else:
        dataset, default = arrays.read(_prepared(name, data_dir)), 5000
    held_out = default if held_out is None else held_out
    return hold_out(dataset, held_out, num_train, seed)


def _digits() -> Dataset:
    """Return scikit-learn's digits, 8 x 8: 1497 for training and 300 for the test."""
    from sklearn import datasets

    digits = datasets.load_digits()
    images, labels = digits.images[..., None], digits.target
    pool = Split(images.astype(np.uint8), labels.astype(np.int32))
    parts = hold_out(whole('digits', pool, pool, num_classes=10, scale=16.0), 300)
    return parts._replace(test=parts.held_out)


def _prepared(name: str, data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    """Return the folder of a data set in the cache."""
    folder = arrays.folder_of(name, data_dir)
    try:
        if (folder / 'manifest.json').exists():
            return folder
    except OSError as error:  # such as a name that is too long
        raise ValueError(f'data set {name!r} cannot be read ({error})') from error
    command = (
        f'`{arrays.command(name, arrays.data_root(data_dir))}`, which needs the tfds '
        f'extra ({INSTALL})'
    )
    if name in DATASETS:
        raise NotPreparedError(
            f'data set {name!r} is not prepared in {folder}: run {command}'
        )
    raise ValueError(
        f'unknown data set {name!r}: choose one of {", ".join(DATASETS)}, or prepare '
        f'another TFDS image classification set by its name with {command}. For data '
        'of your own give data.path instead of a name'
    )
