"""A tiny run on scikit-learn's digits, and how tests take it."""

import copy

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from eqprop_jax import training
from eqprop_jax.config import build
from eqprop_jax.data import to_device
from eqprop_jax.training import programs

TOP_LEVEL = {
    'seed': 0,
    'batch_size': 20,
    'accumulation_steps': 1,
    'num_epochs': 2,
    'log_every_steps': 3,
    'eval_every_steps': 0,
    'precision': 'float32',
    'convolution': None,
    'mesh': {'data': 1, 'contour': 1},
}

SECTIONS = {
    'data': {
        'name': 'digits',
        'normalization': 'unit',
        'std_factor': 1.0,
        'augment': {'pad': 0, 'flip': False, 'padding': 'zero'},
        'held_out': 30,
        'num_train': 110,
        'data_dir': None,
        'seed': 0,
    },
    'system': {'name': 'mlp', 'sizes': (64, 16, 16, 10), 'feedback': 'free'},
    'solver': {'name': 'relaxation', 'tol': 1e-3, 'max_steps': 50},
    'nudged_solver': {'name': 'relaxation', 'tol': 1e-3, 'max_steps': 50},
    'estimator': {
        'name': 'contour',
        'contour': 'circle',
        'radius': 0.5,
        'num_points': 2,
        'correction': 'antisymmetric',
    },
    'homeostasis': {'weight': 0.0, 'num_probes': 5, 'form': 'difference'},
    'alignment': {'kolen_pollack': False},
    'optimizer': {'name': 'adam', 'learning_rate': 1e-3, 'schedule': 'constant'},
    'diagnostics': {'every_evals': 0, 'num_examples': 20, 'num_probes': 4},
}

FEEDFORWARD = {
    'system': {'name': 'feedforward', 'sizes': (64, 16, 16, 10)},
    'estimator': {'name': 'recurrent_backprop'},
}


def values(changes=None, *, without=None):
    """Returns the configuration as plain values.

    Args:
      changes: by dotted key, {'estimator.radius': 0.1}; None values are kept.
      without: a dotted key to leave out.
    """
    tree = copy.deepcopy(TOP_LEVEL | SECTIONS)
    for key, value in (changes or {}).items():
        section, last = _holder(tree, key)
        section[last] = value
    if without:
        section, last = _holder(tree, without)
        del section[last]
    return tree


def config(changes=None, **options):
    """Returns `values` as a ConfigDict."""
    return ml_collections.ConfigDict(values(changes, **options))


def experiment(changes=None, **options):
    """Returns the run of that configuration, built."""
    return build.experiment(config(changes, **options))


def train(experiment, workdir):
    """Trains without a progress bar."""
    return training.train_and_evaluate(experiment, workdir, progress=False)


def run_chunk(experiment, state, epoch, first, num_steps):
    """Takes some steps; returns the state and the chunk."""
    position = map(jnp.int32, (epoch, first, num_steps))
    split = to_device(experiment.dataset.train)
    return programs.make_train_chunk(experiment)(state, split, *position)


def assert_equal(actual, wanted):
    """Asserts that two trees are the same to the bit."""
    jax.tree.map(np.testing.assert_array_equal, actual, wanted)


def _holder(tree, key):
    *sections, last = key.split('.')
    for section in sections:
        tree = tree[section]
    return tree, last
