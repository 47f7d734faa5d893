"""Fashion-MNIST: nudging schemes and alignment, as compared in 2021, on an MLP.

Laborieux et al. 2021 (https://arxiv.org/abs/2006.03824), there conv nets on CIFAR-10.
Here 784-256-256-10, squared error, β = 0.5 as there, 10 epochs.

    python launch/prepare_data.py --dataset=fashion_mnist        # once
    python launch/sweep.py --config=configs/nudging_fmnist.py --workdir=runs/nudging

Published on CIFAR-10, tied: one-sided 86.7 %, random sign 21.6, symmetric 12.5; untied:
symmetric 75.5, with Kolen-Pollack updates 13.2. Measured (results/nudging_fmnist.json),
three seeds, tied: one-sided 11.3, random sign 12.7, symmetric 12.3, recurrent backprop
11.7; from 90 degrees: symmetric 13.0, with Kolen-Pollack updates 12.6, corrected 11.9,
recurrent backprop 11.1. Setting and log: results/log/nudging_fmnist.md.
"""

from collections.abc import Callable
from typing import Any

import ml_collections

from eqprop_jax.config import variants

fmnist_mlp = variants.beside(__file__, 'fmnist_mlp')

RBP = {
    'estimator.name': 'recurrent_backprop',
    'estimator.skip_unconverged': True,  # one such example can end a run
}
DECAY = {'optimizer.name': 'adamw', 'optimizer.weight_decay': 0.3}
TIED = DECAY | {'system.feedback': 'tied', 'system.angle': None}
CURVES = ('test/error', 'eval/gradient_cosine', 'eval/overall_angle')


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration that the rows change: plain EP, symmetric nudges."""
    config = fmnist_mlp.get_config()
    config.system.cost = 'squared_error'
    config.estimator.contour = 'symmetric'
    config.estimator.radius = 0.5
    config.estimator.correction = None
    for section in (config.solver, config.nudged_solver):
        section.name = 'anderson'
        section.depth = 2
    return config


def sweep(add: Callable[[str, dict[str, Any]], None]) -> None:
    """Adds the rows.

    Args:
      add: takes a name and the values to change, by dotted key.
    """
    for name in ('one-sided', 'random sign', 'symmetric'):
        contour = name.replace('-', '_').replace(' ', '_')
        add(f'tied, {name}', TIED | {'estimator.contour': contour})
    add('tied, recurrent backprop', TIED | RBP)
    add('from 90°, plain', DECAY)
    add('from 90°, Kolen-Pollack', DECAY | {'alignment.kolen_pollack': True})
    add('from 90°, corrected', DECAY | {'estimator.correction': 'antisymmetric'})
    add('from 90°, recurrent backprop', DECAY | RBP)
