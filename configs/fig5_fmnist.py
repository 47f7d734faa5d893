"""Fashion-MNIST: untied predictive coding, after Fig. 5 of Laborieux and Zenke 2024.

https://arxiv.org/abs/2309.02214. Value and error neurons, 784-128-128-10; feedback from
45 degrees. Rows: EP in the limit of small nudges, that with homeostasis and with
Kolen-Pollack updates, corrected EP, recurrent backprop. Only the system is taken from
the paper: its settings are not known.

    python launch/prepare_data.py --dataset=fashion_mnist        # once
    python launch/sweep.py --config=configs/fig5_fmnist.py --workdir=runs/fig5

Measured on an AMD EPYC, float32, 2026-11-26, commits fc76b58 and 49613fc
(Kolen-Pollack), seeds 0, 1, 2, test error after 5 epochs: plain 12.18 ± 0.12 %,
homeostasis 12.04 ± 0.06, Kolen-Pollack 13.91 ± 0.04, corrected 12.01 ± 0.07, recurrent
backprop 12.02 ± 0.07. Setting and log: results/log/fig5_fmnist.md.
"""

from collections.abc import Callable
from typing import Any

import ml_collections

from eqprop_jax.config import variants

correction_fmnist = variants.beside(__file__, 'correction_fmnist')
pcn_fmnist = variants.beside(__file__, 'pcn_fmnist')

SOLVE = {
    'estimator.method': 'anderson',
    'estimator.tol': 0.01,
    'estimator.max_steps': 200,
}
LIMIT = {'estimator.name': 'tangent'} | SOLVE
METHODS = {
    'plain': LIMIT,
    'homeostasis': LIMIT | {'homeostasis.weight': 0.1},
    'Kolen-Pollack': LIMIT
    | {
        'alignment.kolen_pollack': True,
        'optimizer.name': 'adamw',
        'optimizer.weight_decay': 1.0,
    },
    'corrected': {},
    'recurrent backprop': {'estimator.name': 'recurrent_backprop'} | SOLVE,
}
CURVES = correction_fmnist.CURVES


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration that the rows change: corrected EP."""
    config = pcn_fmnist.get_config('free')
    config.num_epochs = 5
    config.system.sizes = (784, 128, 128, 10)
    config.system.angle = 45.0
    return config


def sweep(add: Callable[[str, dict[str, Any]], None]) -> None:
    """Adds the rows.

    Args:
      add: takes a name and the values to change, by dotted key.
    """
    for method, changes in METHODS.items():
        add(f'predictive coding, {method}', changes)
