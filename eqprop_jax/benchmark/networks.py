"""Networks to measure on, with images and the ways in which they are relaxed."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

from eqprop_jax import solvers, systems
from eqprop_jax.benchmark import digits
from eqprop_jax.data import Dataset, NotPreparedError, load, normalizer
from eqprop_jax.systems import activations, pooling
from eqprop_jax.types import Batch, Params, Solver, System

SETTLED = 1e-3  # relative residual below which an example counts as settled
LAYERS = (784, 256, 256, 10)
CHANNELS = (128, 256, 512, 512)
PADDINGS = ('SAME', 'SAME', 'SAME', 'VALID')


class Settings(NamedTuple):
    """How a network is relaxed."""

    published: tuple[int, int]
    """Sweeps of the free and of each nudged phase in the papers."""
    radius: float
    """Of real nudges and of circles."""
    free: Solver
    nudged: Solver
    imaginary: Solver
    """Of complex steps, whose residual is relative to what the nudge moved."""
    correction: str
    loose: tuple[Solver, Solver]
    """For the free phase and for complex steps, where a cosine like that of the
    published schedule is enough."""
    linear: str = 'iterative'
    """Method of linear solves, to a tolerance of 0.01."""
    linear_steps: tuple[int, int] = (100, 100)
    """Bounds on its sweeps, the second for the loose one."""


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
      angle: between the free feedback and the transposes, in degrees. Near 0 some
        examples are next to losing their equilibrium and answer a nudge without bound;
        there nudged phases and linear solves are stopped after a few sweeps.
      batch_size: B.
      num_batches: K.
    """
    system = systems.mlp(LAYERS, feedback='free', angle=angle)
    images, labels = pictures('fashion_mnist', (28, 28, 1), 'unit')
    mixes = angle < 45  # nearly tied networks are slow

    def solver(tol: float, bound: int = 100) -> Solver:
        """Returns a solver; the bound is for nearly tied networks."""
        if mixes:
            return solvers.anderson(depth=2, tol=tol, max_steps=bound)
        return solvers.relaxation(tol=tol, max_steps=100)

    return Network(
        name=f'mlp {angle:g}°',
        system=system,
        params=system.init(jax.random.key(0), images[:1]),
        batches=cut(images, labels, batch_size, num_batches),
        settings=Settings(
            published=(150, 20),
            radius=0.5,
            free=solver(SETTLED),
            nudged=solver(SETTLED, 10),
            imaginary=solver(0.03, 8),
            correction='antisymmetric',
            loose=(solver(3e-3 if mixes else 0.01), solver(0.03 if mixes else 0.1, 8)),
            linear='anderson' if mixes else 'iterative',
            linear_steps=(8, 6) if mixes else (100, 100),
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
    relaxation = solvers.relaxation(tol=SETTLED, max_steps=250)
    return Network(
        name='conv 0°',
        system=system,
        params=system.init(jax.random.key(0), images[:1]),
        batches=cut(images, labels, batch_size, 1),
        settings=Settings(
            published=(250, 40),
            radius=1.0,
            free=relaxation,
            nudged=relaxation,
            imaginary=solvers.relaxation(tol=0.03),
            correction='adjoint',
            loose=(solvers.relaxation(tol=0.01), solvers.relaxation(tol=0.1)),
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
