"""A tiny run on scikit-learn's digits, and how tests take it and call launchers."""

import contextlib
import copy
import io
import logging
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import warnings
from unittest import mock

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import app, flags
from absl import logging as absl_logging

from eqprop_jax import cli, training
from eqprop_jax.config import build
from eqprop_jax.data import to_device
from eqprop_jax.training import programs

ROOT = pathlib.Path(__file__).parents[1]
app.define_help_flags()  # once in a process, so that no launcher does

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
    'plugins': (),
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


def train(experiment, workdir, **options):
    """Trains without a progress bar."""
    return training.train_and_evaluate(experiment, workdir, progress=False, **options)


def run_chunk(experiment, state, epoch, first, num_steps):
    """Takes some steps; returns the state and the chunk."""
    position = map(jnp.int32, (epoch, first, num_steps))
    split = to_device(experiment.dataset.train)
    return programs.make_train_chunk(experiment)(state, split, *position)


def assert_equal(actual, wanted):
    """Asserts that two trees are the same to the bit."""
    jax.tree.map(np.testing.assert_array_equal, actual, wanted)


def launch(script, *arguments, cwd=ROOT, **environment):
    """Runs a launcher as a command does, from its flags on, but in this process.

    What it leaves behind in this process is taken back: flags, paths, settings. As a
    command it runs in single precision and on one device, where its flags say nothing
    else.

    Returns:
      What `subprocess.run` would: exit code, stdout and stderr, as text.
    """
    root, verbosity = logging.getLogger(), absl_logging.get_verbosity()
    handlers, known = root.handlers[:], set(flags.FLAGS)
    command = [str(ROOT / 'launch' / f'{script}.py'), *map(str, arguments)]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.dict(os.environ, environment),
        mock.patch.object(sys, 'argv', command),
        mock.patch.object(sys, 'path', [str(ROOT / 'launch'), *sys.path]),
        mock.patch.object(os, '_exit', sys.exit),
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(action='ignore', category=DeprecationWarning),
        jax.enable_x64(False),
        kept_settings(),
        taken_back(),
        within(120),
    ):
        try:
            runpy.run_path(command[0], run_name='__main__')
        except SystemExit as end:
            code = end.code or 0
        finally:
            for name in set(flags.FLAGS) - known:
                delattr(flags.FLAGS, name)
            forget_commands()
            flags.FLAGS.unparse_flags()
            sys.modules.pop('config_config', None)  # of --config; loaded anew on top
            root.handlers[:] = handlers
            absl_logging.set_verbosity(verbosity)
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())


def forget_commands():
    """Lets the next launcher define its flags."""
    for name in ('train', 'sweep', 'evaluate', 'diagnose', 'prepare'):
        sys.modules.pop(f'{cli.__name__}.{name}', None)
        vars(cli).pop(name, None)


@contextlib.contextmanager
def within(seconds):
    """Raises a TimeoutError in what takes longer."""

    def late(*_):
        raise TimeoutError(f'not done after {seconds} s')

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def taken_back():
    """Takes back what importing `command` changes of this process."""
    stops = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    hook = sys.unraisablehook
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for one, handler in stops.items():
            signal.signal(one, handler)


@contextlib.contextmanager
def kept_settings():
    """Takes back what launchers set of JAX."""
    names = [
        'jax_compilation_cache_dir',
        'jax_persistent_cache_min_compile_time_secs',
    ]
    values = {name: getattr(jax.config, name) for name in names}
    try:
        yield
    finally:
        for name, value in values.items():
            if getattr(jax.config, name) != value:
                jax.config.update(name, value)


def _holder(tree, key):
    *sections, last = key.split('.')
    for section in sections:
        tree = tree[section]
    return tree, last
