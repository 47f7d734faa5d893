"""Chains of layers with synapses back, of which most networks are made.

    D_l = P(z_l) + Σ_k (P′(z_k)ᵀ s_k) B_{l←k}        z_l = s_{l−1} W_l + b_l,  s_0 = x

with P the pooling, if there is one, and products that may be convolutions. A map z is
computed once: pooling, and what goes back through it, share it.
"""

import functools
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.linen import initializers
from jax.typing import ArrayLike
from jaxtyping import Array, Inexact

from eqprop_jax import linear, tree
from eqprop_jax.systems import _activations as activations
from eqprop_jax.systems import _pooling as pooling
from eqprop_jax.systems._activations import Activations
from eqprop_jax.systems._pooling import Pooled, Pooling
from eqprop_jax.systems._readout import Readout
from eqprop_jax.types import Pair, Params, Path, Rates, State, System

Draw = Callable[[jax.Array, tuple[int, ...], Any], Array]
"""(key, shape, dtype) -> weights."""
LECUN = initializers.lecun_normal()
"""Normal weights of the variance 1 / fan in."""


class Layer(NamedTuple):
    """Units, and the synapses to them from the layer below."""

    name: str
    key: int
    """Its number from the bottom, folded into the key that its kernel is drawn with."""
    below: tuple[int, ...]
    """Shape of what is below it, of one example."""
    kernel: tuple[int, ...]
    """[h, w, m, n] of a convolution, [m, n] of a dense layer."""
    shape: tuple[int, ...]
    """Of its units, of one example: [h, w, n], or [n]."""
    forward: Callable[[Inexact[Array, 'B ...'], Array], Array]
    """(rates below, kernel) ↦ z without the bias."""
    backward: Callable[[Array, Array], Inexact[Array, 'B ...']]
    """(what is on the map z, kernel) ↦ its transpose, shaped like the rates below."""
    pool: Pooling = pooling.get(None)
    """z ↦ P(z) and the gate P′(z)."""
    draw: Draw = LECUN
    """How its weights start."""

    def receive(self, params: Params, below: Array) -> Array:
        """Returns z."""
        own = params[self.name]
        z = self.forward(below, own['kernel'])
        return z + own['bias'].reshape((1,) * (z.ndim - 1) + (-1,))


class Feedback(NamedTuple):
    """A synapse back to a layer from one above it."""

    source: Layer
    target: Layer
    key: int
    """Folded into the key that its weights are drawn with."""
    tied: bool
    """Whether its weights are the source's kernel; else they are its own."""
    to_target: bool = False
    """Whether they are kept with the target, [n_source, n_target], as those of a dense
    layer are; else with the source, in the shape of its kernel."""
    angle: float | None = None
    """Degrees from the source's kernel at which they start; None: independent of it."""

    @property
    def path(self) -> Path:
        """Where its weights are in the params."""
        if self.tied:
            return self.source.name, 'kernel'
        return (self.target if self.to_target else self.source).name, 'feedback'

    def start(self, rng: jax.Array, kernel: Array) -> Array:
        """Returns weights of its own, given the source's kernel."""
        reference, shape = kernel, kernel.shape
        if self.to_target:
            reference, shape = kernel.T, self.source.shape + self.target.shape
        if self.angle is None:
            return self.source.draw(rng, shape, kernel.dtype)
        return linear.rotate(rng, reference, self.angle)

    def receive(self, params: Params, sent: Array) -> Array:
        """Returns its part of the target's drive."""
        weights = tree.get(params, self.path)
        product = linear.dense if self.to_target else self.source.backward
        return product(sent, weights)


def dense(name: str, key: int, below: tuple[int, ...], size: int) -> Layer:
    """Returns a layer of `size` units, each of which sees all that is below."""

    def forward(s: Array, kernel: Array) -> Array:
        return linear.dense(s.reshape(s.shape[0], -1), kernel)

    def backward(r: Array, kernel: Array) -> Array:
        return linear.dense_transpose(r, kernel).reshape(r.shape[0], *below)

    kernel = (math.prod(below), size)
    return Layer(name, key, below, kernel, (size,), forward, backward)


def between(
    layers: Sequence[Layer], tied: bool, angle: float | None, *, to_target: bool = False
) -> tuple[Feedback, ...]:
    """Returns the synapse from each layer to the one below it."""
    return tuple(
        Feedback(above, layer, layer.key, tied, to_target, angle)
        for layer, above in itertools.pairwise(layers)
    )


def parities(layers: Sequence[Layer]) -> tuple[tuple[str, ...], ...]:
    """Returns odd and even layers as blocks: layers of a chain see their neighbours."""
    names = tuple(layer.name for layer in layers)
    return tuple(block for block in (names[::2], names[1::2]) if block)


