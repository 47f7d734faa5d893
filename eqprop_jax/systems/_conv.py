"""Convergent convolutional networks: convolutions, pooling, and dense layers behind.

    z_l = s_{l−1} ∗ W_l + b_l        D_l = P(z_l) + (P′(z_{l+1})ᵀ s_{l+1}) ∗ᵀ B_{l+1}

with s_0 = x, P the pooling (the identity for dense layers, whose ∗ is the matrix
product) and ∗ᵀ the transpose of the convolution.

    feedback   B_l
    tied       W_l            energy-based: Φ = Σ_l s_l · P(z_l)
    free       own kernels    a vector field; paired with W_l for Kolen–Pollack

With free feedback, too, the gate P′(z) is that of the forward kernels, so that an angle
of 0 is the tied network. Where the gate depends on z (softmax) layers feed themselves
through it, a little, and J depends on the rates.

The gate of the maximum jumps from unit to unit of a window. With tied feedback Φ stays
continuous; with feedback of its own the jump can be back and forth at any step size,
and examples where it is have no equilibrium. The gate of the softmax is continuous.

References:
  Ernoult et al. 2019, https://arxiv.org/abs/1905.13633
  Laborieux et al. 2021 (max-pooling, untied), https://arxiv.org/abs/2006.03824
  Laborieux and Zenke 2022 (softmax pooling), https://arxiv.org/abs/2209.00530
  Laborieux and Zenke 2024 (untied, holomorphic), https://arxiv.org/abs/2309.02214
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
from jaxtyping import Array

from eqprop_jax import linear
from eqprop_jax.systems import _chain as chain
from eqprop_jax.systems import _costs as costs
from eqprop_jax.systems import _pooling as pools
from eqprop_jax.systems._activations import Activations
from eqprop_jax.systems._chain import Draw, Layer
from eqprop_jax.systems._costs import CostFunction
from eqprop_jax.systems._readout import Readout, check_dropout, with_dropout
from eqprop_jax.systems._sizes import check_feedback, for_each, positive
from eqprop_jax.types import System

PADDINGS = ('SAME', 'VALID')


def conv(
    image_shape: Sequence[int],
    channels: Sequence[int],
    *,
    kernels: int | Sequence[int] = 3,
    paddings: str | Sequence[str] = 'SAME',
    pooling: str | Sequence[str | None] | None = 'softmax',
    hidden: Sequence[int] = (),
    classes: int,
    feedback: str = 'tied',
    angle: float | None = None,
    activation: Activations = 'dsilu',
    cost: str | CostFunction = 'cross_entropy',
    dropout: float = 0.0,
    temperature: float = 1.0,
    gain: float | Sequence[float] = 1.0,
) -> System:
    """A convolutional network that settles under forward and feedback synapses.

    Each convolution has stride 1 and is followed by its pooling. Dense layers of
    `hidden` units come next; then, with the cross-entropy, a softmax readout outside
    the system, with other costs a dense layer of `classes` output units. Odd and
    even layers form the two blocks that an alternating solver updates in turn.

    Args:
      image_shape: height, width and channels of an input.
      channels: of each convolution, from bottom to top; at least one.
      kernels: height and width of its kernel, one for all or one for each.
      paddings: 'SAME' or 'VALID', one for all or one for each.
      pooling: 'softmax' (holomorphic), 'max' (real nudges only; tied, see above) or
        None, in windows of 2 × 2 with stride 2; one for all or one for each.
      hidden: sizes of the dense layers.
      classes: number of classes.
      feedback: 'tied' or 'free'.
      angle: for free feedback, the angle in degrees (0 to 180) between B_l and W_l at
        initialisation, at equal norm; None draws B_l independently. A network of one
        layer has no B.
      activation: as in `mlp`.
      cost: as in `mlp`.
      dropout: fraction of the last layer's units that the softmax readout does not see
        in training, drawn for each example; 0 to below 1.
      temperature: T of the softmax pooling, positive, in units of the potential.
      gain: what kernels are drawn with, one for all settling layers or one for each:
        their standard deviation is gain/√(fan in); positive.

    Returns:
      The system, with layers 'layer_1', 'layer_2', ... of shape [B, h, w, n] or [B, n],
      and params {'layer_1': {'kernel', 'bias'}, 'layer_2': {'kernel', 'bias',
      'feedback'}, ..., 'readout': {'kernel', 'bias'}}: free feedback is kept with the
      layer it comes from, beside the kernel that it is paired with.

    Raises:
      ValueError: for an unknown name, a size that is no positive integer, lists of
        different length, a kernel larger than its map, a map of odd size to be pooled,
        a temperature, a dropout or a gain out of range, or an angle without free
        feedback or outside 0 to 180.
    """
    check_feedback(feedback, angle)
    of = costs.get(cost)
    check_dropout(dropout, of)
    (classes,) = positive('classes', (classes,))
    channels, hidden = positive('channels', channels), positive('hidden', hidden)
    poolings = for_each('pooling', pooling, len(channels))
    after = hidden if of.readout else (*hidden, classes)
    layers = _stack(
        image_shape, channels, kernels, paddings, poolings, after, temperature, gain
    )
    last = layers[-1]
    read = Readout(last.name, math.prod(last.shape), classes, of, dropout=dropout)
    back = chain.between(layers, feedback == 'tied', angle)
    system = chain.network(layers, back, chain.parities(layers), activation, read)
    system = system._replace(
        holomorphic=system.holomorphic and 'max' not in poolings,
        affine=not any(poolings[1:]),
    )
    return with_dropout(system, read)


def _stack(
    image_shape: Sequence[int],
    channels: tuple[int, ...],
    kernels: int | Sequence[int],
    paddings: str | Sequence[str],
    poolings: tuple[str | None, ...],
    after: tuple[int, ...],
    temperature: float,
    gain: float | Sequence[float],
) -> tuple[Layer, ...]:
    """Returns the layers, the dense ones of sizes `after` behind the convolutions."""
    below = positive('image_shape', image_shape)
    if len(below) != 3:
        raise ValueError(f'image_shape is (height, width, channels), not {below}')
    count = len(channels)
    if not count:
        raise ValueError('channels is empty: give those of at least one convolution')
    kernels = positive('kernels', for_each('kernels', kernels, count))
    paddings = for_each('paddings', paddings, count)
    gains = for_each('gain', gain, count + len(after), 'layers')
    if not all(0 < value < math.inf for value in gains):
        raise ValueError(f'gain has to be positive and finite, not {gain}')
    layers = []
    for key, size in enumerate((*channels, *after)):
        name = f'layer_{key + 1}'
        if key < count:
            options = kernels[key], paddings[key], poolings[key], temperature
            layer = _convolution(name, key, below, size, *options)
        else:
            layer = chain.dense(name, key, below, size)
        layers.append(layer._replace(draw=_scaled(gains[key])))
        below = layer.shape
    return tuple(layers)


def _scaled(gain: float) -> Draw:
    def draw(rng: jax.Array, shape: tuple[int, ...], dtype: Any) -> Array:
        return gain * chain.LECUN(rng, shape, dtype)

    return draw


def _convolution(
    name: str,
    key: int,
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
            f'a kernel of {size} x {size} is larger than the map of {rows} x {columns} '
            f'below {name}: take a smaller kernel, or fewer layers or poolings below it'
        )
    lost = size - 1 if padding == 'VALID' else 0
    height, width = (extent - lost for extent in image)
    if pooling is not None:
        if height % pools.WINDOW or width % pools.WINDOW:
            raise ValueError(
                f'{name} has a map of {height} x {width}, which windows of 2 x 2 do '
                'not divide: change image_shape, its kernel or its padding, or set '
                'its pooling to None'
            )
        height, width = height // pools.WINDOW, width // pools.WINDOW
    return Layer(
        name,
        key,
        below,
        kernel=(size, size, features, channels),
        shape=(height, width, channels),
        forward=lambda s, kernel: linear.conv(s, kernel, padding),
        backward=lambda r, kernel: linear.conv_transpose(r, kernel, image, padding),
        pool=pools.get(pooling, temperature),
    )
