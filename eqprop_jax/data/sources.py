"""Image classification data sets as uint8 arrays in memory.

`load` returns scikit-learn's 1,797 handwritten digits, which need no download, or what
`tfds_reader.prepare` or `files_reader.prepare_files` once wrote into the array cache
(`arrays.py`).
Training hosts thus need neither TensorFlow nor TFDS.
"""

import os
import shlex
from typing import NamedTuple

import numpy as np

from eqprop_jax.data import arrays

INSTALL = "`make tfds` or `pip install -e '.[tfds]'`"
TEST_DIGITS = 300


class Split(NamedTuple):
    """Examples in a fixed order."""

    images: np.ndarray  # uint8 [n, height, width, channels]
    labels: np.ndarray  # int32 [n]


class Dataset(NamedTuple):
    """A data set in three disjoint splits."""

    name: str
    train: Split
    held_out: Split  # drawn from the training images, for choosing hyperparameters
    test: Split
    num_classes: int
    scale: float  # largest possible pixel value


class Source(NamedTuple):
    """Where a data set comes from."""

    tfds_name: str | None  # None: part of scikit-learn
    num_classes: int
    train_split: str = 'train'
    test_split: str = 'test'


DATASETS = {
    'digits': Source(None, 10),
    'fashion_mnist': Source('fashion_mnist', 10),
    'mnist': Source('mnist', 10),
    'cifar10': Source('cifar10', 10),
    'cifar100': Source('cifar100', 100),
    'svhn_cropped': Source('svhn_cropped', 10),
    'imagenet_resized/32x32': Source(
        'imagenet_resized/32x32', 1000, test_split='validation'
    ),
}


class NotPreparedError(FileNotFoundError):
    """A known data set is not in the array cache."""


def load(
    name: str,
    *,
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
        `prepare_files` has cached.
      data_dir: the folder of all data sets; None means the environment variable
        TFDS_DATA_DIR, or else ~/tensorflow_datasets. Not used for 'digits'.
      held_out: number of training examples to set aside; by default 150 of 'digits' and
        5,000 of other data sets.
      num_train: number of training examples to keep of those left; None keeps all.
      seed: of the draw, 0 to 2³² − 1.

    Returns:
      The data set. Splits that hold all of a cached file's images are memory-mapped,
      the others are in memory.

    Raises:
      NotPreparedError: if a known data set is not in the cache.
      ValueError: if the name is unknown, a size does not fit, a cached file is damaged,
        or a label is outside the classes.
    """
    if name == 'digits':
        train, test = _digits()
        num_classes, scale, default = 10, 16.0, 150
    else:
        train, test, num_classes = _cached(name, data_dir)
        scale, default = 255.0, 5000
    held_out = default if held_out is None else held_out
    total = len(train.labels)
    if not 0 <= held_out < total:
        raise ValueError(
            f'held_out = {held_out} of data set {name!r}: choose 0 to {total - 1}, '
            f'since it has {total} training examples'
        )
    left = total - held_out
    if num_train is not None and not 1 <= num_train <= left:
        raise ValueError(
            f'num_train = {num_train} of data set {name!r}: choose 1 to {left}, which '
            f'held_out = {held_out} leaves of {total} training examples'
        )
    if not 0 <= seed < 2**32:
        raise ValueError(f'seed = {seed}: choose 0 to {2**32 - 1}')
    # RandomState's stream is frozen; a Generator's may change between NumPy versions.
    random = np.random.RandomState(seed)
    aside, rest = _draw(train.labels, held_out, random)
    if num_train is not None:
        rest = rest[_draw(train.labels[rest], num_train, random)[0]]
    return Dataset(
        name, _take(train, rest), _take(train, aside), test, num_classes, scale
    )


def _digits() -> tuple[Split, Split]:
    """Return scikit-learn's digits: training [1497, 8, 8, 1], test [300, 8, 8, 1]."""
    from sklearn import datasets

    digits = datasets.load_digits()
    whole = Split(
        digits.images.astype(np.uint8)[..., None], digits.target.astype(np.int32)
    )
    test, train = _draw(whole.labels, TEST_DIGITS, np.random.RandomState(0))
    return _take(whole, train), _take(whole, test)


def _cached(
    name: str, data_dir: str | os.PathLike[str] | None
) -> tuple[Split, Split, int]:
    """Return training split, test split and number of classes of a cached data set."""
    folder = arrays.folder_of(name, data_dir)
    try:
        is_cached = (folder / 'manifest.json').exists()
    except OSError as error:  # such as a name that is too long
        raise ValueError(f'data set {name!r} cannot be read ({error})') from error
    if not is_cached:
        root = shlex.quote(str(arrays.data_root(data_dir)))
        command = (
            f'`python launch/prepare_data.py --dataset={shlex.quote(name)} '
            f'--data_dir={root}`, which needs the tfds extra ({INSTALL})'
        )
        if name in DATASETS:
            raise NotPreparedError(
                f'data set {name!r} is not prepared in {folder}: run {command}'
            )
        raise ValueError(
            f'unknown data set {name!r}: choose one of {", ".join(DATASETS)}, or '
            f'prepare another TFDS image classification set by its name with {command}'
            '. Images of your own need --source=PATH instead of the extra'
        )
    manifest, files = arrays.read(folder)
    splits = {
        split: Split(files[f'{split}_images'], files[f'{split}_labels'])
        for split in arrays.SPLITS
    }
    for split, examples in splits.items():
        arrays.check_labels(name, split, examples.labels, manifest['num_classes'])
    return splits['train'], splits['test'], manifest['num_classes']


def _draw(
    labels: np.ndarray, num: int, random: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Return positions of `num` random examples, and of the others, both ascending.

    The examples are shuffled, sorted by class, and taken at even distances, so that
    each class comes within one example of its share.
    """
    shuffled = random.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind='stable')]
    drawn = np.zeros(len(labels), bool)
    drawn[by_class[np.arange(num) * len(labels) // max(num, 1)]] = True
    return np.flatnonzero(drawn), np.flatnonzero(~drawn)


def _take(split: Split, positions: np.ndarray) -> Split:
    """Return the examples at ascending positions; no copy if these are all."""
    if len(positions) == len(split.labels):
        return split
    return Split(split.images[positions], split.labels[positions])
