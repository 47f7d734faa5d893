"""A data set from arrays of one's own."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging
from numpy.typing import ArrayLike

from eqprop_jax.data._splits import Dataset, Split, hold_out, whole

Values = ArrayLike | Sequence[Any]


def from_arrays(
    train: tuple[Values, Values],
    test: tuple[Values, Values] | None = None,
    *,
    held_out: int | None = None,
    num_train: int | None = None,
    num_classes: int | None = None,
    scale: float | None = None,
    name: str = 'arrays',
    seed: int = 0,
) -> Dataset:
    """Returns a data set of inputs and targets in memory.

    Inputs are images [n, height, width] or [n, height, width, channels], or features
    [n, ...]; unsigned integers of up to 32 bits, or others, which become float32.
    Targets are classes, integers [n] from 0 on, or continuous, floating-point [n, ...].
    Whatever NumPy makes an array of will do: tensors of other libraries, lists of
    images of Pillow, and so the columns of a data set of Hugging Face.

    Args:
      train: inputs and targets to learn from.
      test: those of the test. None: a sixth of the others, drawn like `held_out`.
      held_out: number of training examples to set aside for choosing hyperparameters;
        None: a tenth.
      num_train: number of training examples to keep of those left; None keeps all.
      num_classes: k; None: the largest class of the training examples, and 1; then
        each class has an example.
      scale: what `normalization='unit'` divides inputs by; None: the largest value of
        unsigned integers, and 1 for other numbers.
      name: in messages.
      seed: of what is drawn, 0 to 2³² − 1: class by class, and at random where targets
        are continuous.

    Raises:
      ValueError: if inputs and targets differ in number, or one example in shape from
        others, values are no numbers or not finite, classes are out of range, or a size
        does not fit.
    """
    named = {'train': train} if test is None else {'train': train, 'test': test}
    splits = [_split(f'{name!r}, {key}', pair) for key, pair in named.items()]
    first, last = splits[0], splits[-1]
    if last.images.dtype != first.images.dtype or (
        last.labels.dtype != first.labels.dtype
    ):
        raise ValueError(
            f'{name!r}: types of training and test examples differ: '
            f'{first.images.dtype} and {last.images.dtype}, targets '
            f'{first.labels.dtype} and {last.labels.dtype}'
        )
    if first.labels.dtype != np.int32:
        if num_classes is not None:
            raise ValueError(
                f'{name!r}: targets are {first.labels.dtype}, of which there are no '
                f'num_classes={num_classes}: make them integers, or leave it out'
            )
    elif num_classes is None:
        num_classes = int(first.labels.max(initial=0)) + 1
        missing = np.setdiff1d(np.arange(num_classes), first.labels)
        if missing.size and first.labels.min(initial=0) >= 0 and num_classes > 1:
            raise ValueError(
                f'{name!r}: no training example has class {missing[0]}, of '
                f'{num_classes}: number the classes from 0 on without a gap (np.unique '
                'with return_inverse does), give num_classes, or make targets of a '
                'regression floats'
            )
    if scale is None:
        unsigned = first.images.dtype.kind == 'u'
        scale = float(np.iinfo(first.images.dtype).max) if unsigned else 1.0
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(f'scale has to be positive and finite, not {scale}')
    dataset = whole(name, first, last, num_classes, scale)
    if test is None:
        parts = hold_out(dataset, len(first.labels) // 6, seed=seed)
        dataset = parts._replace(held_out=dataset.held_out, test=parts.held_out)
    size = len(dataset.train.labels)
    aside = size // 10 if held_out is None else held_out
    return hold_out(dataset, aside, num_train, seed)


def _split(where: str, pair: Any) -> Split:
    """Returns inputs and targets in one of the forms above."""
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(f'{where} has to be a pair (inputs, targets)')
    inputs, targets = pair
    x, y = as_inputs(f'{where}: inputs', inputs), _array(f'{where}: targets', targets)
    if x.ndim in (1, 3):
        x = x[..., None]
    if y.dtype.kind == 'f':
        if y.ndim == 1 and np.array_equal(y, np.round(y)):
            logging.warning(
                '%s: targets are %s, which are continuous, but all are whole: if they '
                'are classes make them integers',
                where,
                y.dtype,
            )
        y = (y[:, None] if y.ndim == 1 else y).astype(np.float32)
    else:
        y = y[:, 0] if y.shape[1:] == (1,) else y
        if y.ndim != 1:
            raise ValueError(
                f'{where}: targets are {y.dtype} of shape {y.shape}; classes have to '
                f'be {len(x)} integers (of one-hot rows take the argmax)'
            )
        known = (y >= 0) & (y < 2**31)  # others would wrap
        y, values = np.full(y.shape, -1, np.int32), y
        y[known] = values[known]
    return Split(x, y)


def as_inputs(where: str, values: Values) -> np.ndarray:
    """Returns inputs as they are kept; tells where single precision loses them."""
    x = _array(where, values)
    if x.dtype.kind == 'u' and x.dtype.itemsize <= 4:
        return x.astype(x.dtype.newbyteorder('='))
    single = x.astype(np.float32)
    if x.dtype.itemsize > 4:
        lost = np.abs(x - single.astype(np.float64)).max(axis=0, initial=0)
        spread = np.std(x.astype(np.float64), axis=0)
        if np.any((lost > 0.01 * spread) & (lost > 0)):
            logging.warning(
                '%s: some differ by less than single precision keeps: subtract what '
                'they have in common first',
                where,
            )
    return single


def _array(where: str, values: Values) -> np.ndarray:
    """Returns numbers as an array [n, ...]."""
    if np.ma.is_masked(values):
        raise ValueError(f'{where} are masked: fill or remove what is')
    try:
        if not hasattr(values, '__array__'):
            values = np.stack([_plain(value) for value in values])  # ty: ignore
        found = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise ValueError(f'{where} make no array: {error}') from error
    if found.dtype.kind not in 'biuf' or not found.ndim:
        raise ValueError(
            f'{where} are {found.dtype} of shape {found.shape}, no numbers: of names '
            'of classes take np.unique with return_inverse'
        )
    return found


def _plain(value: Any) -> np.ndarray:
    """Returns an array; of an image of Pillow with a palette its colours."""
    return np.asarray(
        value.convert('RGB') if getattr(value, 'mode', None) == 'P' else value
    )
