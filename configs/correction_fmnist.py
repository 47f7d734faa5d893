r"""Fashion-MNIST: corrected EP, homeostasis and recurrent backprop on one network.

No published paper compares these side by side. Rows: five methods, each on the network
of `fmnist_mlp` with two and with four hidden layers of 256 units, two nudges of ±0.1,
10 epochs (`:long`: 30).

    python launch/prepare_data.py --dataset=fashion_mnist        # once
    python launch/sweep.py --config=configs/correction_fmnist.py \
        --workdir=runs/correction

Measured on an AMD EPYC, float32, 2026-11-26, commits fc76b58 and 49613fc, seeds 0 to 4:
corrected 11.19 ± 0.31 %, homeostasis 12.42 ± 0.06, plain 12.81 ± 0.07, recurrent
backprop 11.06 ± 0.10, feed-forward backprop 10.86 ± 0.13. Four hidden layers have not
been run. `:long` and log: results/log/correction_fmnist.md.
"""

from collections.abc import Callable
from typing import Any

import ml_collections

from eqprop_jax.config import variants

fmnist_mlp = variants.beside(__file__, 'fmnist_mlp')

PLAIN = {'estimator.correction': None}
RBP = {'estimator.name': 'recurrent_backprop'}
METHODS = {
    'corrected': {},
    'homeostasis': PLAIN | {'homeostasis.weight': 0.1},
    'plain': PLAIN,
    'recurrent backprop': RBP | {'estimator.skip_unconverged': True},
    'feed-forward backprop': RBP | {'system.name': 'feedforward'},
}
HIDDEN = {'two hidden layers': 2, 'four hidden layers': 4}
CURVES = (
    'test/error',
    'eval/gradient_cosine',
    'eval/symmetric_share',
    'eval/overall_angle',
)


def get_config(variant: str = '') -> ml_collections.ConfigDict:
    """Returns the configuration that the rows change: corrected EP.

    Args:
      variant: '' with 10 epochs, or 'long' with 30.
    """
    return variants.choose(variant, VARIANTS)


def long() -> ml_collections.ConfigDict:
    """Returns it for 30 epochs, with a diagnosis every five epochs."""
    config = fmnist_mlp.get_config()
    config.num_epochs = 30
    config.diagnostics.every_evals = 5
    return config


VARIANTS = {'': fmnist_mlp.get_config, 'long': long}


def sweep(add: Callable[[str, dict[str, Any]], None]) -> None:
    """Adds the rows.

    Args:
      add: takes a name and the values to change, by dotted key.
    """
    for network, layers in HIDDEN.items():
        sizes = {'system.sizes': (784, *[256] * layers, 10)}
        for method, changes in METHODS.items():
            add(f'{network}, {method}', changes | sizes)
