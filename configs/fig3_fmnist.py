"""Fashion-MNIST from seven angles, Fig. 3 of Laborieux and Zenke 2024.

The network and the optimizer of `table1_fmnist`, with feedback initialised at 0, 15,
... 90 degrees to the transposes, trained by recurrent backprop and by EP in the limit
of small nudges, as published (https://arxiv.org/abs/2309.02214), and by corrected EP,
which the paper does not have. 10 epochs instead of 50, on 55,000 training images.

    python launch/prepare_data.py --dataset=fashion_mnist        # once
    python launch/sweep.py --config=configs/fig3_fmnist.py --workdir=runs/fig3

Measured: test error after the last epoch, means of three seeds over the seven angles:
recurrent backprop 12.2 to 13.3 %, corrected EP 12.1 to 13.0, plain EP 15.7 to 16.4.
Machines and commits are in results/fig3_fmnist.json.
"""

from collections.abc import Callable
from typing import Any

import ml_collections

from eqprop_jax.config import variants

table1_fmnist = variants.beside(__file__, 'table1_fmnist')

ANGLES = (0.0, 15.0, 30.0, 45.0, 60.0, 75.0, 90.0)
METHODS = {
    'recurrent backprop': table1_fmnist.RBP,
    'corrected': table1_fmnist.CORRECTED,
    'plain true derivative': table1_fmnist.TANGENT,
}
CURVES = ('eval/overall_angle', 'eval/gradient_cosine')


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration that the rows change."""
    config = table1_fmnist.get_config()
    config.num_epochs = 10
    config.diagnostics.every_evals = 1
    return config


def sweep(add: Callable[[str, dict[str, Any]], None]) -> None:
    """Adds the rows.

    Args:
      add: takes a name and the values to change, by dotted key.
    """
    for name, method in METHODS.items():
        for angle in ANGLES:
            add(f'{name}, {angle:g}°', method | {'system.angle': angle})
