r"""Fashion-MNIST: the MLP of `fmnist_mlp`, plain EP with Jacobian homeostasis.

Fig. 4a-d of Laborieux and Zenke 2024 (https://arxiv.org/abs/2309.02214) has λ = 1.0
with AdamW at 1e-4; here λ = 0.1 with the optimizer of `fmnist_mlp`.

    python launch/train.py --config=configs/fmnist_mlp_homeostasis.py \
        --workdir=runs/homeostasis

Measured on one core of an AMD EPYC, float32, 2026-11-26, commit fc76b58, seeds 0 to 4
("two hidden layers, homeostasis" of results/correction_fmnist.json): test error 12.42 ±
0.06 % after the last epoch. Log, and how λ was chosen: results/log/fmnist_mlp.md.
"""

import ml_collections

from eqprop_jax.config import variants

fmnist_mlp_plain = variants.beside(__file__, 'fmnist_mlp_plain')


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the run with homeostasis."""
    config = fmnist_mlp_plain.get_config()
    config.homeostasis.weight = 0.1
    return config
