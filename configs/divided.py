"""Two training programs that `launch/figures.py --figure=devices` compiles.

`:mlp` is `fmnist_mlp`, `:conv` the small network of `cifar10_conv_free`, both with four
nudges of 0.1, of which three are relaxed, and with loops as on an accelerator. They are
compiled for several devices and not trained; docs/running.md and docs/speed.md have the
result.
"""

import ml_collections

from eqprop_jax.config import variants

cifar10_conv_free = variants.beside(__file__, 'cifar10_conv_free')
fmnist_mlp = variants.beside(__file__, 'fmnist_mlp')


def get_config(variant: str = 'mlp') -> ml_collections.ConfigDict:
    """Returns the configuration.

    Args:
      variant: 'mlp' or 'conv'.
    """
    config = variants.choose(variant, VARIANTS)
    config.data.held_out = 0
    for solver in (config.solver, config.nudged_solver):
        solver.compact = False
    config.estimator.radius = 0.1
    config.estimator.num_points = 4
    config.estimator.half_step = False
    config.estimator.batched = True
    return config


VARIANTS = {
    'mlp': fmnist_mlp.get_config,
    'conv': lambda: cifar10_conv_free.get_config('small'),
}
