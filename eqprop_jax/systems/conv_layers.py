"""The layers of a convolutional network: their geometry, and how they are chained.

A layer knows the map z that it is pooled from, as a function of the rates below, and
the transpose of that function. Sizes are worked out and checked when a network is
built.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from jaxtyping import Array, Inexact

from eqprop_jax import linear
from eqprop_jax.systems import pooling as pools
from eqprop_jax.systems.pooling import Pooling

PADDINGS = ('SAME', 'VALID')


class Layer(NamedTuple):
    """One layer of units and the synapses to it from the layer below."""

    name: str
    kernel: tuple[int, ...]
    """[h, w, m, n] of a convolution, [m, n] of a dense layer."""
    shape: tuple[int, ...]
    """Of the units of one example: [h, w, n], or [n]."""
    forward: Callable[[Inexact[Array, 'B ...'], Array], Array]
    """(rates below, kernel) ↦ z without the bias."""
    backward: Callable[[Array, Array], Inexact[Array, 'B ...']]
    """(what is on the map z, kernel) ↦ its transpose, shaped like the rates below."""
    pooling: str | None = None
    """Name of its pooling."""
    pool: Pooling = pools.get(None)
    """z ↦ P(z) and the gate."""


def stack(
    shape: tuple[int, ...],
    channels: tuple[int, ...],
    kernels: tuple[int, ...],
    paddings: tuple[str, ...],
    poolings: tuple[str | None, ...],
    after: tuple[int, ...],
    temperature: float,
) -> tuple[Layer, ...]:
    """Returns the layers from bottom to top, each checked against the one below.

    Args:
      shape: height, width and channels of an input.
      channels: of each convolution.
      kernels: height and width of each kernel.
      paddings: 'SAME' or 'VALID', of each.
      poolings: 'softmax', 'max' or None, behind each.
      after: sizes of the dense layers that follow.
      temperature: T of the softmax pooling.

    Raises:
      ValueError: for an unknown name, a kernel larger than its map, or a map of odd
        size to be pooled.
    """
    layers = []
    each = zip(channels, kernels, paddings, poolings, strict=True)
    for index, options in enumerate(each, start=1):
        layer = _convolution(f'layer_{index}', shape, *options, temperature)
        layers.append(layer)
        shape = layer.shape
    for index, size in enumerate(after, start=len(layers) + 1):
        layers.append(_dense(f'layer_{index}', shape, size))
        shape = (size,)
    return tuple(layers)


def _convolution(
    name: str,
    below: tuple[int, ...],
    channels: int,
    size: int,
    padding: str,
    pooling: str | None,
    temperature: float,
) -> Layer:
    if padding not in PADDINGS:
        raise ValueError(f'no padding {padding!r}; choose from {", ".join(PADDINGS)}')
    rows, columns, features = below
    image = (rows, columns)
    if size > min(image):
        raise ValueError(
            f'a kernel of {size} x {size} is larger than the map of {image[0]} x '
            f'{image[1]} below {name}: take a smaller kernel, or fewer layers or '
            'poolings below it'
        )
    height, width = (
        extent if padding == 'SAME' else extent - size + 1 for extent in image
    )
    if pooling is not None:
        if height % pools.WINDOW or width % pools.WINDOW:
            raise ValueError(
                f'{name} has a map of {height} x {width}, which windows of 2 x 2 do '
                'not divide: change image_shape, its kernel or its padding, or set '
                'its pooling to None'
            )
        height, width = height // pools.WINDOW, width // pools.WINDOW
    return Layer(
        name=name,
        kernel=(size, size, features, channels),
        shape=(height, width, channels),
        forward=lambda s, kernel: linear.conv(s, kernel, padding),
        backward=lambda r, kernel: linear.conv_transpose(r, kernel, image, padding),
        pooling=pooling,
        pool=pools.get(pooling, temperature),
    )


def _dense(name: str, below: tuple[int, ...], size: int) -> Layer:
    def forward(s: Array, kernel: Array) -> Array:
        return linear.dense(s.reshape(s.shape[0], -1), kernel)

    def backward(r: Array, kernel: Array) -> Array:
        return linear.dense_transpose(r, kernel).reshape(r.shape[0], *below)

    return Layer(name, (math.prod(below), size), (size,), forward, backward)


def for_each(
    name: str, value: Any, count: int, what: str = 'convolutions'
) -> tuple[Any, ...]:
    """Returns one value for each, from one for all or from a list.

    Args:
      name: what messages call it.
      value: a number, a name, None, or a list of them; of a single one: for all.
      count: how many there are.
      what: the plural noun for messages.

    Raises:
      ValueError: for a list of another length.
    """
    if isinstance(value, str) or not isinstance(value, Iterable):
        return (value,) * count
    values = tuple(value)
    if len(values) == 1:
        return values * count
    if len(values) != count:
        raise ValueError(
            f'{name}={values} has {len(values)} entries for {count} {what}: give '
            'one for each, or one for all'
        )
    return values
