"""Predictive coding networks: values, and the errors of their prediction from below.

    dx_l/dt = −e_l + f′(x_l) ⊙ (e_{l+1} B_{l+1})        value neurons
    de_l/dt = x_l − f(x_{l−1}) W_l − b_l − e_l          error neurons

with f(x_0) the input. Both are potentials: σ is the identity. Without a nudge no error
is left, e* = 0, and the values are those of the feed-forward network, which is where
the free phase starts. Under a nudge the errors carry the credit down.

    feedback   B_l
    tied       W_lᵀ           J is symmetric up to the signs of the layers (below)
    free       own weights    paired with W_l, from any angle, for Kolen–Pollack too

Symmetry up to signs: with ς = 1 for values and −1 for errors, ς ⊙ J is symmetric if
B = Wᵀ, and as asymmetric as the weights if not. The exact adjoint of a tied network is
ς times the response of the dynamics, which is what a nudge measures: the errors enter
the gradient with the opposite sign (`System.signature`). At e* = 0 it is the gradient
of backpropagation through the feed-forward network, whatever its depth. Homeostasis and
the symmetric share are those of ς ⊙ J.

References:
  Whittington and Bogacz 2017, https://doi.org/10.1162/NECO_a_00949
  Laborieux and Zenke 2024, Fig. 5, https://arxiv.org/abs/2309.02214
"""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax.linen import initializers
from jax.typing import ArrayLike
from jaxtyping import Array

from eqprop_jax import linear
from eqprop_jax.systems import activations, dense
from eqprop_jax.systems.activations import Activation
from eqprop_jax.systems.readout import Readout
from eqprop_jax.types import Injection, Params, Rates, State, System

FEEDBACK = ('tied', 'free')


def predictive_coding(
    sizes: Sequence[int],
    *,
    feedback: str = 'tied',
    angle: float | None = None,
    activation: str | Activation = 'tanh',
    cost: str = 'cross_entropy',
    classes: int | None = None,
) -> System:
    """A predictive coding network for classification.

    Errors form one block and values another, so that an alternating solver computes
    the errors of the values at hand before it moves the values. With tied feedback and
    errors that are whole steps (ε = 1) that is gradient descent on ½ |e|²; smaller
    steps ε are descent with momentum, stable for every singular value a of ∂e/∂x if

        ε² a² + 2ε < 4        ε < (√(1 + 4a²) − 1) / a²        a ≤ 1 + ‖W f′‖

    in linear solves too: 0.5 at initialisation, 0.2 where weights have grown large.
    Under feedback far from the transposes errors can grow without bound at any step.

    Args:
      sizes: inputs, then the layers from bottom to top, of one value and one error
        neuron for each unit. With the cross-entropy the last size is a softmax readout
        outside the system, which sees f(x_L), unless `classes` is given.
      feedback: 'tied' or 'free'.
      angle: for free feedback, the angle in degrees (0 to 180) between B_l and W_lᵀ at
        initialisation, at equal norm; None draws B_l independently.
      activation: name of f, see `activations`, or an `Activation`.
      cost: 'cross_entropy' or 'squared_error' (on the values of the last layer).
      classes: with the cross-entropy, the size of a readout behind the last layer.

    Returns:
      The system, with layers 'value_1', 'error_1', 'value_2', ..., and params
      {'layer_1': {'kernel': [n_0, n_1], 'bias': [n_1]}, 'layer_2': {'kernel', 'bias',
      'feedback'}, ..., 'readout': {'kernel', 'bias'}}: free feedback has the shape of
      the kernel it is paired with, and a readout is there with the cross-entropy.

    Raises:
      ValueError: for an unknown name, a size that is no positive integer, too few
        sizes, or an angle without free feedback or outside 0 to 180.
    """
    if feedback not in FEEDBACK:
        raise ValueError(f'no feedback {feedback!r}; choose from {", ".join(FEEDBACK)}')
    dense.check_angle(angle, feedback)
    shape = dense.shape(sizes, cost, classes)
    f = activations.get(activation)
    free = feedback == 'free'
    count = len(shape.layers)
    indices = range(1, count + 1)
    read = Readout(
        value(count),
        shape.layers[-1],
        shape.classes,
        shape.readout,
        activation=f if shape.readout else activations.ACTIVATIONS['identity'],
    )
    kernel_init = initializers.lecun_normal()

    def init(rng: jax.Array, x: ArrayLike) -> Params:
        dtype = dense.as_input(x, shape, float).dtype
        forward_rng, feedback_rng, readout_rng = jax.random.split(rng, 3)
        params = {}
        fan_in = (shape.inputs, *shape.layers)
        for index, sizes in enumerate(itertools.pairwise(fan_in), start=1):
            kernel = kernel_init(jax.random.fold_in(forward_rng, index), sizes, dtype)
            own = {'kernel': kernel, 'bias': jnp.zeros((sizes[1],), dtype)}
            if free and index > 1:
                key = jax.random.fold_in(feedback_rng, index)
                own['feedback'] = (
                    kernel_init(key, sizes, dtype)
                    if angle is None
                    else linear.rotate(key, kernel, angle)
                )
            params[shape.name(index)] = own
        return params | read.init(readout_rng, dtype)

    def predict(params: Params, index: int, below: Array) -> Array:
        """Returns what layer `index` should be, from the activity below it."""
        own = params[shape.name(index)]
        return linear.dense(below, own['kernel']) + own['bias'][None]

    def inject(params: Params, x: ArrayLike) -> Injection:
        x = dense.as_input(x, shape, params[shape.name(1)]['kernel'])
        first = predict(params, 1, x.reshape(x.shape[0], -1))
        start = {value(1): first}
        for index in indices[1:]:
            start[value(index)] = predict(params, index, f.fn(start[value(index - 1)]))
        return {'prediction': first, 'start': jax.lax.stop_gradient(start)}

    def rest(injection: Injection) -> State:
        start = injection['start']
        return start | {
            error(index): jnp.zeros_like(start[value(index)]) for index in indices
        }

    def drive(params: Params, injection: Injection, rates: Rates) -> State:
        state = {}
        predicted = injection['prediction']
        for index in indices:
            x, e = rates[value(index)], rates[error(index)]
            state[error(index)] = x - predicted
            state[value(index)] = x - e
            if index < count:
                activity, pull = jax.vjp(f.fn, x)  # v ↦ f′(x) ⊙ v
                above = params[shape.name(index + 1)]
                weights = above['feedback' if free else 'kernel']
                back = linear.dense_transpose(rates[error(index + 1)], weights)
                state[value(index)] += pull(back)[0]
                predicted = predict(params, index + 1, activity)
        return state

    return System(
        init=init,
        inject=inject,
        rest=rest,
        rates=lambda state: state,
        drive=drive,
        cost=read.cost,
        predict=read.predict,
        blocks=(tuple(map(error, indices)), tuple(map(value, indices))),
        pairs=tuple(
            ((shape.name(index), 'kernel'), (shape.name(index), 'feedback'), False)
            for index in (indices[1:] if free else ())
        ),
        holomorphic=f.holomorphic,
        affine=count == 1,
        signature=_signs(indices),
    )


def value(index: int) -> str:
    """Returns the name of the value neurons of layer 1, 2, ..."""
    return f'value_{index}'


def error(index: int) -> str:
    """Returns the name of the error neurons of layer 1, 2, ..."""
    return f'error_{index}'


def _signs(indices: Sequence[int]) -> tuple[tuple[str, int], ...]:
    values = tuple((value(index), 1) for index in indices)
    return values + tuple((error(index), -1) for index in indices)
