"""Networks to measure on, with images and the ways in which they are relaxed."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

from eqprop_jax import solvers, systems
from eqprop_jax.data import Dataset, NotPreparedError, load, normalizer
from eqprop_jax.systems import _activations as activations
from eqprop_jax.systems import _pooling as pooling
from eqprop_jax.types import Batch, Params, Solver, System
from experiments.benchmark import digits


class Tols(NamedTuple):
    """Relative errors of the worst layer at which phases end."""

    free: float
    nudged: float
    """And in linear solves."""


TIGHT = Tols(1e-3, 1e-2)  # those of `config.defaults`
LOOSE = Tols(3e-2, 1e-1)  # δ within 5 % in the worst layer, unless sweeps creep
MAX_STEPS = 200
LAYERS = (784, 256, 256, 10)
CHANNELS = (128, 256, 512, 512)
PADDINGS = ('SAME', 'SAME', 'SAME', 'VALID')


class Settings(NamedTuple):
    """How a network is relaxed."""

    published: tuple[int, int]
    """Sweeps of the free and of each nudged phase in the papers."""
    radius: float
    """Of real nudges and of circles."""
    solver: Callable[..., Solver]
    """(tol, max_steps) -> a solver, for all phases."""
    linear: str
    """Method of linear solves, by the same sweeps."""
    correction: str

    def phases(self, tols: Tols) -> tuple[Solver, Solver]:
        """Returns how free and nudged phases are relaxed."""
        free, nudged = (self.solver(tol=tol, max_steps=MAX_STEPS) for tol in tols)
        return free, nudged


class Network(NamedTuple):
    """A network and images to learn."""

    name: str
    system: System
    params: Params
    batches: Batch
    """Several, leaves [K, B, ...]."""
    settings: Settings
    plain: nn.Module
    """The feed-forward network of the same size."""

    @property
    def batch_size(self) -> int:
        """B."""
        return self.batches.x.shape[1]


def mlp(angle: float, batch_size: int, num_batches: int) -> Network:
    """Returns the network of the papers for Fashion-MNIST, at initialisation.

    Args:
      angle: between the free feedback and the transposes, in degrees. Near 0 sweeps
        creep, and are mixed.
      batch_size: B.
      num_batches: K.
    """
    system = systems.mlp(LAYERS, feedback='free', angle=angle)
    images, labels = pictures('fashion_mnist', (28, 28, 1), 'unit')
    creeps = angle < 45
    mixed = functools.partial(solvers.anderson, depth=2)
    return Network(
        name=f'mlp {angle:g}°',
        system=system,
        params=system.init(jax.random.key(0), images[:1]),
        batches=cut(images, labels, batch_size, num_batches),
        settings=Settings(
            published=(150, 20),
            radius=0.5,
            solver=mixed if creeps else solvers.relaxation,
            linear='anderson' if creeps else 'iterative',
            correction='antisymmetric',
        ),
        plain=Plain(LAYERS[1:]),
    )


def conv(batch_size: int) -> Network:
    """Returns the network of the papers for CIFAR-10, at initialisation, angle 0.

    Args:
      batch_size: B, of one batch.
    """
    shape = (32, 32, 3)
    system = systems.conv(
        shape, CHANNELS, paddings=PADDINGS, classes=10, feedback='free', angle=0.0
    )
    images, labels = pictures('cifar10', shape, 'standard')
    return Network(
        name='conv 0°',
        system=system,
        params=system.init(jax.random.key(0), images[:1]),
        batches=cut(images, labels, batch_size, 1),
        settings=Settings(
            published=(250, 40),
            radius=1.0,
            solver=solvers.relaxation,
            linear='iterative',
            correction='adjoint',
        ),
        plain=PlainConv(CHANNELS, PADDINGS),
    )


class Plain(nn.Module):
    """A multi-layer perceptron for backprop."""

    sizes: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns the scores."""
        x = x.reshape(len(x), -1)
        for size in self.sizes[:-1]:
            x = activations.sigmoid(nn.Dense(size)(x))
        return nn.Dense(self.sizes[-1])(x)


class PlainConv(nn.Module):
    """A convolutional network for backprop."""

    channels: tuple[int, ...]
    paddings: tuple[str, ...]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns the scores."""
        pool = pooling.get('softmax')
        for size, padding in zip(self.channels, self.paddings, strict=True):
            x = nn.Conv(size, (3, 3), padding=padding)(x)
            x = activations.dsilu(pool(x).values)
        return nn.Dense(10)(x.reshape(len(x), -1))


def pictures(
    name: str, shape: tuple[int, int, int], normalization: str
) -> tuple[Array, Array]:
    """Returns images and one-hot labels: of a data set, or else enlarged digits.

    Args:
      name: of the data set; where it is not prepared, scikit-learn's digits of 8 x 8
        take its place, each pixel as a square.
      shape: height, width and channels.
      normalization: as in `data.normalizer`.
    """
    dataset = prepared(name)
    if dataset.name == 'digits':
        large = digits.enlarged(dataset.train.images, shape)
        dataset = dataset._replace(train=dataset.train._replace(images=large))
    factor = 1.5 if normalization == 'standard' else 1.0
    preprocess = normalizer(dataset, normalization, factor)
    images = preprocess(jnp.asarray(dataset.train.images))
    return images, jax.nn.one_hot(dataset.train.labels, 10)


def prepared(name: str) -> Dataset:
    """Returns the data set of that name, or the digits where it is not prepared."""
    try:
        return load(name)
    except NotPreparedError:
        return load('digits')


def cut(images: Array, labels: Array, batch_size: int, num_batches: int) -> Batch:
    """Returns the first examples as batches, leaves [K, B, ...]."""
    count = batch_size * num_batches
    x, y = images[:count], labels[:count]
    return Batch(
        x.reshape(num_batches, batch_size, *x.shape[1:]),
        y.reshape(num_batches, batch_size, -1),
    )