def pairs(feedback: Sequence[Feedback]) -> tuple[Pair, ...]:
    """Returns the weights of neighbours, which Kolen–Pollack ties."""
    return tuple(
        ((back.source.name, 'kernel'), back.path, back.to_target)
        for back in feedback
        if not back.tied and back.source.key == back.target.key + 1
    )


def initializer(
    layers: Sequence[Layer], feedback: Sequence[Feedback], read: Readout
) -> Callable[[jax.Array, ArrayLike], Params]:
    """Returns (rng, x) ↦ parameters, whose biases are 0."""

    def init(rng: jax.Array, x: ArrayLike) -> Params:
        dtype = as_input(x, layers[0], float).dtype
        forward_rng, feedback_rng, readout_rng = jax.random.split(rng, 3)
        params = {}
        for layer in layers:
            key = jax.random.fold_in(forward_rng, layer.key)
            params[layer.name] = {
                'kernel': layer.draw(key, layer.kernel, dtype),
                'bias': jnp.zeros(layer.kernel[-1:], dtype),
            }
        for back in feedback:
            if not back.tied:
                key = jax.random.fold_in(feedback_rng, back.key)
                name, entry = back.path
                kernel = params[back.source.name]['kernel']
                params[name][entry] = back.start(key, kernel)
        return params | read.init(readout_rng, dtype)

    return init


def network(
    layers: Sequence[Layer],
    feedback: Sequence[Feedback],
    blocks: tuple[tuple[str, ...], ...],
    activation: Activations,
    read: Readout,
) -> System:
    """Returns the system of a chain of layers, from bottom to top, with its feedback.

    What it says of itself (`holomorphic`, `affine`) is right where nothing is pooled.
    """
    sigmas = activations.of_layers(activation, [layer.name for layer in layers])
    first, *others = layers

    def inject(params: Params, x: ArrayLike) -> Array:
        x = as_input(x, first, params[first.name]['kernel'])
        return first.pool(first.receive(params, x)).values

    def rest(injection: Array) -> State:
        return {
            layer.name: jnp.zeros((injection.shape[0], *layer.shape), injection.dtype)
            for layer in layers
        }

    def forward(params: Params, injection: Array, rates: Rates) -> dict[str, Pooled]:
        """Returns what every layer receives from below."""
        start = injection + jnp.zeros_like(rates[first.name])
        pooled = {first.name: Pooled(start, None)}
        for below, layer in itertools.pairwise(layers):
            pooled[layer.name] = layer.pool(layer.receive(params, rates[below.name]))
        return pooled

    def drive(params: Params, injection: Array, rates: Rates) -> State:
        pooled = forward(params, injection, rates)
        state = {name: map_.values for name, map_ in pooled.items()}
        for back in feedback:
            sent = pooled[back.source.name].unpool(rates[back.source.name])
            state[back.target.name] += back.receive(params, sent)
        return state

    def primitive(params: Params, x: Array, rates: Rates) -> Array:
        pooled = forward(params, inject(params, x), rates)
        products = [rates[name] * map_.values for name, map_ in pooled.items()]
        sums = [jnp.sum(p.reshape(p.shape[0], -1), axis=1) for p in products]
        return functools.reduce(operator.add, sums)

    symmetric = len(feedback) == len(others) and all(back.tied for back in feedback)
    return System(
        init=initializer(layers, feedback, read),
        inject=inject,
        rest=rest,
        rates=lambda state: {name: sigmas[name].fn(u) for name, u in state.items()},
        drive=drive,
        cost=read.cost,
        predict=read.predict,
        blocks=blocks,
        pairs=pairs(feedback),
        holomorphic=read.of.analytic
        and all(sigma.holomorphic for sigma in sigmas.values()),
        primitive=primitive if symmetric else None,
        affine=True,
    )


def as_input(x: ArrayLike, first: Layer, other: Any) -> Array:
    """Returns inputs as an array, in the type that they and another have in common.

    A dense layer takes them in any shape of as many entries.
    """
    x = jnp.asarray(x)
    shape = x.shape[1:]
    if len(first.below) > 1 and shape != first.below:
        raise ValueError(
            f'an input of shape {shape} does not fit image_shape={first.below} '
            '(height, width, channels)'
        )
    if math.prod(shape) != math.prod(first.below):
        raise ValueError(
            f'an input of shape {shape} has {math.prod(shape)} entries, but the '
            f'first size of the network is {first.below[0]}'
        )
    return x.astype(jnp.result_type(x, other))
