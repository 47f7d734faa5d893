"""Trains a settling network.

    eqprop-train --config=digits_mlp --workdir=runs/digits

The configuration is one that comes with the library, by its name, or a file of one's
own by its path; digits_mlp:VARIANT takes a variant.
Any value of the configuration can be overridden: --config.optimizer.learning_rate=0.01,
and set to nothing: --config.estimator.correction=None. A value of another type than the
configuration has is written as in Python: --config.system.pooling=='max'.
A run that was interrupted, or killed, goes on by the same command. One that has
finished is left as it is; --overwrite begins it anew.

It takes all devices it finds: a batch is divided among them, or, by
--config.mesh.contour, the nudges of a contour. On a CPU JAX_NUM_CPU_DEVICES=2 makes two
devices of its cores. Under srun, and on the workers of a Cloud TPU slice, the same
command on every host makes one run; elsewhere tell them of each other:

    eqprop-train ... --coordinator=node1:1234 --num_hosts=2 --host=0
    eqprop-train ... --coordinator=node1:1234 --num_hosts=2 --host=1

They share the workdir: a folder that all of them see, or gs://bucket/folder.
"""

from eqprop_jax.cli import command, process

import importlib
import pathlib
import re
import sysconfig
import traceback
from collections.abc import Mapping
from typing import Any

from absl import flags
from ml_collections import config_flags

from eqprop_jax import config, records, training
from eqprop_jax.config import builtin, changes
from eqprop_jax.config.variants import NoVariantError
from eqprop_jax.figures import curves
from eqprop_jax.training import callbacks

# Unknown keys are let through: building the experiment refuses them by name.
CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'The experiment.', lock_config=False, accept_new_attributes=True
)
WORKDIR = command.define_path(
    'workdir', None, 'Folder for the records of the run.', required=True
)
SAVE_EVERY = flags.DEFINE_float(
    'save_every',
    60.0,
    'Seconds between checkpoints, which the same command goes on from.',
    lower_bound=0,
)
KEEP = flags.DEFINE_integer(
    'keep', 2, 'Checkpoints that are left, and the best beside them.', lower_bound=1
)
OVERWRITE = flags.DEFINE_boolean(
    'overwrite', False, 'Begin a run that has finished anew; any other one goes on.'
)
COORDINATOR = flags.DEFINE_string(
    'coordinator', None, 'Address and port of the first of several hosts.'
)
NUM_HOSTS = flags.DEFINE_integer('num_hosts', None, 'How many there are.')
HOST = flags.DEFINE_integer('host', None, 'Which of them this is, from 0 on.')
TIMEOUT = flags.DEFINE_float(
    'timeout',
    60.0,
    'Seconds within which hosts have to find each other, and notice one that is gone.',
    lower_bound=10,
)
WANDB = flags.DEFINE_string(
    'wandb', None, 'Project of Weights & Biases for the records, too (extra [wandb]).'
)
flags.register_validator('save_every', lambda value: value >= 0, 'It is NaN.')
flags.register_validator('timeout', lambda value: value >= 10, 'It is NaN.')
flags.mark_flag_as_required('config')
command.define_cache()


@command.told
def main(argv: list[str]) -> None:
    """Builds the experiment, trains it and draws its curves."""
    command.begin(argv)
    workdir = WORKDIR.value
    training.hosts.initialize(
        COORDINATOR.value,
        NUM_HOSTS.value,
        HOST.value,
        timeout=TIMEOUT.value,
        prepare=command.tell_aborts,
    )
    training.agreement.agree(CONFIG.value.to_dict())
    experiment = config.experiment(CONFIG.value)
    anew = OVERWRITE.value
    finished = training.is_finished(experiment, workdir, anew=anew) and not anew
    if not finished:
        training.train_and_evaluate(
            experiment,
            workdir,
            save_every=SAVE_EVERY.value,
            keep=KEEP.value,
            overwrite=anew,
            callbacks=_callbacks(experiment.config),
        )
    if not training.hosts.is_first():
        return
    if finished:
        print(
            f'{workdir} holds this run, which has finished: --overwrite begins it anew'
        )
    process.interrupted = 'the run has ended, but drawing its curves was interrupted'
    try:
        if not finished or not list(records.folder(workdir).glob('curves.*')):
            curves.draw(workdir)
        print(curves.summary_line(workdir))
    except (KeyError, OSError, TypeError, ValueError) as error:
        command.fail(f'the run has ended, but its curves cannot be drawn ({error})')


def _callbacks(values: Mapping[str, Any]) -> list[callbacks.Callback]:
    """Returns what is told of the run while it trains, on the first host."""
    if WANDB.value is None or not training.hosts.is_first():
        return []
    try:
        wandb = importlib.import_module('wandb')
    except ImportError as error:
        command.fail(f"--wandb needs `pip install 'eqprop_jax[wandb]'` ({error})")
    run = wandb.init(project=WANDB.value, name=WORKDIR.value, config=dict(values))
    return [callbacks.wandb(run)]


@command.told
def _parse(argv: list[str]) -> list[str]:
    """Parses the flags; tells in one line what is wrong with them."""
    typed, exact = changes.parsed(builtin.located(argv))
    try:
        rest = flags.FLAGS(typed)
        is_config = hasattr(CONFIG.value, 'to_dict')
        if is_config:
            changes.put(CONFIG.value, exact)
    except Exception as error:  # a configuration is a program: it may raise anything
        command.fail(_reason(error, argv))
    if not is_config:
        kind = type(CONFIG.value).__name__
        command.fail(
            f'get_config() has to return a ConfigDict, not a value of type {kind}'
        )
    return rest


def _reason(error: BaseException, argv: list[str]) -> str:
    """Returns what is wrong with flags or configuration, and in which line of it."""
    is_flag = isinstance(error, flags.Error)
    if isinstance(error, NoVariantError) or (
        is_flag and 'parsing config file' not in str(error)
    ):
        return str(error)
    cause = error
    while deeper := cause.__cause__ or cause.__context__:
        cause = deeper
    paths = sysconfig.get_paths()
    library = str(pathlib.Path(__file__).resolve().parents[1])
    others = (library, paths['stdlib'], paths['purelib'], '<')
    lines = [
        f' ({frame.filename}, line {frame.lineno})'
        for frame in traceback.extract_tb(cause.__traceback__)
        if not frame.filename.startswith(others)
    ]
    nested = ' '.join(arg for arg in argv if re.match(r'--?config\.\w+[.[]', arg))
    if nested and not is_flag and not lines:
        if isinstance(error, KeyError):
            return f'{nested}: the configuration has no section {error.args[0]}'
        if isinstance(error, IndexError | TypeError):
            return f'{nested}: {error}'
    where = lines[-1] if lines else ''
    return f'cannot read the configuration: {type(cause).__name__}: {cause}{where}'


def run() -> None:
    """The command."""
    command.run(main, _parse)
