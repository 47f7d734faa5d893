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

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from eqprop_jax.systems import _activations as activations
from eqprop_jax.systems import _chain as chain
from eqprop_jax.systems import _layered as layered
from eqprop_jax.systems._activations import Activation
from eqprop_jax.systems._chain import Feedback, Layer
from eqprop_jax.systems._costs import CostFunction
from eqprop_jax.systems._readout import Readout
from eqprop_jax.systems._sizes import check_feedback
from eqprop_jax.types import Injection, Params, Rates, State, System


def predictive_coding(
    sizes: Sequence[int],
    *,
    feedback: str = 'tied',
    angle: float | None = None,
    activation: str | Activation = 'tanh',
    cost: str | CostFunction = 'cross_entropy',
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
      cost: as in `mlp`, of the values of the last layer; of one's own, of values alone.
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
    check_feedback(feedback, angle)
    layers, read = layered.stack(sizes, cost, classes)
    back = chain.between(layers, feedback == 'tied', angle)
    return _network(layers, back, activations.get(activation), read)


def _network(
    layers: Sequence[Layer],
    feedback: Sequence[Feedback],
    f: Activation,
    read: Readout,
) -> System:
    first, count = layers[0], len(layers)
    values = tuple(f'value_{layer.key}' for layer in layers)
    errors = tuple(f'error_{layer.key}' for layer in layers)
    feedback = [back._replace(key=back.source.key) for back in feedback]
    read = read._replace(layer=values[-1])
    if read.weights:
        read = read._replace(activation=f)

    def inject(params: Params, x: ArrayLike) -> Injection:
        x = chain.as_input(x, first, params[first.name]['kernel'])
        prediction = value = first.receive(params, x)
        start = {values[0]: value}
        for name, layer in zip(values[1:], layers[1:], strict=True):
            start[name] = value = layer.receive(params, f.fn(value))
        return {'prediction': prediction, 'start': jax.lax.stop_gradient(start)}

    def rest(injection: Injection) -> State:
        start = injection['start']
        zeros = [jnp.zeros_like(start[name]) for name in values]
        return start | dict(zip(errors, zeros, strict=True))

    def drive(params: Params, injection: Injection, rates: Rates) -> State:
        state = {}
        predicted = injection['prediction']
        for index, (value, error) in enumerate(zip(values, errors, strict=True)):
            x, e = rates[value], rates[error]
            state[error] = x - predicted
            state[value] = x - e
            if index < count - 1:
                activity, pull = jax.vjp(f.fn, x)  # v ↦ f′(x) ⊙ v
                back = feedback[index].receive(params, rates[errors[index + 1]])
                state[value] += pull(back)[0]
                predicted = layers[index + 1].receive(params, activity)
        return state

    return System(
        init=chain.initializer(layers, feedback, read),
        inject=inject,
        rest=rest,
        rates=lambda state: state,
        drive=drive,
        cost=read.cost,
        predict=read.predict,
        blocks=(errors, values),
        pairs=chain.pairs(feedback),
        holomorphic=f.holomorphic and read.of.analytic,
        affine=count == 1,
        signature=tuple((name, 1) for name in values)
        + tuple((name, -1) for name in errors),
    )
