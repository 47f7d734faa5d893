"""Fashion-MNIST: the MLP of `fmnist_mlp`, without the antisymmetric correction.

Plain holomorphic EP (N = 2) from 90 degrees: the baseline that the correction and
homeostasis are compared with.

    python launch/train.py --config=configs/fmnist_mlp_plain.py --workdir=runs/plain

Measured on one core of an AMD EPYC, float32, 2026-11-26, commit fc76b58, seeds 0 to 4
("two hidden layers, plain" of results/correction_fmnist.json): test error 12.81 ± 0.07
% after the last epoch. Log: results/log/fmnist_mlp.md.
"""

import ml_collections

from eqprop_jax.config import variants

fmnist_mlp = variants.beside(__file__, 'fmnist_mlp')


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the run without correction."""
    config = fmnist_mlp.get_config()
    config.estimator.correction = None
    return config
