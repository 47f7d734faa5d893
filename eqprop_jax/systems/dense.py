"""Networks of dense layers: a feed-forward chain and any set of feedback synapses.

    D_l = s_{l−1} W_l + b_l + Σ_k s_k B_{l←k}        s_0 = x

`layered` and `loop` choose the feedback. Parameters:

    {'layer_1': {'kernel': [n_0, n_1], 'bias': [n_1], 'feedback': [n_k, n_1]}, ...,
     'readout': {'kernel': [n_L, classes], 'bias': [classes]}}      (cross-entropy only)
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.linen import initializers
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from eqprop_jax import linear
from eqprop_jax.systems import activations, costs
from eqprop_jax.systems.readout import Readout
from eqprop_jax.systems.sizes import positive
from eqprop_jax.types import Pair, Params, Rates, State, System


class Feedback(NamedTuple):
    """A synapse back to a layer, from a layer at or above it."""

    source: int
    """Index of the layer it comes from."""
    tied: bool = False
    """Whether it is the transpose of the source's kernel; else it is free."""
    angle: float | None = None
    """Angle to that transpose at which a free one starts; None: independent of it."""


class Shape(NamedTuple):
    """The sizes of a dense network, told apart."""

    inputs: int
    layers: tuple[int, ...]
    classes: int
    readout: bool

    def name(self, index: int) -> str:
        """Returns the name of the layer with index 1, 2, ..."""
        return f'layer_{index}'

    @property
    def last(self) -> str:
        """The name of the layer that the cost reads."""
        return self.name(len(self.layers))


def shape(sizes: Sequence[int], cost: str, classes: int | None) -> Shape:
    """Tells inputs, settling layers and readout apart.

    With the squared error every size after the first settles. With the cross-entropy
    the last size is the readout, outside the system; if `classes` is given, all sizes
    after the first settle and a readout of that many classes stands behind them.

    Raises:
      ValueError: if a size is no positive integer, or there are too few of them.
    """
    costs.check(cost)
    inputs, *layers = positive('sizes', sizes) or (0,)
    if classes is not None:
        (classes,) = positive('classes', (classes,))
    if cost == 'squared_error':
        if classes not in (None, layers[-1] if layers else None):
            raise ValueError(
                f'with the squared error the last size is the number of classes: '
                f'sizes={tuple(sizes)} contradicts classes={classes}'
            )
    elif classes is None:
        layers, classes = layers[:-1], layers[-1] if layers else None
    if not layers:
        raise ValueError(
            f'sizes={tuple(sizes)} with cost={cost!r} leaves no layer that settles: '
            'give at least (inputs, hidden, classes)'
        )
    return Shape(inputs, tuple(layers), classes or layers[-1], cost != 'squared_error')


def check_angle(angle: float | None, feedback: str) -> None:
    """Raises ValueError unless an angle is in range and there is feedback to turn."""
    if angle is None:
        return
    if feedback != 'free':
        raise ValueError(
            f'angle={angle} needs feedback of its own: set feedback="free" '
            f'instead of {feedback!r}, or leave the angle out'
        )
    if not 0 <= angle <= 180:
        raise ValueError(f'an angle lies between 0 and 180 degrees, not {angle}')


def chain_feedback(
    shape: Shape, *, tied: bool, angle: float | None
) -> dict[int, Feedback]:
    """Returns the synapse from each layer to the one below it."""
    return {
        index: Feedback(index + 1, tied, angle) for index in range(1, len(shape.layers))
    }


def parities(shape: Shape) -> tuple[tuple[str, ...], ...]:
    """Returns odd and even layers as blocks: layers of a chain see their neighbours."""
    names = [shape.name(index + 1) for index in range(len(shape.layers))]
    return tuple(tuple(block) for block in (names[::2], names[1::2]) if block)


