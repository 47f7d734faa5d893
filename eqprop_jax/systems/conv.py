"""Convergent convolutional networks: convolutions, pooling, and dense layers behind.

    z_l = s_{l−1} ∗ W_l + b_l        D_l = P(z_l) + (P′(z_{l+1})ᵀ s_{l+1}) ∗ᵀ B_{l+1}

with s_0 = x, P the pooling (the identity for dense layers, whose ∗ is the matrix
product) and ∗ᵀ the transpose of the convolution. A map is convolved once: its pooling
and its unpooling share z.

    feedback   B_l
    tied       W_l            energy-based: Φ = Σ_l s_l · P(z_l)
    free       own kernels    a vector field; paired with W_l for Kolen–Pollack

With free feedback, too, the gate P′(z) is that of the forward kernels, so that an angle
of 0 is the tied network. Where the gate depends on z (softmax) layers feed themselves
through it, a little, and J depends on the rates.

References:
  Ernoult et al. 2019, https://arxiv.org/abs/1905.13633
  Laborieux et al. 2021 (max-pooling, untied), https://arxiv.org/abs/2006.03824
  Laborieux and Zenke 2022 (softmax pooling), https://arxiv.org/abs/2209.00530
  Laborieux and Zenke 2024 (untied, holomorphic), https://arxiv.org/abs/2309.02214
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.linen import initializers
from jax.typing import ArrayLike
from jaxtyping import Array, Inexact

from eqprop_jax import linear
from eqprop_jax.systems import activations, costs, dense
from eqprop_jax.systems import pooling as pools
from eqprop_jax.systems.activations import Activation
from eqprop_jax.systems.pooling import Pooling
from eqprop_jax.systems.readout import Readout, check_dropout, with_dropout
from eqprop_jax.types import Params, Rates, State, System

FEEDBACK = ('tied', 'free')
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
    activation: str | Activation = 'dsilu',
    cost: str = 'cross_entropy',
    dropout: float = 0.0,
    temperature: float = 1.0,
) -> System:
    """A convolutional network that settles under forward and feedback synapses.

    Each convolution has stride 1 and is followed by its pooling. Dense layers of
    `hidden` units come next; then, with the squared error, a dense layer of `classes`
    output units, with the cross-entropy a softmax readout outside the system. Odd and
    even layers form the two blocks that an alternating solver updates in turn.

    Args:
      image_shape: height, width and channels of an input.
      channels: of each convolution, from bottom to top; at least one.
      kernels: height and width of its kernel, one for all or one for each.
      paddings: 'SAME' or 'VALID', one for all or one for each.
      pooling: 'softmax' (holomorphic), 'max' (real nudges only) or None, in windows of
        2 × 2 with stride 2; one for all or one for each.
      hidden: sizes of the dense layers.
      classes: number of classes.
      feedback: 'tied' or 'free'.
      angle: for free feedback, the angle in degrees (0 to 180) between B_l and W_l at
        initialisation, at equal norm; None draws B_l independently.
      activation: name of σ, see `activations`, or an `Activation`.
      cost: 'cross_entropy' or 'squared_error'.
      dropout: fraction of the last layer's units that the softmax readout does not see
        in training, drawn for each example; 0 to below 1.
      temperature: T of the softmax pooling, positive, in units of the potential.

    Returns:
      The system, with layers 'layer_1', 'layer_2', ... of shape [B, h, w, n] or [B, n],
      and params {'layer_1': {'kernel', 'bias'}, 'layer_2': {'kernel', 'bias',
      'feedback'}, ..., 'readout': {'kernel', 'bias'}}: free feedback is kept with the
      layer it comes from, beside the kernel that it is paired with.

    Raises:
      ValueError: for an unknown name, a size that is no positive integer, lists of
        different length, a kernel larger than its map, a map of odd size to be pooled,
        a temperature or a dropout out of range, or an angle without free feedback or
        outside 0 to 180.
    """
    if feedback not in FEEDBACK:
        raise ValueError(f'no feedback {feedback!r}; choose from {", ".join(FEEDBACK)}')
    dense.check_angle(angle, feedback)
    costs.check(cost)
    check_dropout(dropout, cost)
    count = len(channels)
    sizes = _for_each('kernels', kernels, int, count)
    _check_sizes(image_shape, channels, sizes, hidden, classes)
    output = (classes,) if cost == 'squared_error' else ()
    layers = _layers(
        tuple(image_shape),
        tuple(channels),
        sizes,
        _for_each('paddings', paddings, str, count),
        _for_each('pooling', pooling, str, count),
        (*hidden, *output),
        temperature,
    )
    last = layers[-1]
    read = Readout(
        last.name,
        math.prod(last.shape),
        classes,
        cost == 'cross_entropy',
        dropout=dropout,
    )
    return _network(tuple(image_shape), layers, read, feedback, angle, activation)


def _network(
    image_shape: tuple[int, ...],
    layers: tuple[Layer, ...],
    read: Readout,
    feedback: str,
    angle: float | None,
    activation: str | Activation,
) -> System:
    sigma = activations.get(activation)
    first, *others = layers
    free = feedback == 'free'
    kernel_init = initializers.lecun_normal()

    def init(rng: jax.Array, x: ArrayLike) -> Params:
        x = as_input(x)
        dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else None
        forward_rng, feedback_rng, readout_rng = jax.random.split(rng, 3)
        params = {
            layer.name: {
                'kernel': kernel_init(
                    jax.random.fold_in(forward_rng, index), layer.kernel, dtype
                ),
                'bias': jnp.zeros(layer.kernel[-1:], dtype),
            }
            for index, layer in enumerate(layers)
        }
        for index, layer in enumerate(others if free else ()):
            key, own = jax.random.fold_in(feedback_rng, index), params[layer.name]
            own['feedback'] = (
                kernel_init(key, layer.kernel, dtype)
                if angle is None
                else linear.rotate(key, own['kernel'], angle)
            )
        return params | read.init(readout_rng, dtype)

    def on_map(params: Params, layer: Layer, below: Array) -> Array:
        """Returns z."""
        own = params[layer.name]
        z = layer.forward(below, own['kernel'])
        return z + own['bias'].reshape((1,) * (z.ndim - 1) + (-1,))

    def inject(params: Params, x: ArrayLike) -> Array:
        return first.pool(on_map(params, first, as_input(x))).values

    def rest(injection: Array) -> State:
        return {
            layer.name: jnp.zeros((injection.shape[0], *layer.shape), injection.dtype)
            for layer in layers
        }

    def rates(state: State) -> Rates:
        return {name: sigma.fn(u) for name, u in state.items()}

    def drive(params: Params, injection: Array, rates: Rates) -> State:
        state = {first.name: injection + jnp.zeros_like(rates[first.name])}
        for below, layer in itertools.pairwise(layers):
            pooled = layer.pool(on_map(params, layer, rates[below.name]))
            state[layer.name] = pooled.values
            weights = params[layer.name]['feedback' if free else 'kernel']
            gated = pooled.unpool(rates[layer.name])
            state[below.name] += layer.backward(gated, weights)
        return state

    def primitive(params: Params, x: Array, rates: Rates) -> Array:
        pooled = inject(params, x)
        phi = jnp.zeros((), pooled.dtype)
        for layer, above in itertools.zip_longest(layers, others):
            product = rates[layer.name] * pooled
            phi += jnp.sum(product.reshape(product.shape[0], -1), axis=1)
            if above is not None:
                pooled = above.pool(on_map(params, above, rates[layer.name])).values
        return phi

    def as_input(x: ArrayLike) -> Array:
        x = jnp.asarray(x)
        if x.shape[1:] != image_shape:
            raise ValueError(
                f'an input of shape {x.shape[1:]} does not fit '
                f'image_shape={image_shape} (height, width, channels)'
            )
        return x

    names = [layer.name for layer in layers]
    system = System(
        init=init,
        inject=inject,
        rest=rest,
        rates=rates,
        drive=drive,
        cost=read.cost,
        predict=read.predict,
        blocks=tuple(tuple(block) for block in (names[::2], names[1::2]) if block),
        pairs=tuple(
            ((layer.name, 'kernel'), (layer.name, 'feedback'), False)
            for layer in (others if free else ())
        ),
        holomorphic=sigma.holomorphic
        and not any(layer.pooling == 'max' for layer in layers),
        primitive=None if free and others else primitive,
        affine=not any(layer.pooling for layer in others),
    )
    return with_dropout(system, read)


def _layers(
    shape: tuple[int, ...],
    channels: tuple[int, ...],
    kernels: tuple[int, ...],
    paddings: tuple[str, ...],
    poolings: tuple[str | None, ...],
    after: tuple[int, ...],
    temperature: float,
) -> tuple[Layer, ...]:
    """Returns the layers from bottom to top, each checked against the one below."""
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


def _for_each(name: str, value: Any, kind: Any, count: int) -> tuple[Any, ...]:
    """Returns one value for each convolution, from one for all or from a list."""
    if value is None or isinstance(value, kind):
        return (value,) * count
    values = tuple(value)
    if len(values) != count:
        raise ValueError(
            f'{name}={values} has {len(values)} entries for {count} convolutions: give '
            'one for each, or one for all'
        )
    return values


def _check_sizes(
    image_shape: Sequence[int],
    channels: Sequence[int],
    kernels: Sequence[int],
    hidden: Sequence[int],
    classes: int,
) -> None:
    if len(image_shape) != 3:
        raise ValueError(
            f'image_shape is (height, width, channels), not {tuple(image_shape)}'
        )
    if not channels:
        raise ValueError('channels is empty: give those of at least one convolution')
    for name, values in (
        ('image_shape', image_shape),
        ('channels', channels),
        ('kernels', kernels),
        ('hidden', hidden),
        ('classes', (classes,)),
    ):
        for value in values:
            if int(value) != value or value < 1:
                raise ValueError(
                    f'{name} holds positive integers, not {value} in {tuple(values)}'
                )
