"""MNIST, leaky."""

import ml_collections

from configs import defaults


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = defaults.get_config()
    config.batch_size = 20
    config.num_epochs = 10
    config.log_every_steps = 100
    config.data.name = 'mnist'
    config.data.held_out = 5000
    config.system = ml_collections.ConfigDict()
    config.system.name = 'leaky'
    config.system.sizes = (784, 512, 512, 10)
    for section in (config.solver, config.nudged_solver):
        section.clip = (0.0, 1.0)
        section.tol = 1e-3
        section.max_steps = 100
    config.estimator.contour = 'random_sign'
    config.estimator.radius = 0.5
    config.estimator.correction = None
    config.optimizer.name = 'sgd'
    config.optimizer.momentum = 0.0
    config.optimizer.learning_rate = 0.1
    return config
