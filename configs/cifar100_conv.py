"""CIFAR-100, the networks for CIFAR-10 with 100 classes.

Laborieux and Zenke 2024 (https://arxiv.org/abs/2309.02214). Published test accuracy
(quoted second-hand): untied with homeostasis 51.1 %, without 35.2 %; tied 61.6 %.

    python launch/prepare_data.py --dataset=cifar100        # once
    python launch/train.py --config=configs/cifar100_conv.py --workdir=runs/cifar100

`:tied` has tied feedback, `:corrected` the adjoint correction from angle 90 in place of
homeostasis, and `:small` that on 32-64-128-128 for two cores.

Not yet run: the full networks need an accelerator, and the data set was not at hand.
"""

import ml_collections

from configs import cifar10_conv_free, cifar10_conv_tied, variants


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    """Returns the configuration.

    Args:
      variant: '' as published, 'tied', 'corrected' or 'small'.
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
