"""Fashion-MNIST: an untied MLP from 90 degrees, corrected EP with two nudges.

The network of Fig. 3 and 4 of Laborieux and Zenke 2024
(https://arxiv.org/abs/2309.02214): 784-256-256-10, sigmoid(4z − 2), batch 50. Different
are the softmax readout, Adam, 10 epochs, 5,000 held-out images, and tolerances.

    python launch/prepare_data.py --dataset=fashion_mnist        # once
    python launch/train.py --config=configs/fmnist_mlp.py --workdir=runs/fmnist

Measured on one core of an AMD EPYC, float32, 2026-11-26, commit fc76b58, seeds 0 to 4
("two hidden layers, corrected" of results/correction_fmnist.json): test error 11.19 ±
0.31 % after the last epoch. Published (quoted second-hand) from angle 0 with N = 6, β =
0.5 and 50 epochs: 14.3 %. Log: results/log/fmnist_mlp.md.
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
