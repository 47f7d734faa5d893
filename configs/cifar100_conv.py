"""CIFAR-100: the convolutional networks for CIFAR-10, with 100 classes.

Laborieux and Zenke 2024 (https://arxiv.org/abs/2309.02214), the CIFAR-100 results. The
sweep trains the published rows, and beside them exact gradients and the correction.

    python launch/prepare_data.py --dataset=cifar100        # once
    python launch/train.py --config=configs/cifar100_conv.py --workdir=runs/cifar100
    python launch/sweep.py --config=configs/cifar100_conv.py --workdir=runs/table2

Published test accuracy (quoted second-hand): untied with homeostasis 51.1 %, with
homeostasis and the true derivative 53.8 %, without homeostasis 35.2 %; tied 61.6 %.

Not yet run: the full networks need an accelerator, and the data set was not available.
"""

import ml_collections

from eqprop_jax.config import variants

cifar10_conv_free = variants.beside(__file__, 'cifar10_conv_free')
cifar10_conv_tied = variants.beside(__file__, 'cifar10_conv_tied')

PUBLISHED = {  # test error
    'plain': '64.8',
    'homeostasis': '48.9',
    'plain true derivative, homeostasis': '46.2',
    'tied, plain': '38.4',
}
sweep = cifar10_conv_free.sweep


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    """Returns the configuration.

    Args:
      variant: '' as published, with homeostasis; 'tied', with tied feedback;
        'corrected', the adjoint correction from 90 degrees in place of homeostasis; or
        'small', that on 32-64-128-128 channels for two cores.
    """
    config = variants.choose(variant, VARIANTS)
    config.data.name = 'cifar100'
    config.system.classes = 100
    return config


VARIANTS = {
    '': cifar10_conv_free.published,
    'tied': cifar10_conv_tied.of_2022,
    'corrected': cifar10_conv_free.corrected,
    'small': cifar10_conv_free.small,
}
