"""MNIST: a small untied convolutional network, trained by corrected EP.

The sizes of Scellier et al. 2018 (https://arxiv.org/abs/1808.04873): kernels of 5 x 5,
32 and 64 channels, feedback initialised at 90 degrees to the transposes. They use
rectified units; here dSiLU, softmax pooling, a softmax readout and Adam.

    python launch/prepare_data.py --dataset=mnist        # once
    python launch/train.py --config=configs/conv_mnist.py --workdir=runs/conv_mnist

Published test error: "around 2 %". Measured on one of 2 cores of an AMD EPYC, float32,
2026-11-24, commit d7f7c28, seed 0: 1.24 % after two epochs. `:small`, with 8 and 16
channels and one epoch, has not been run. Log: results/log/conv_mnist.md.
"""

import ml_collections

from eqprop_jax.config import defaults, variants

cifar10_conv_free = variants.beside(__file__, 'cifar10_conv_free')


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    """Returns the configuration.

    Args:
      variant: '', or 'small' with 8 and 16 channels and one epoch.
    """
    return variants.choose(variant, VARIANTS)


def full() -> ml_collections.ConfigDict:
    """Returns the sizes of the paper."""
    config = defaults.get_config()
    config.batch_size = 50
    config.num_epochs = 2
    config.log_every_steps = 50
    config.data.name = 'mnist'
    config.data.held_out = 5000
    config.system = ml_collections.ConfigDict()
    config.system.name = 'conv'
    config.system.image_shape = (28, 28, 1)
    config.system.channels = (32, 64)
    config.system.kernels = (5, 5)
    config.system.paddings = ('VALID', 'VALID')
    config.system.pooling = 'softmax'
    config.system.activation = 'dsilu'
    config.system.classes = 10
    config.system.feedback = 'free'
    config.system.angle = 90.0
    config.solver.tol = 3e-3
    cifar10_conv_free.use_correction(config)
    for section in (config.solver, config.nudged_solver):
        section.max_steps = 30
        section.step_size = 0.8
    config.optimizer.learning_rate = 1e-3
    config.optimizer.clip_norm = 1.0
    config.diagnostics.num_examples = 32
    config.diagnostics.num_probes = 8
    return config


def small() -> ml_collections.ConfigDict:
    """Returns a quarter of the channels, for a run of a minute or two."""
    config = full()
    config.num_epochs = 1
    config.system.channels = (8, 16)
    return config


VARIANTS = {'': full, 'small': small}