def network(
    shape: Shape,
    feedback: Mapping[int, Feedback],
    blocks: tuple[tuple[str, ...], ...],
    activation: str | activations.Activation,
    kernel_init: Callable[..., Array] | None = None,
    forward_scale: float = 1.0,
) -> System:
    """Returns the system of a feed-forward chain with the given feedback.

    Args:
      shape: sizes, from `shape`.
      feedback: for the index of a layer, the synapse back to it.
      blocks: layers updated together.
      activation: σ.
      kernel_init: (rng, shape, dtype) -> weights, forward and feedback; None: normal
        ones with the variance 1 / fan in (LeCun).
      forward_scale: of the forward weights above the first layer, once those of the
        feedback are drawn.
    """
    draw = kernel_init or initializers.lecun_normal()
    sigma = activations.get(activation)
    names = [shape.name(index + 1) for index in range(len(shape.layers))]
    fan_in = (shape.inputs, *shape.layers)
    read = Readout(shape.last, shape.layers[-1], shape.classes, shape.readout)

    def init(rng: jax.Array, x: ArrayLike) -> Params:
        dtype = as_input(x, shape, float).dtype
        forward_rng, feedback_rng, readout_rng = jax.random.split(rng, 3)
        params = {
            name: {
                'kernel': draw(jax.random.fold_in(forward_rng, index), (m, n), dtype),
                'bias': jnp.zeros((n,), dtype),
            }
            for index, (name, m, n) in enumerate(
                zip(names, fan_in, shape.layers, strict=False), start=1
            )
        }
        for index, (source, tied, angle) in feedback.items():
            key = jax.random.fold_in(feedback_rng, index)
            if tied:
                continue
            if angle is None:
                sizes = (shape.layers[source - 1], shape.layers[index - 1])
                weights = draw(key, sizes, dtype)
            else:
                weights = linear.rotate(
                    key, params[shape.name(source)]['kernel'].T, angle
                )
            params[shape.name(index)]['feedback'] = weights
        for name in names[1:]:
            params[name]['kernel'] *= forward_scale
        return params | read.init(readout_rng, dtype)

    def inject(params: Params, x: ArrayLike) -> Float[Array, 'B n']:
        first = params[names[0]]
        x = as_input(x, shape, first['kernel'])
        forward = linear.dense(x.reshape(x.shape[0], -1), first['kernel'])
        return forward + first['bias'][None]

    def rest(injection: Float[Array, 'B n']) -> State:
        return {
            name: jnp.zeros((injection.shape[0], size), injection.dtype)
            for name, size in zip(names, shape.layers, strict=True)
        }

    def rates(state: State) -> Rates:
        return {name: sigma.fn(u) for name, u in state.items()}

    def layer_drive(
        params: Params, injection: Array, rates: Rates, index: int
    ) -> Array:
        name = shape.name(index)
        if index == 1:
            drive = injection
        else:
            below = rates[shape.name(index - 1)]
            drive = linear.dense(below, params[name]['kernel'])
            drive += params[name]['bias'][None]
        if index not in feedback:
            return drive + jnp.zeros_like(rates[name])
        source, tied, _ = feedback[index]
        above = rates[shape.name(source)]
        if tied:
            kernel = params[shape.name(source)]['kernel']
            return drive + linear.dense_transpose(above, kernel)
        return drive + linear.dense(above, params[name]['feedback'])

    def drive(params: Params, injection: Array, rates: Rates) -> State:
        return {
            name: layer_drive(params, injection, rates, index)
            for index, name in enumerate(names, start=1)
        }

    def primitive(params: Params, x: Array, rates: Rates) -> Array:
        injection = inject(params, x)
        phi = jnp.sum(rates[names[0]] * injection, axis=-1)
        for below, name in itertools.pairwise(names):
            forward = linear.dense(rates[below], params[name]['kernel'])
            phi += jnp.sum(
                rates[name] * (forward + params[name]['bias'][None]), axis=-1
            )
        return phi

    return System(
        init=init,
        inject=inject,
        rest=rest,
        rates=rates,
        drive=drive,
        cost=read.cost,
        predict=read.predict,
        blocks=blocks,
        pairs=_pairs(shape, feedback),
        holomorphic=sigma.holomorphic,
        primitive=primitive if _symmetric(shape, feedback) else None,
        affine=True,
    )


def as_input(x: ArrayLike, shape: Shape, other: Any) -> Array:
    """Returns inputs as an array, in the type that they and another have in common.

    Raises:
      ValueError: unless they fit the first size.
    """
    x = jnp.asarray(x)
    x = x.astype(jnp.result_type(x, other))
    features = int(np.prod(x.shape[1:]))
    if features != shape.inputs:
        raise ValueError(
            f'an input of shape {x.shape[1:]} has {features} entries, but the '
            f'first size of the network is {shape.inputs}'
        )
    return x


def _pairs(shape: Shape, feedback: Mapping[int, Feedback]) -> tuple[Pair, ...]:
    return tuple(
        ((shape.name(source), 'kernel'), (shape.name(index), 'feedback'), True)
        for index, (source, tied, _) in feedback.items()
        if not tied and source == index + 1
    )


def _symmetric(shape: Shape, feedback: Mapping[int, Feedback]) -> bool:
    """Whether J is symmetric by construction: every synapse has its transpose."""
    return all(
        index in feedback and feedback[index].tied
        for index in range(1, len(shape.layers))
    )
