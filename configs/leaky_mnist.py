"""MNIST: leaky integrators with clipped potentials, by the rule of 2018.

Scellier et al. 2018 (https://arxiv.org/abs/1808.04873): 784-512-512-10, hard sigmoid,
states clipped to [0, 1], independent forward and feedback weights, one real nudge of
β = 1, SGD with a learning rate for each layer.

    python launch/prepare_data.py --dataset=mnist        # once
    python launch/train.py --config=configs/leaky_mnist.py --workdir=runs/leaky

Measured on 2 cores of an AMD EPYC, float32, 2026-11-24, seed 0, test error after the
last epoch: plain, 30 epochs, 2.61 % (5df271b); `:corrected`, 10 epochs, 1.92 %
(fd3326c). Both were run before feedback weights had the learning rate of their kernel.
`:deep` and `:small` have not been run. Setting and log: results/log/leaky_mnist.md.
"""

import ml_collections

from eqprop_jax.config import defaults, variants


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    """Returns the configuration.

    Args:
      variant: '' (plain); 'corrected', the antisymmetric correction; 'deep', that
        with a third hidden layer; or 'small', that with 256 units a layer.
    """
    return variants.choose(variant, VARIANTS)


def network() -> ml_collections.ConfigDict:
    """Returns data, system and dynamics, without correction and learning rates."""
    config = defaults.get_config()
    config.batch_size = 20
    config.log_every_steps = 250
    config.data.name = 'mnist'
    config.data.held_out = 5000
    config.system = ml_collections.ConfigDict()
    config.system.name = 'leaky'
    config.system.sizes = (784, 512, 512, 10)
    config.system.activation = 'hard_sigmoid'
    for section in (config.solver, config.nudged_solver):
        section.clip = (0.0, 1.0)
        section.max_steps = 100
    config.nudged_solver.step_size = 0.5
    config.estimator.contour = 'one_sided'
    config.estimator.radius = 1.0
    config.optimizer.name = 'sgd'
    config.optimizer.momentum = 0.0
    return config


def plain() -> ml_collections.ConfigDict:
    """Returns the rule of the paper, initialised so that its bias is small.

    Inputs have mean zero and outweigh the feedback, and the forward weights are small,
    so that they soon align with the feedback weights.
    """
    config = network()
    config.num_epochs = 30
    config.data.normalization = 'standard'
    config.data.std_factor = 1.5
    config.system.forward_scale = 0.3
    config.estimator.correction = None
    set_rates(config, (0.1, 0.05, 0.01))
    return config


def corrected() -> ml_collections.ConfigDict:
    """Returns corrected EP, on pixels from 0 to 1 and weights of one scale."""
    config = network()
    config.num_epochs = 10
    config.estimator.correction = 'antisymmetric'
    set_rates(config, (0.2, 0.1, 0.02))
    return config


def deep() -> ml_collections.ConfigDict:
    """Returns three hidden layers, corrected."""
    config = corrected()
    config.system.sizes = (784, 512, 512, 512, 10)
    set_rates(config, (0.2, 0.1, 0.05, 0.02))
    return config


def small() -> ml_collections.ConfigDict:
    """Returns a run of a minute."""
    config = corrected()
    config.num_epochs = 3
    config.system.sizes = (784, 256, 256, 10)
    return config


def set_rates(config: ml_collections.ConfigDict, rates: tuple[float, ...]) -> None:
    """Sets one learning rate for each kernel and its partner, the first elsewhere."""
    config.optimizer.learning_rate = rates[0]
    for index, rate in enumerate(rates, start=1):
        config.optimizer.layers[f'layer_{index}'] = ml_collections.ConfigDict()
        config.optimizer.layers[f'layer_{index}'].learning_rate = rate


VARIANTS = {'': plain, 'corrected': corrected, 'deep': deep, 'small': small}
