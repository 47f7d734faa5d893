"""PCN."""

import ml_collections

from configs import defaults


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = defaults.get_config()
    config.num_epochs = 10
    config.log_every_steps = 100
    config.data.name = 'fashion_mnist'
    config.data.held_out = 5000
    config.system = ml_collections.ConfigDict()
    config.system.name = 'predictive_coding'
    config.system.sizes = (784, 256, 256, 10)
    config.system.feedback = 'tied'
    config.system.activation = 'tanh'
    config.solver.step_size = 0.5
    config.nudged_solver.step_size = 0.5
    config.nudged_solver.max_steps = 200
    config.nudged_solver.tol = 1e-2
    config.estimator.radius = 1e-3
    config.estimator.half_step = True
    config.estimator.correction = None
    return config
