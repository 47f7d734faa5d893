"""Loop."""

import ml_collections

from configs import fmnist_mlp


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = fmnist_mlp.get_config()
    config.system = ml_collections.ConfigDict()
    config.system.name = 'loop'
    config.system.sizes = (784, 256, 256, 10)
    config.system.cost = 'cross_entropy'
    return config
