"""ImageNet at 32 x 32 pixels: the conv nets for CIFAR-10, with 1,000 classes.

Laborieux and Zenke 2024 (https://arxiv.org/abs/2309.02214), the ImageNet results: 90
epochs, learning rates from 5e-3, homeostasis with λ = 10, gradients by the true
derivative.

    python launch/prepare_data.py --dataset=imagenet_resized/32x32        # once
    python launch/train.py --config=configs/imagenet32_conv.py --workdir=runs/imagenet

Published top-1 and top-5 accuracy: untied with homeostasis and the true derivative
31.4 ± 0.1 and 55.2 ± 0.1 %; tied 36.5 ± 0.3 and 60.8 ± 0.4 %.

Not yet run: the full networks need an accelerator, and the data set was not available.
"""

import ml_collections

from eqprop_jax.config import variants

cifar10_conv_free = variants.beside(__file__, 'cifar10_conv_free')
cifar10_conv_tied = variants.beside(__file__, 'cifar10_conv_tied')

BASE_RATE = 5e-3


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    """Returns the configuration.

    Args:
      variant: '' as published; 'tied', with tied feedback and two nudges of ±1;
        'corrected', the adjoint correction from 90 degrees in place of homeostasis; or
        'small', that on 32-64-128-128 channels and a tenth of the images.
    """
    config = variants.choose(variant, VARIANTS)
    config.data.name = 'imagenet_resized/32x32'
    config.data.held_out = 10000
    config.system.classes = 1000
    return config


def published() -> ml_collections.ConfigDict:
    """Returns the untied network by the true derivative, with homeostasis."""
    config = full(cifar10_conv_free.published())
    config.homeostasis.weight = 10.0
    config.estimator.name = 'tangent'
    return config


def full(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns a configuration for CIFAR-10 with the schedule for ImageNet."""
    config.num_epochs = 90
    cifar10_conv_tied.set_rates(
        config,
        {name: factor * BASE_RATE for name, factor in cifar10_conv_free.RATES.items()},
    )
    config.optimizer.layers.readout.weight_decay = 2 * cifar10_conv_free.DECAY
    return config


def small() -> ml_collections.ConfigDict:
    """Returns a network that two cores train."""
    config = cifar10_conv_free.small()
    config.data.num_train = 128_000
    return config


VARIANTS = {
    '': published,
    'tied': lambda: full(cifar10_conv_tied.of_2022()),
    'corrected': lambda: full(cifar10_conv_free.corrected()),
    'small': small,
}
