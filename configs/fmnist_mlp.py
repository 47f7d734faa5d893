"""Fashion-MNIST, untied network from angle 90, corrected EP with two nudges.

The setting of Fig. 3 and 4 of Laborieux and Zenke 2024 (https://arxiv.org/abs/2309.02214):
784-256-256-10, sigmoid(4z − 2), batch 50, feedback starting at 90 degrees to the
transposes. Differences: softmax readout, Adam with cosine decay from 1e-3, 10 epochs,
55,000 training images (5,000 are held out), relaxation to a tolerance.

    python launch/prepare_data.py --dataset=fashion_mnist        # once
    python launch/train.py --config=configs/fmnist_mlp.py --workdir=runs/fmnist

MEASURED_FMNIST
"""

import ml_collections

from configs import defaults


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the corrected run."""
    config = defaults.get_config()
    config.num_epochs = 10
    config.log_every_steps = 100
    config.data.name = 'fashion_mnist'
    config.data.held_out = 5000
    config.system.sizes = (784, 256, 256, 10)
    return config
