"""Fashion-MNIST, untied network from angle 90, corrected EP with two nudges.

The setting of Fig. 3 and 4 of Laborieux and Zenke 2024
(https://arxiv.org/abs/2309.02214):
784-256-256-10, sigmoid(4z − 2), batch 50, feedback starting at 90 degrees to the
transposes. Differences: softmax readout, Adam with cosine decay from 1e-3, 10 epochs,
55,000 training images (5,000 are held out), relaxation to a tolerance.

    python launch/prepare_data.py --dataset=fashion_mnist        # once
    python launch/train.py --config=configs/fmnist_mlp.py --workdir=runs/fmnist

Measured on one core of an AMD EPYC, float32, 2026-11-26, commit fc76b58, seeds 0 to 4
(results/correction_fmnist.json, "two hidden layers, corrected", which is this
configuration in a sweep): test error 11.19 ± 0.31 % after the last epoch, 11.23 ± 0.36
at the best epoch on held-out images. Beside it, in the same record: recurrent backprop
11.06 ± 0.10 %, and backprop of the feed-forward network 10.86 ± 0.13. Published (quoted
second-hand) from angle 0 with N = 6, β = 0.5 and 50 epochs: 14.3 %.
"""

import ml_collections

from eqprop_jax.config import defaults


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the corrected run."""
    config = defaults.get_config()
    config.num_epochs = 10
    config.log_every_steps = 100
    config.data.name = 'fashion_mnist'
    config.data.held_out = 5000
    config.system.sizes = (784, 256, 256, 10)
    return config
