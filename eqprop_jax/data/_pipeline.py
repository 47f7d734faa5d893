"""From arrays on the device to batches, inside a jitted step.

The order of an epoch depends on (key, epoch) alone and a batch's examples on its
position in that order, so any step can be taken up again from its number.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from eqprop_jax.data._splits import Dataset, Split
from eqprop_jax.types import Batch

NORMALIZATIONS = ('unit', 'standard')

Preprocess = Callable[[Array], Float[Array, 'B ...']]


class DeviceSplit(NamedTuple):
    """A split in device memory: raw inputs; class numbers, or continuous targets."""

    images: Shaped[Array, 'n ...']
    labels: Shaped[Array, 'n ...']

    @property
    def size(self) -> int:
        """Number of examples."""
        return self.labels.shape[0]

    @property
    def known(self) -> Bool[Array, ' n']:
        """Which are examples, and not what a split is filled up by (`filler`)."""
        if jnp.issubdtype(self.labels.dtype, jnp.integer):
            return self.labels >= 0
        return ~jnp.isnan(self.labels.reshape(self.size, -1)[:, 0])


def filler(dtype: np.dtype) -> int | float:
    """Returns the label of what a split is filled up by: −1, or NaN where it can be."""
    return -1 if np.issubdtype(dtype, np.integer) else np.nan


def to_device(split: Split) -> DeviceSplit:
    """Copies a split to the default device; on a CPU it may stay where it is."""
    return DeviceSplit(jax.device_put(split.images), jax.device_put(split.labels))


TINY = 1e-30  # a standard deviation of what is constant, in float32


def normalizer(
    dataset: Dataset, normalization: str, std_factor: float = 1.0
) -> Preprocess:
    """Returns the map from raw pixels to network inputs.

        unit        pixel / scale                   values from 0 to 1
        standard    (pixel − mean_c) / (f std_c)    per channel of the training split,
                                                    or feature: along the last axis

    Args:
      dataset: where scale, mean and standard deviation come from.
      normalization: 'unit' or 'standard'.
      std_factor: f, positive; inputs then have the standard deviation 1/f. 'unit' does
        not use it.

    Raises:
      ValueError: for an unknown normalization, or a factor that is not positive.
    """
    if normalization not in NORMALIZATIONS:
        choices = ', '.join(NORMALIZATIONS)
        raise ValueError(f'no normalization {normalization!r}; choose from {choices}')
    if not (std_factor > 0 and math.isfinite(std_factor)):
        raise ValueError(f'std_factor has to be positive and finite, not {std_factor}')
    shift, scale = np.zeros(1), np.full(1, dataset.scale)
    if normalization == 'standard':
        shift, std = _channel_statistics(dataset.train.images)
        scale = std_factor * std
    shape = (1,) * (dataset.train.images.ndim - 1) + (-1,)
    shift, scale = (
        values.astype(np.float32).reshape(shape) for values in (shift, scale)
    )
    return lambda images: (images.astype(jnp.float32) - shift) / scale


def epoch_order(rng: Array, epoch: Int[Array, ''], size: int) -> Int[Array, ' n']:
    """Returns the order in which an epoch visits the `size` training examples."""
    return jax.random.permutation(jax.random.fold_in(rng, epoch), size)


def take(
    split: DeviceSplit,
    positions: Int[Array, ' B'],
    preprocess: Preprocess,
    num_classes: int | None,
    augment: Callable[..., Array] | None = None,
) -> Batch:
    """Returns the examples at the given positions, preprocessed, classes one-hot.

    Args:
      split: the examples on the device.
      positions: which of them, 0 to n − 1.
      preprocess: from raw pixels to network inputs.
      num_classes: length of a target; None: targets are continuous.
      augment: (raw images, rows) -> what becomes of them first; None: nothing.
    """
    examples = DeviceSplit(split.images[positions], split.labels[positions])
    return batch(examples, preprocess, num_classes, augment=augment)


def batch(
    examples: DeviceSplit,
    preprocess: Preprocess,
    num_classes: int | None,
    *,
    rows: Int[Array, ' B'] | None = None,
    augment: Callable[..., Array] | None = None,
) -> Batch:
    """Returns examples as `take` does; `rows`, also for `augment`, as in `Batch`."""
    images, labels = examples
    x = preprocess(images if augment is None else augment(images, rows))
    if num_classes is None:
        return Batch(x, labels.astype(x.dtype), rows)
    return Batch(x, jax.nn.one_hot(labels, num_classes, dtype=x.dtype), rows)


def _channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation along the last axis, chunk by chunk."""
    axes = tuple(range(images.ndim - 1))
    count = images[..., 0].size

    def mean_of(fn: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        total = np.zeros(images.shape[-1])
        for start in range(0, len(images), 4096):
            total += fn(images[start : start + 4096].astype(np.float64)).sum(axes)
        return total / count

    mean = mean_of(lambda chunk: chunk)
    std = np.sqrt(mean_of(lambda chunk: (chunk - mean) ** 2))
    return mean, np.where(std > TINY, std, 1)
