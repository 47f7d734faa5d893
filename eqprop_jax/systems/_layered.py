"""Networks of dense layers, with and without feedback.

    D_l = s_{l−1} W_l + b_l + s_{l+1} B_l        s_0 = x

    feedback   B_l
    tied       W_{l+1}ᵀ       energy-based: Φ = Σ_l s_l · (s_{l−1} W_l + b_l)
    free       own weights    a vector field; paired with W_{l+1} for Kolen–Pollack
    none       0              feed-forward: J is lower triangular

A loop has a single synapse back, by which its output feeds the first hidden layer:

    D_1 = x W_1 + b_1 + s_L B        D_l = s_{l−1} W_l + b_l   for l = 2 ... L

References:
  Scellier et al. 2018 (free), https://arxiv.org/abs/1808.04873
  Laborieux and Zenke 2022 (tied), https://arxiv.org/abs/2209.00530
  Laborieux and Zenke 2024 (free, initial angle; the loop is that of Fig. 4e-h),
  https://arxiv.org/abs/2309.02214
"""

import itertools
from collections.abc import Sequence

from eqprop_jax.systems import _chain as chain
from eqprop_jax.systems import _costs as costs
from eqprop_jax.systems._activations import Activations
from eqprop_jax.systems._chain import Feedback, Layer
from eqprop_jax.systems._costs import CostFunction
from eqprop_jax.systems._readout import Readout
from eqprop_jax.systems._sizes import check_feedback, positive
from eqprop_jax.types import System


def mlp(
    sizes: Sequence[int],
    *,
    feedback: str = 'tied',
    angle: float | None = None,
    activation: Activations = 'sigmoid',
    cost: str | CostFunction = 'cross_entropy',
    classes: int | None = None,
) -> System:
    """A multi-layer perceptron that settles under forward and feedback synapses.

    Layers two apart do not see each other, so odd and even layers form the two blocks
    that an alternating solver updates in turn.

    Args:
      sizes: inputs, then the layers from bottom to top. With the cross-entropy the
        last size is the softmax readout outside the system, unless `classes` is given.
      feedback: 'tied', 'free' or 'none'.
      angle: for free feedback, the angle in degrees (0 to 180) between B_l and
        W_{l+1}ᵀ at initialisation, at equal norm; None draws B_l independently. With
        one settling layer there is no feedback, and nothing to turn.
      activation: name of σ, see `activations`, or an `Activation`; one for all layers
        that settle or one for each, as ('sigmoid', 'identity') for linear output units.
      cost: 'cross_entropy'; 'squared_error', 'absolute_error' or 'hinge' of the rates
        of the last layer; or a function (params, rates, y) -> [B] of the rates of any
        layers, analytic for complex nudges.
      classes: with the cross-entropy, the size of a readout behind the last layer.

    Returns:
      The system, with layers 'layer_1', 'layer_2', ..., and params {'layer_1':
      {'kernel': [n_0, n_1], 'bias': [n_1], 'feedback': [n_2, n_1]}, ..., 'readout':
      {'kernel': [n_L, classes], 'bias': [classes]}}, with free feedback and with the
      cross-entropy.

    Raises:
      ValueError: for an unknown name, a size that is no positive integer, too few
        sizes, or an angle without free feedback or outside 0 to 180.
    """
    check_feedback(feedback, angle, ('tied', 'free', 'none'))
    layers, read = stack(sizes, cost, classes)
    if feedback == 'none':
        blocks = tuple((layer.name,) for layer in layers)
        return chain.network(layers, (), blocks, activation, read)
    tied = feedback == 'tied'
    back = chain.between(layers, tied, angle, to_target=not tied)
    return chain.network(layers, back, chain.parities(layers), activation, read)


def feedforward(
    sizes: Sequence[int],
    *,
    activation: Activations = 'sigmoid',
    cost: str | CostFunction = 'cross_entropy',
    classes: int | None = None,
) -> System:
    """A feed-forward network, `mlp` without feedback: settled after one sweep.

    Recurrent backprop on it is backprop; plain EP sees no error below the top.

    Args:
      sizes: as in `mlp`.
      activation: as in `mlp`.
      cost: as in `mlp`.
      classes: as in `mlp`.

    Returns:
      The system.

    Raises:
      ValueError: as in `mlp`.
    """
    return mlp(
        sizes, feedback='none', activation=activation, cost=cost, classes=classes
    )


def loop(
    sizes: Sequence[int],
    *,
    activation: Activations = 'sigmoid',
    cost: str | CostFunction = 'cross_entropy',
    classes: int | None = None,
) -> System:
    """A chain of layers closed to a ring by one synapse from the last to the first.

    From three layers on no synapse has a counterpart in the opposite direction: J is
    far from symmetric, and there is no pair of weights to align. Two layers are an
    untied `mlp`. The last layer settles with the others, since it feeds back: a softmax
    readout of `classes` stands behind it with the cross-entropy.

    Args:
      sizes: inputs, then at least two layers.
      activation: as in `mlp`.
      cost: as in `mlp`.
      classes: size of the readout; None: as many as the last layer has units.

    Returns:
      The system, with layers 'layer_1', 'layer_2', ...

    Raises:
      ValueError: for an unknown name, a size that is no positive integer or too few.
    """
    if classes is None and costs.get(cost).readout and len(sizes) > 0:
        classes = sizes[-1]
    layers, read = stack(sizes, cost, classes)
    if len(layers) < 2:
        raise ValueError(f'a loop needs two layers after the input, not {sizes}')
    blocks = chain.parities(layers)
    if len(layers) % 2:  # an odd ring takes three colours
        blocks = (*chain.parities(layers[:-1]), (layers[-1].name,))
    first, last = layers[0], layers[-1]
    back = Feedback(last, first, first.key, tied=False, to_target=True)
    return chain.network(layers, (back,), blocks, activation, read)


def stack(
    sizes: Sequence[int], cost: str | CostFunction, classes: int | None
) -> tuple[tuple[Layer, ...], Readout]:
    """Returns the layers that settle, and what is read of the last.

    With the cross-entropy the last size is the readout, outside the system; if
    `classes` is given, all sizes after the first settle and a readout of that many
    classes stands behind them. With other costs every size after the first settles.
    """
    of = costs.get(cost)
    inputs, *settling = positive('sizes', sizes) or (0,)
    if classes is not None:
        (classes,) = positive('classes', (classes,))
    if not of.readout:
        if classes not in (None, settling[-1] if settling else None):
            raise ValueError(
                f'with cost={of.name!r} the last size is the number of classes: '
                f'sizes={tuple(sizes)} contradicts classes={classes}'
            )
    elif classes is None:
        *settling, classes = settling or (None,)
    if not settling:
        raise ValueError(
            f'sizes={tuple(sizes)} with cost={of.name!r} leaves no layer that settles: '
            'give at least (inputs, hidden, classes)'
        )
    pairs = enumerate(itertools.pairwise((inputs, *settling)), start=1)
    layers = tuple(
        chain.dense(f'layer_{index}', index, (below,), size)
        for index, (below, size) in pairs
    )
    units = settling[-1]
    return layers, Readout(layers[-1].name, units, classes or units, of)
