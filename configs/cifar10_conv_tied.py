"""CIFAR-10: convolutional networks with tied feedback, as in 2021 and 2022.

Laborieux et al. 2021 (https://arxiv.org/abs/2006.03824) and, `:2022`, Laborieux and
Zenke 2022 (https://arxiv.org/abs/2209.00530): 128-256-512-512, contrastive rule. The
sweep trains the comparisons of 2021, and beside them exact gradients.

    python launch/prepare_data.py --dataset=cifar10        # once
    python launch/train.py --config=configs/cifar10_conv_tied.py --workdir=runs/tied
    python launch/sweep.py --config=configs/cifar10_conv_tied.py --workdir=runs/table1

Published test error: 12.5 ± 0.2 % (2021), 11.4 ± 0.2 (2022). Measured: `:small` is a
row of `cifar10_conv_free:small`, 51.94 ± 0.06 % after an epoch (2026-11-27, 588b4a5).
Not yet run: the full networks; an earlier setting of `:ninety` was tried on a GPU and
broke down (docs/howto/gpu.md). Setting and log: results/log/cifar10_conv_tied.md.
"""

from collections.abc import Callable
from typing import Any

import ml_collections

from eqprop_jax.config import variants

cifar10_conv_free = variants.beside(__file__, 'cifar10_conv_free')

GAIN = 0.58  # PyTorch's initialisation, uniform within 1/√(fan in), has 1/√3
RATES = {
    'layer_1': 0.25,
    'layer_2': 0.15,
    'layer_3': 0.1,
    'layer_4': 0.08,
    'layer_5': 0.05,
}
OF_READOUT = {name.replace('layer_5', 'readout'): rate for name, rate in RATES.items()}
FREE = {
    'system.feedback': 'free',
    'system.angle': 90.0,
    'estimator.name': 'contour',
}
PUBLISHED = {
    'tied, one-sided': '86.7 ± 5.8',
    'tied, random sign': '21.6 ± 20.0',
    'tied, symmetric': '12.5 ± 0.2',
    'from 90°, plain': '75.5 ± 4.7',
    'from 90°, Kolen-Pollack': '13.2 ± 0.5',
}


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    """Returns the configuration.

    Args:
      variant: '' (2021); '2021_cross_entropy', with a softmax readout and β = 1;
        '2021_dropout', with dropout before that readout; '2022'; 'ninety', that for
        90 epochs on one GPU; or 'small', 32-64-128-128 channels by the complex step
        for two cores.
    """
    return variants.choose(variant, VARIANTS)


def of_2021() -> ml_collections.ConfigDict:
    """Returns the setting of 2021: max-pooling and the squared error."""
    config = cifar10_conv_free.network((128, 256, 512, 512), 'tied')
    config.batch_size = 128
    config.num_epochs = 120
    config.data.std_factor = 3.0
    config.data.augment.pad = 4
    config.data.augment.padding = 'edge'
    config.system.pooling = 'max'
    config.system.activation = 'wide_hard_sigmoid'
    config.system.gain = GAIN
    config.system.cost = 'squared_error'
    config.solver.max_steps = 250
    config.solver.tol = 1e-4  # at 1e-3 a unit next to 0 may be on or off
    config.nudged_solver.tol = 3e-3  # some turn on late
    config.nudged_solver.max_steps = 30
    config.estimator.name = 'contrastive'
    config.estimator.contour = 'symmetric'
    config.estimator.radius = 0.5
    config.estimator.correction = None
    config.optimizer.name = 'sgd'
    config.optimizer.weight_decay = 3e-4
    set_rates(config, RATES)
    return config


def cross_entropy() -> ml_collections.ConfigDict:
    """Returns the setting of 2021 with a softmax readout in place of output units."""
    config = of_2021()
    config.system.cost = 'cross_entropy'
    config.system.dropout = 0.0
    config.estimator.radius = 1.0
    config.optimizer.layers = ml_collections.ConfigDict()
    set_rates(config, OF_READOUT)
    return config


def dropout() -> ml_collections.ConfigDict:
    """Returns that with a dropout of one half on the readout's inputs."""
    config = cross_entropy()
    config.system.dropout = 0.5
    return config


def of_2022() -> ml_collections.ConfigDict:
    """Returns the setting of 2022: softmax pooling and a holomorphic activation."""
    config = cifar10_conv_free.network((128, 256, 512, 512), 'tied')
    config.batch_size = 128
    config.num_epochs = 90
    config.solver.max_steps = 250
    config.nudged_solver.tol = 3e-2
    config.nudged_solver.max_steps = 60
    config.estimator.name = 'contrastive'
    config.estimator.radius = 1.0
    config.estimator.correction = None
    config.optimizer.name = 'sgd'
    config.optimizer.weight_decay = 2e-4
    set_rates(config, OF_READOUT)
    return config


def ninety() -> ml_collections.ConfigDict:
    """Returns the run of 2022 for one GPU."""
    config = of_2022()
    cifar10_conv_free.use_gpu(config)
    return config


def small() -> ml_collections.ConfigDict:
    """Returns a network that two cores train."""
    config = cifar10_conv_free.small()
    config.system.feedback = 'tied'
    del config.system['angle']
    config.estimator.correction = None
    return config


def sweep(add: Callable[[str, dict[str, Any]], None]) -> None:
    """Adds the comparisons of 2021.

    Args:
      add: takes a name and the values to change, by dotted key.
    """
    for name in ('one-sided', 'random sign', 'symmetric'):
        contour = name.replace('-', '_').replace(' ', '_')
        add(f'tied, {name}', {'estimator.contour': contour})
    add('tied, recurrent backprop', cifar10_conv_free.RBP)
    add('from 90°, plain', FREE)
    add('from 90°, Kolen-Pollack', FREE | {'alignment.kolen_pollack': True})


def set_rates(config: ml_collections.ConfigDict, rates: dict[str, float]) -> None:
    """Sets the learning rates of some layers."""
    for name, rate in rates.items():
        config.optimizer.layers[name] = ml_collections.ConfigDict()
        config.optimizer.layers[name].learning_rate = rate


VARIANTS = {
    '': of_2021,
    '2021_cross_entropy': cross_entropy,
    '2021_dropout': dropout,
    '2022': of_2022,
    'ninety': ninety,
    'small': small,
}
