"""Fashion-MNIST as in `fmnist_mlp`, without the antisymmetric correction.

Plain holomorphic equilibrium propagation (N = 2) from angle 90: the baseline that the
correction and homeostasis are held against.

    python launch/train.py --config=configs/fmnist_mlp_plain.py --workdir=runs/plain

MEASURED_PLAIN
"""

import ml_collections

from configs import fmnist_mlp


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the run without correction."""
    config = fmnist_mlp.get_config()
    config.estimator.correction = None
    return config
