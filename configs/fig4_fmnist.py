r"""Fashion-MNIST with Jacobian homeostasis, Fig. 4a-h of Laborieux and Zenke 2024.

EP in the limit of small nudges (https://arxiv.org/abs/2309.02214). MLP: the network of
`table1_fmnist` from an angle of 90 degrees, AdamW at 1e-4 without decay, λ = 0 and 1.
Loop: the last of the layers feeds back to the first one only, SGD with momentum 0.9 at
0.01, λ = 0 and 0.1. Beside them, which the paper has not, corrected EP. 10 epochs and
not 50, on 55,000 training images.

    python launch/prepare_data.py --dataset=fashion_mnist        # once
    python launch/sweep.py --config=configs/fig4_fmnist.py --workdir=runs/fig4

Not yet measured.
"""

from collections.abc import Callable
from typing import Any

import ml_collections

from configs import table1_fmnist

PLAIN = table1_fmnist.TANGENT
CORRECTED = table1_fmnist.CORRECTED
MLP = {'optimizer.name': 'adamw', 'optimizer.learning_rate': 1e-4}
LOOP = {'system.name': 'loop'}
CURVES = ('test/error', 'eval/symmetric_share', 'eval/gradient_cosine')


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration that the rows change."""
    config = table1_fmnist.get_config()
    config.num_epochs = 10
    config.system.angle = 90.0
    config.diagnostics.every_evals = 1
    return config


def sweep(add: Callable[[str, dict[str, Any]], None]) -> None:
    """Adds the rows.

    Args:
      add: takes a name and the values to change, by dotted key.
    """
    for kind, common, weight in (('MLP', MLP, 1.0), ('loop', LOOP, 0.1)):
        homeostasis = {'homeostasis.weight': weight}
        add(f'{kind}, plain', common | PLAIN)
        add(f'{kind}, homeostasis {weight:g}', common | PLAIN | homeostasis)
        add(f'{kind}, corrected', common | CORRECTED)
