r"""Fashion-MNIST, the correction against homeostasis against recurrent backprop.

No published paper has these side by side. Rows: corrected EP, plain EP with homeostasis
and without, recurrent backprop, and backprop of the feed-forward network, on the
network of `fmnist_mlp` with two and with four hidden layers of 256 units; feedback
starts at 90 degrees to the transposes, two nudges of ±0.1, Adam with cosine decay from
1e-3, 10 epochs (`:long`: 30), 55,000 training images. λ is that of
`fmnist_mlp_homeostasis`, chosen on held-out images of the network with two layers, of
10 epochs. Recurrent backprop leaves out the examples whose solve does not converge:
with them two seeds of five, 1 and 4, ended at 17.3 and 14.4 %, after a hundred steps
with one such example each (commit fc76b58). Of corrected EP two seeds, 3 and 4, had one
example that did not settle, too, and went on: rates, and so what nudged phases find,
are bounded.

    python launch/prepare_data.py --dataset=fashion_mnist        # once
    python launch/sweep.py --config=configs/correction_fmnist.py \
        --workdir=runs/correction

Measured on an AMD EPYC, float32, 2026-11-26, commits fc76b58 and 49613fc (recurrent
backprop), seeds 0 to 4, test error after the last epoch: corrected 11.19 ± 0.31 %,
homeostasis 12.42 ± 0.06, plain 12.81 ± 0.07, recurrent backprop 11.06 ± 0.10, backprop
of the feed-forward network 10.86 ± 0.13. `:long`, 2026-11-27, commit bcf0d17: corrected
10.82 ± 0.11 %, recurrent backprop 10.90 ± 0.21, feed-forward 10.50 ± 0.12 (seeds 0 to
4), homeostasis 11.85 ± 0.20, plain 12.37 ± 0.07 (seeds 0 to 2). While the rate is high
not all examples settle in 100 sweeps: corrected, at least 95 % (seed 2). Of 50 epochs,
begun at commit 12b1b54 and stopped in the eighteenth for their time, 85 % did in the
worst of seeds (2, metrics.jsonl). Four hidden layers: not yet run.
"""

from collections.abc import Callable
from typing import Any

import ml_collections

from configs import fmnist_mlp
from eqprop_jax.config import variants

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
    """Returns the configuration that the rows change: '' or 'long'."""
    return variants.choose(variant, VARIANTS)


def long() -> ml_collections.ConfigDict:
    """Returns it for 30 epochs, diagnosed after every fifth of them."""
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
