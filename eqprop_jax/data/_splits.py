"""A data set in memory: splits of images with labels, as NumPy arrays."""

import hashlib
from typing import NamedTuple

import numpy as np


class Split(NamedTuple):
    """Examples in a fixed order."""

    images: np.ndarray  # inputs, uint8 [n, height, width, channels] or others [n, ...]
    labels: np.ndarray  # classes, int32 [n]; or continuous targets, float32 [n, ...]


class Dataset(NamedTuple):
    """A data set in three disjoint splits."""

    name: str
    train: Split
    held_out: Split  # drawn from the training images, for choosing hyperparameters
    test: Split
    num_classes: int | None  # None: targets are continuous
    scale: float  # largest possible pixel value

    @property
    def num_outputs(self) -> int:
        """How many numbers a target has: one for each class, or continuous ones."""
        if self.num_classes is not None:
            return self.num_classes
        return int(np.prod(self.train.labels.shape[1:]))

    @property
    def variance(self) -> float | None:
        """Mean |y − ȳ|² of continuous training targets; None where there are none."""
        if self.num_classes is not None:
            return None
        return float(np.sum(np.var(self.train.labels, axis=0, dtype=np.float64)))


def hold_out(
    dataset: Dataset, held_out: int, num_train: int | None = None, seed: int = 0
) -> Dataset:
    """Return the data set with training examples set aside, and others kept.

    Args and errors are those of `sources.load`.
    """
    name, train = dataset.name, dataset.train
    total = len(train.labels)
    for key, value in (('held_out', held_out), ('num_train', num_train)):
        if value is not None and int(value) != value:
            raise ValueError(f'{key} is a number of examples, not {value}')
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
    return dataset._replace(train=_take(train, rest), held_out=_take(train, aside))


def whole(
    name: str,
    train: Split,
    test: Split,
    num_classes: int | None,
    scale: float = 255.0,
) -> Dataset:
    """Return a data set with nothing held out, if it passes `check`."""
    none = Split(train.images[:0], train.labels[:0])
    dataset = Dataset(name, train, none, test, num_classes, scale)
    check(dataset)
    return dataset


def digest(dataset: Dataset) -> str:
    """Returns 16 digits of the SHA-256 of all that is trained and measured on."""
    found = hashlib.sha256(repr((dataset.num_classes, dataset.scale)).encode())
    for split in (dataset.train, dataset.held_out, dataset.test):
        for array in split:
            found.update(f'{array.dtype.str}{array.shape}'.encode())
            found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()[:16]


def check(dataset: Dataset) -> None:
    """Raises ValueError for a split that is empty, or holds what cannot be trained on.

    That is images of another size than those of the others, NaN, or labels out of
    range; and continuous targets that do not vary.
    """
    wanted = dataset.train.images.shape[1:]
    for split in ('train', 'held_out', 'test'):
        images, labels = getattr(dataset, split)
        where = f'{dataset.name!r}, split {split!r}'
        if len(images) != len(labels):
            raise ValueError(f'{where}: {len(images)} images but {len(labels)} labels')
        if split != 'held_out' and not images.size:
            raise ValueError(f'{where} is empty: there are no images in it')
        if images.shape[1:] != wanted:
            raise ValueError(
                f'{where} has images of shape {images.shape[1:]}, but {wanted} are '
                'trained on'
            )
        _check_finite(f'{where}: image', images)
        if dataset.num_classes is not None:
            check_labels(where, labels, dataset.num_classes)
            continue
        _check_finite(f'{where}: target', labels)
        if labels.shape[1:] != dataset.train.labels.shape[1:]:
            raise ValueError(
                f'{where} has targets of shape {labels.shape[1:]}, but '
                f'{dataset.train.labels.shape[1:]} are trained on'
            )
    if dataset.variance == 0:
        raise ValueError(f'{dataset.name!r}: all training targets are the same')


def _check_finite(what: str, values: np.ndarray) -> None:
    """Raises ValueError, naming the first example, for NaN or infinity."""
    if np.issubdtype(values.dtype, np.integer):
        return
    bad = np.flatnonzero(~np.isfinite(values).all(axis=tuple(range(1, values.ndim))))
    if bad.size:
        raise ValueError(
            f'{what} {bad[0]} holds NaN or infinity ({bad.size} of them do): remove or '
            'repair them'
        )


def check_labels(where: str, labels: np.ndarray, num_classes: int) -> None:
    """Raise ValueError for a label outside 0 to num_classes − 1."""
    bad = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if bad.size:
        raise ValueError(
            f'{where}: label {labels[bad[0]]} of example {bad[0]} is outside 0 to '
            f'{num_classes - 1}, one for each of {num_classes} classes ({bad.size} '
            f'such labels; all go from {labels.min()} to {labels.max()}; a split '
            'without labels cannot be used)'
        )


def _draw(
    labels: np.ndarray, num: int, random: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Return positions of `num` random examples, and of the others, both ascending.

    The examples are shuffled, sorted by class, and taken at even distances, so that
    each class comes within one example of its share. Continuous targets are one class.
    """
    if labels.dtype.kind == 'f':
        labels = np.zeros(len(labels), int)
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
