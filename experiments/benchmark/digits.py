"""Scikit-learn's digits: for small networks, or in the place of other images."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from eqprop_jax import systems
from eqprop_jax.data import _arrays as arrays
from eqprop_jax.data import load
from eqprop_jax.types import Batch
from experiments import exhibits


def network(
    sizes: Sequence[int],
    *,
    feedback: str = 'free',
    angle: float | None = None,
    num_images: int,
    seed: int = 0,
) -> exhibits.Network:
    """Returns a network with random weights that looks at some digits, settled.

    Args:
      sizes: as in `systems.mlp`, from 64 inputs to 10 classes.
      feedback: as there.
      angle: as there.
      num_images: B, the first of the training images.
      seed: of the weights.

    Raises:
      ValueError: if the sizes do not fit, or if some example does not settle to 1e-14.
    """
    train = load('digits').train
    batch = Batch(
        x=jnp.asarray(train.images[:num_images] / 16),
        y=jax.nn.one_hot(train.labels[:num_images], 10, dtype=float),
    )
    system = systems.mlp(sizes, feedback=feedback, angle=angle)
    params = system.init(jax.random.key(seed), batch.x)
    rest = system.rest(system.inject(params, batch.x))
    system.cost(params, system.rates(rest), batch.y)  # refuses other than 10 classes
    result = exhibits.settle(system, params, batch)
    if not result.free.converged.all():
        raise ValueError(
            'the network does not settle to 1e-14: there is no equilibrium to refer to'
        )
    return result


def enlarged(images: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Returns images [n, 8, 8, 1] with larger pixels, in a frame if need be."""
    factor = shape[0] // images.shape[1]
    large = images.repeat(factor, axis=1).repeat(factor, axis=2)
    edge = (shape[0] - large.shape[1]) // 2
    framed = np.pad(large, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    return framed.repeat(shape[2], axis=3)


def write_enlarged(
    folder: str, name: str, shape: tuple[int, int, int], num_classes: int = 10
) -> None:
    """Writes enlarged digits in the place of a data set, as bytes and shapes go."""
    found = load('digits', held_out=0)
    splits = {
        key: (enlarged(15 * split.images, shape), split.labels)
        for key, split in (('train', found.train), ('test', found.test))
    }
    arrays.write(
        arrays.folder_of(name, folder),
        name=name,
        num_classes=num_classes,
        versions={},
        splits={
            key: arrays.Stream(split[0].shape, [split]) for key, split in splits.items()
        },
    )
