r"""CIFAR-10 with Jacobian homeostasis: a conv net beside the networks of `fig4_fmnist`.

Laborieux and Zenke 2024 (https://arxiv.org/abs/2309.02214) have it in a table, at the
size and from the angle of `cifar10_conv_free`. Here it is `:small` of that with half
of the channels, 16-32-64-64, from 90 degrees and for one epoch: two nudges of ±1, the
same with homeostasis, λ = 1, and corrected EP. The penalty takes one probe a step, and
not five.

    python launch/prepare_data.py --dataset=cifar10        # once
    python launch/sweep.py --config=configs/fig4_cifar10.py --workdir=runs/fig4_conv

Measured on JPEG-compressed CIFAR-10 (median PSNR 30.5 dB against the original pixels),
one core of an AMD EPYC for each row, float32, 2026-11-27, commit f4733a5, seed 0, test
error after the epoch of 49,000 images and time of training: plain 68.23 %, 11 minutes;
homeostasis 60.61 %, 28 minutes; corrected 53.98 %, 22 minutes. With homeostasis the
feedback comes to 26 degrees and the symmetric share to 0.88; 2.6 % of the test images
do not settle within 30 sweeps.
"""

from collections.abc import Callable
from typing import Any

import ml_collections

from configs import cifar10_conv_free as conv
from configs import fig4_fmnist

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
