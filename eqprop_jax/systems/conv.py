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

The gate of the maximum jumps from unit to unit of a window. With tied feedback Φ stays
continuous; with feedback of its own the jump can be back and forth at any step size,
and examples where it is have no equilibrium. The gate of the softmax is continuous.

References:
  Ernoult et al. 2019, https://arxiv.org/abs/1905.13633
  Laborieux et al. 2021 (max-pooling, untied), https://arxiv.org/abs/2006.03824
  Laborieux and Zenke 2022 (softmax pooling), https://arxiv.org/abs/2209.00530
  Laborieux and Zenke 2024 (untied, holomorphic), https://arxiv.org/abs/2309.02214
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.linen import initializers
from jax.typing import ArrayLike
from jaxtyping import Array

from eqprop_jax import linear
from eqprop_jax.systems import activations, costs, dense
from eqprop_jax.systems.activations import Activation
from eqprop_jax.systems.conv_layers import Layer, for_each, stack
from eqprop_jax.systems.readout import Readout, check_dropout, with_dropout
from eqprop_jax.systems.sizes import positive
from eqprop_jax.types import Params, Rates, State, System

FEEDBACK = ('tied', 'free')


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
    gain: float | Sequence[float] = 1.0,
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
      pooling: 'softmax' (holomorphic), 'max' (real nudges only; tied, see above) or
        None, in windows of 2 × 2 with stride 2; one for all or one for each.
      hidden: sizes of the dense layers.
      classes: number of classes.
      feedback: 'tied' or 'free'.
      angle: for free feedback, the angle in degrees (0 to 180) between B_l and W_l at
        initialisation, at equal norm; None draws B_l independently. A network of one
        layer has no B.
      activation: name of σ, see `activations`, or an `Activation`.
      cost: 'cross_entropy' or 'squared_error'.
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
    if feedback not in FEEDBACK:
        raise ValueError(f'no feedback {feedback!r}; choose from {", ".join(FEEDBACK)}')
    dense.check_angle(angle, feedback)
    costs.check(cost)
    check_dropout(dropout, cost)
    shape = positive('image_shape', image_shape)
    if len(shape) != 3:
        raise ValueError(f'image_shape is (height, width, channels), not {shape}')
    channels, hidden = positive('channels', channels), positive('hidden', hidden)
    if not channels:
        raise ValueError('channels is empty: give those of at least one convolution')
    (classes,) = positive('classes', (classes,))
    count = len(channels)
    layers = stack(
        shape,
        channels,
        positive('kernels', for_each('kernels', kernels, count)),
        for_each('paddings', paddings, count),
        for_each('pooling', pooling, count),
        (*hidden, classes) if cost == 'squared_error' else hidden,
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
    gains = for_each('gain', gain, len(layers), 'layers')
    if not all(0 < value < math.inf for value in gains):
        raise ValueError(f'gain has to be positive and finite, not {gain}')
    return _network(shape, layers, read, feedback, angle, activation, gains)


def _network(
    image_shape: tuple[int, ...],
    layers: tuple[Layer, ...],
    read: Readout,
    feedback: str,
    angle: float | None,
    activation: str | Activation,
    gains: tuple[float, ...],
) -> System:
    sigma = activations.get(activation)
    first, *others = layers
    free = feedback == 'free'
    lecun = initializers.lecun_normal()

    def drawn(rng: jax.Array, index: int, dtype: Any) -> Array:
        key = jax.random.fold_in(rng, index)
        return gains[index] * lecun(key, layers[index].kernel, dtype)

    def init(rng: jax.Array, x: ArrayLike) -> Params:
        dtype = as_input(x, float).dtype
        forward_rng, feedback_rng, readout_rng = jax.random.split(rng, 3)
        params = {
            layer.name: {
                'kernel': drawn(forward_rng, index, dtype),
                'bias': jnp.zeros(layer.kernel[-1:], dtype),
            }
            for index, layer in enumerate(layers)
        }
        for index, layer in enumerate(others if free else ()):
            key, own = jax.random.fold_in(feedback_rng, index), params[layer.name]
            own['feedback'] = (
                gains[index + 1] * lecun(key, layer.kernel, dtype)
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
        x = as_input(x, params[first.name]['kernel'])
        return first.pool(on_map(params, first, x)).values

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

    def as_input(x: ArrayLike, other: Any) -> Array:
        x = jnp.asarray(x)
        if x.shape[1:] != image_shape:
            raise ValueError(
                f'an input of shape {x.shape[1:]} does not fit '
                f'image_shape={image_shape} (height, width, channels)'
            )
        return x.astype(jnp.result_type(x, other))

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
