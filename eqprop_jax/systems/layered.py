"""Layered networks (multi-layer perceptrons), with and without feedback.

    D_l = s_{l−1} W_l + b_l + s_{l+1} B_l        s_0 = x

    feedback   B_l
    tied       W_{l+1}ᵀ       energy-based: Φ = Σ_l s_l · (s_{l−1} W_l + b_l)
    free       own weights    a vector field; paired with W_{l+1} for Kolen–Pollack
    none       0              feed-forward: J is lower triangular

References:
  Scellier et al. 2018 (free), https://arxiv.org/abs/1808.04873
  Laborieux and Zenke 2022 (tied), https://arxiv.org/abs/2209.00530
  Laborieux and Zenke 2024 (free, initial angle), https://arxiv.org/abs/2309.02214
"""

from collections.abc import Sequence

from eqprop_jax.systems import dense
from eqprop_jax.systems.activations import Activation
from eqprop_jax.types import System

FEEDBACK = ('tied', 'free', 'none')


def mlp(
    sizes: Sequence[int],
    *,
    feedback: str = 'tied',
    angle: float | None = None,
    activation: str | Activation = 'sigmoid',
    cost: str = 'cross_entropy',
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
      activation: name of σ, see `activations`, or an `Activation`.
      cost: 'cross_entropy' or 'squared_error' (on the rates of the last layer).
      classes: with the cross-entropy, the size of a readout behind the last layer.

    Returns:
      The system, with layers 'layer_1', 'layer_2', ...

    Raises:
      ValueError: for an unknown name, a size that is no positive integer, too few
        sizes, or an angle without free feedback or outside 0 to 180.
    """
    if feedback not in FEEDBACK:
        raise ValueError(f'no feedback {feedback!r}; choose from {", ".join(FEEDBACK)}')
    dense.check_angle(angle, feedback)
    shape = dense.shape(sizes, cost, classes)
    num_layers = len(shape.layers)
    if feedback == 'none':
        synapses = {}
        blocks = tuple((shape.name(index),) for index in range(1, num_layers + 1))
    else:
        synapses = dense.chain_feedback(shape, tied=feedback == 'tied', angle=angle)
        blocks = dense.parities(shape)
    return dense.network(shape, synapses, blocks, activation)


def feedforward(
    sizes: Sequence[int],
    *,
    activation: str | Activation = 'sigmoid',
    cost: str = 'cross_entropy',
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
