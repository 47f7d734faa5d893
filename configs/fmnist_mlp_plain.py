"""Fashion-MNIST as in `fmnist_mlp`, without the antisymmetric correction.

Plain holomorphic equilibrium propagation (N = 2) from angle 90: the baseline that the
correction and homeostasis are held against.

    python launch/train.py --config=configs/fmnist_mlp_plain.py --workdir=runs/plain

Measured on 2 cores of an AMD EPYC, float32, 2026-11-23, commit e1d78d0, seeds 0, 1, 2:
test error 13.31, 13.10, 13.44 % after the last epoch (mean 13.28, std 0.17), and 13.35,
13.26, 13.37 % at the best epoch on held-out images; 3.4 s an epoch. The gradient's
cosine to the exact one falls from 0.76 to 0.54 over the run (seed 0). Five seeds of
2026-11-26, commit fc76b58: 12.81 ± 0.07 % (results/correction_fmnist.json); which of
the changes in between that comes from was not looked into.
"""

import ml_collections

from configs import fmnist_mlp


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the run without correction."""
    config = fmnist_mlp.get_config()
    config.estimator.correction = None
    return config
