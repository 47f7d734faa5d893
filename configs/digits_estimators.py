r"""Handwritten digits: every estimator, to see which of them train.

The setting of `digits_mlp`, with feedback initialised at 90 degrees to the transposes,
or tied with a softmax readout; one row for each estimator. No published paper has such
an experiment.

    python launch/sweep.py --config=configs/digits_estimators.py \
        --workdir=runs/digits_estimators        # --dry_run prints the single commands

Measured on 2 cores of an AMD EPYC, float32, 2026-11-23, commits d0093fa to f3cf02c,
seeds 0, 1, 2: docs/results.md has the table, results/digits_estimators.json the runs.
How the hyperparameters were chosen: results/log/digits_estimators.md.
"""

from collections.abc import Callable
from typing import Any

import ml_collections

from eqprop_jax.config import variants

digits_mlp = variants.beside(__file__, 'digits_mlp')

PLAIN = {'estimator.correction': None}
TIED = {  # the cost with the smaller held-out error, by recurrent backprop
    'system.feedback': 'tied',
    'system.angle': None,
    'system.cost': 'cross_entropy',
    **PLAIN,
}
REAL = {
    'estimator.radius': 0.1,
    'estimator.half_step': False,
}
ONE = {**REAL, 'estimator.contour': 'one_sided'}
LARGE = {'estimator.radius': 2.0}
CIRCLE = {**REAL, 'estimator.num_points': 4, 'estimator.radius': 0.2}
ONLINE = {
    **CIRCLE,
    'estimator.name': 'oscillation',
    'estimator.steps_per_point': 10,
}
NOISY = {
    'estimator.noise': 0.04,
    'estimator.radius': 0.5,
    'estimator.num_points': 6,
    'estimator.periods': 3,
}
DECAY = {'optimizer.name': 'adamw', 'optimizer.weight_decay': 3.0}


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration that the rows change."""
    config = digits_mlp.get_config()
    config.estimator.skip_unconverged = True
    return config


def sweep(add: Callable[[str, dict[str, Any]], None]) -> None:
    """Adds the rows.

    Args:
      add: takes a name and the values to change, by dotted key.
    """
    add('corrected one-sided 0.1', ONE)
    add('corrected one-sided 2', ONE | LARGE)
    add('corrected random sign', ONE | {'estimator.contour': 'random_sign'})
    add('corrected symmetric', REAL)
    add('corrected circle N=4', CIRCLE)
    add('corrected complex step', {})
    add('corrected online N=4', ONLINE)
    add('corrected online N=6, noise 0.04', ONLINE | NOISY)
    for method in ('iterative', 'neumann', 'krylov'):
        changes = {'estimator.name': 'recurrent_backprop', 'estimator.method': method}
        add(f'recurrent backprop, {method}', changes)
    for steps in (1, 2, 20):
        add(
            f'BPTT, {steps} steps',
            {'estimator.name': 'bptt', 'estimator.num_steps': steps},
        )

    add('plain one-sided 0.1', ONE | PLAIN)
    add('plain one-sided 2', ONE | LARGE | PLAIN)
    add('plain symmetric', REAL | PLAIN)
    add('plain circle N=4', CIRCLE | PLAIN)
    add('plain complex step', PLAIN)
    add('plain online N=4', ONLINE | PLAIN)
    add('tangent', {'estimator.name': 'tangent'})
    add('plain complex step, homeostasis', PLAIN | {'homeostasis.weight': 0.1})
    add(
        'plain complex step, homeostasis on a quarter of the steps',
        PLAIN | {'homeostasis.weight': 0.1, 'homeostasis.fraction': 0.25},
    )
    add('plain complex step, AdamW', PLAIN | DECAY)
    add(
        'plain complex step, AdamW, Kolen-Pollack',
        PLAIN | DECAY | {'alignment.kolen_pollack': True},
    )

    add('tied, plain one-sided 0.1', ONE | TIED)
    add('tied, plain one-sided 2', ONE | LARGE | TIED)
    add('tied, plain complex step', TIED)
    add('tied, plain online N=4', ONLINE | TIED)
    add('tied, contrastive complex step', TIED | {'estimator.name': 'contrastive'})
    add(
        'tied, contrastive symmetric',
        REAL | TIED | {'estimator.name': 'contrastive'},
    )
    add('tied, recurrent backprop', TIED | {'estimator.name': 'recurrent_backprop'})
