"""Fashion-MNIST with Jacobian homeostasis, Fig. 4a-h of Laborieux and Zenke 2024.

https://arxiv.org/abs/2309.02214. An MLP from 90 degrees, and a loop whose last layer
feeds back to the first; each with and without homeostasis, and by corrected EP, which
the paper does not have. 10 epochs instead of 50, on 55,000 training images.

    python launch/prepare_data.py --dataset=fashion_mnist        # once
    python launch/sweep.py --config=configs/fig4_fmnist.py --workdir=runs/fig4

Measured, test error after the last epoch, three seeds, commit 49613fc: MLP plain
15.6 ± 0.3 %, homeostasis 14.2 ± 0.3, corrected 13.2 ± 0.3; loop 14.9 ± 0.3, 15.0 ± 0.8,
12.5 ± 0.4. Machines: results/fig4_fmnist.json. Log: results/log/fig4_fmnist.md.
"""

from collections.abc import Callable
from typing import Any

import ml_collections

from eqprop_jax.config import variants

table1_fmnist = variants.beside(__file__, 'table1_fmnist')

LIMIT = table1_fmnist.TANGENT
TWO = {'estimator.num_points': 2}
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
    kinds = (('MLP', MLP, LIMIT, 1.0), ('loop', LOOP, TWO, 0.1))
    for kind, common, plain, weight in kinds:
        homeostasis = {'homeostasis.weight': weight}
        add(f'{kind}, plain', common | plain)
        add(f'{kind}, homeostasis {weight:g}', common | plain | homeostasis)
        add(f'{kind}, corrected', common | CORRECTED)
