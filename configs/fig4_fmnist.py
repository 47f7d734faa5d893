r"""Fashion-MNIST with Jacobian homeostasis, Fig. 4a-h of Laborieux and Zenke 2024.

https://arxiv.org/abs/2309.02214. MLP: the network of `table1_fmnist` from an angle of
90 degrees, AdamW at 1e-4 without decay, EP in the limit of small nudges, λ = 0 and 1.
Loop: the last of the layers feeds back to the first one only, SGD with momentum 0.9 at
0.01, two nudges of ±0.5, λ = 0 and 0.1; in the limit of small nudges runs fall apart
with homeostasis as without it (53 ± 32 and 63 ± 26 % error after ten epochs, three
seeds, commit f555829). Beside them, which the paper has not, corrected EP. 10 epochs
and not 50, on 55,000 training images.

    python launch/prepare_data.py --dataset=fashion_mnist        # once
    python launch/sweep.py --config=configs/fig4_fmnist.py --workdir=runs/fig4

Measured, test error after the last epoch, three seeds: MLP plain 15.6 ± 0.3 %, with
homeostasis 14.2 ± 0.3, corrected 13.2 ± 0.3; loop 14.9 ± 0.3, 15.0 ± 0.8, 12.5 ± 0.4.
Commit 49613fc; the rows that are not corrected came out as at f555829 and bebf71c to
the digit. Machines are in results/fig4_fmnist.json.
"""

from collections.abc import Callable
from typing import Any

import ml_collections

from configs import table1_fmnist

LIMIT = table1_fmnist.TANGENT
TWO = {'estimator.num_points': 2}
CORRECTED = table1_fmnist.CORRECTED
MLP = {'optimizer.name': 'adamw', 'optimizer.learning_rate': 1e-4}
LOOP = {'system.name': 'loop'}
CURVES = ('test/error', 'eval/symmetric_share', 'eval/gradient_cosine')


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration that the rows change."""
    config = table1_fmnist.get_config()
    config.num_epochs = 10
    config.system.angle = 90.0
    config.diagnostics.every_evals = 1
    return config


def sweep(add: Callable[[str, dict[str, Any]], None]) -> None:
    """Adds the rows.

    Args:
      add: takes a name and the values to change, by dotted key.
    """
    kinds = (('MLP', MLP, LIMIT, 1.0), ('loop', LOOP, TWO, 0.1))
    for kind, common, plain, weight in kinds:
        homeostasis = {'homeostasis.weight': weight}
        add(f'{kind}, plain', common | plain)
        add(f'{kind}, homeostasis {weight:g}', common | plain | homeostasis)
        add(f'{kind}, corrected', common | CORRECTED)
