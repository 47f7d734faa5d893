"""CIFAR-10 with Jacobian homeostasis: a conv net beside `fig4_fmnist`.

Laborieux and Zenke 2024 (https://arxiv.org/abs/2309.02214) have it in a table, at full
size (`cifar10_conv_free`). Here: 16-32-64-64 channels, feedback from 90 degrees, one
epoch of JPEG-compressed images, two nudges of ±1, homeostasis with λ = 1.

    python launch/prepare_data.py --dataset=cifar10        # once
    python launch/sweep.py --config=configs/fig4_cifar10.py --workdir=runs/fig4_conv

Published for the full network after 150 epochs: plain 39.6 %, homeostasis 18.6 %.
Measured on one core of an AMD EPYC for each row, float32, 2026-11-27, commit f4733a5,
seed 0: plain 68.23 %, homeostasis 60.61 %, corrected 53.98 %. Log:
results/log/fig4_cifar10.md.
"""

from collections.abc import Callable
from typing import Any

import ml_collections

from eqprop_jax.config import variants

conv = variants.beside(__file__, 'cifar10_conv_free')
fig4_fmnist = variants.beside(__file__, 'fig4_fmnist')

CURVES = fig4_fmnist.CURVES


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration that the rows change."""
    config = conv.small()
    config.eval_every_steps = 306
    config.system.channels = (16, 32, 64, 64)
    config.homeostasis.num_probes = 1
    return config


def sweep(add: Callable[[str, dict[str, Any]], None]) -> None:
    """Adds the rows.

    Args:
      add: takes a name and the values to change, by dotted key.
    """
    add('conv net, plain', conv.PLAIN)
    add('conv net, homeostasis 1', conv.PLAIN | {'homeostasis.weight': 1.0})
    add('conv net, corrected', conv.CORRECTED)
