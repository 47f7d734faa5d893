"""Fashion-MNIST as in `fmnist_mlp`, without the antisymmetric correction.

Plain holomorphic equilibrium propagation (N = 2) from angle 90: the baseline that the
correction and homeostasis are held against.

    python launch/train.py --config=configs/fmnist_mlp_plain.py --workdir=runs/plain

Measured on one core of an AMD EPYC, float32, 2026-11-26, commit fc76b58, seeds 0 to 4
(results/correction_fmnist.json, "two hidden layers, plain", which is this configuration
in a sweep): test error 12.81 ± 0.07 % after the last epoch, 12.87 ± 0.07 at the best
epoch on held-out images. The gradient's cosine to the exact one falls from 0.77 to 0.86
after the first epoch to 0.57 to 0.63 after the last.
"""

import ml_collections

from configs import fmnist_mlp


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the run without correction."""
    config = fmnist_mlp.get_config()
    config.estimator.correction = None
    return config
