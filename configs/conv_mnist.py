"""MNIST, a small convolutional network with rectified, clipped potentials.

The network of Scellier et al. 2018 (https://arxiv.org/abs/1808.04873): kernels of
5 x 5 to 32 and 64 channels, max-pooling, ten output units with the squared error, and
feedback weights of its own. Here with the adjoint correction, a real nudge of β = 1 and
Adam; published: "around 2 %" test error.

    python launch/prepare_data.py --dataset=mnist        # once
    python launch/train.py --config=configs/conv_mnist.py --workdir=runs/conv_mnist

`:small` has 8 and 16 channels and one epoch.
"""

import ml_collections

from configs import defaults, variants


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    """Returns the configuration.

    Args:
      variant: '' or 'small'.
    """
    return variants.choose(variant, VARIANTS)


def full() -> ml_collections.ConfigDict:
    """Returns the network of the paper."""
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
    config.system.pooling = 'max'
    config.system.classes = 10
    config.system.feedback = 'free'
    config.system.activation = 'relu'
    config.system.cost = 'squared_error'
    for section in (config.solver, config.nudged_solver):
        section.clip = (0.0, 1.0)
        section.tol = 1e-3
        section.max_steps = 50
    config.nudged_solver.step_size = 0.5
    config.estimator.contour = 'one_sided'
    config.estimator.radius = 1.0
    config.estimator.correction = 'adjoint'
    config.optimizer.learning_rate = 5e-4
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
