"""Networks whose feedback skips layers: the output feeds the first hidden layer.

    D_1 = x W_1 + b_1 + s_L B        D_l = s_{l−1} W_l + b_l   for l = 2 ... L

From three layers on no synapse has a counterpart in the opposite direction, so J is far
from symmetric and there is no pair of weights to align; two layers are an untied `mlp`.

References:
  Laborieux and Zenke 2024, Fig. 4e-h, https://arxiv.org/abs/2309.02214
"""

from collections.abc import Sequence

from eqprop_jax.systems import dense
from eqprop_jax.systems.activations import Activation
from eqprop_jax.types import System


def loop(
    sizes: Sequence[int],
    *,
    activation: str | Activation = 'sigmoid',
    cost: str = 'cross_entropy',
    classes: int | None = None,
) -> System:
    """A chain of layers closed to a ring by one synapse from the last to the first.

    The output layer has to settle with the others, since it feeds back: every size
    after the first is a layer, and with the cross-entropy a softmax readout of
    `classes` stands behind the last one.

    Args:
      sizes: inputs, then at least two layers.
      activation: name of σ, see `activations`, or an `Activation`.
      cost: 'cross_entropy' or 'squared_error'.
      classes: size of the readout; None: as many as the last layer has units.

    Returns:
      The system, with layers 'layer_1', 'layer_2', ...

    Raises:
      ValueError: for an unknown name, a size that is no positive integer or too few.
    """
    if classes is None and cost == 'cross_entropy' and len(sizes) > 0:
        classes = sizes[-1]
    shape = dense.shape(sizes, cost, classes)
    num_layers = len(shape.layers)
    if num_layers < 2:
        raise ValueError(f'a loop needs two layers after the input, not {sizes}')
    colours = [range(1, num_layers + 1, 2), range(2, num_layers + 1, 2)]
    if num_layers % 2:  # an odd ring takes three colours
        colours = [range(1, num_layers, 2), range(2, num_layers, 2), (num_layers,)]
    blocks = tuple(tuple(map(shape.name, layers)) for layers in colours)
    return dense.network(shape, {1: dense.Feedback(num_layers)}, blocks, activation)
