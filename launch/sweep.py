"""Trains every row of an experiment, with several seeds, and tells how they compare.

    python launch/sweep.py --config=configs/digits_estimators.py --workdir=runs/sweep

The file has `get_config()` and `sweep(add)`, which calls add(name, changes) for every
row. With --config=FILE:VARIANT the rows change `get_config(variant)`.

Runs go to WORKDIR/<row>/seed_<seed>; those that have ended are not repeated, and those
that were interrupted go on. sweep.json and sweep.png in the workdir have the table that
is printed at the end.

Runs that differ in their seed, learning rate, weight decay or the weight of the
homeostatic term alone are trained together, in one program that is compiled once: each
on a device of its own as far as there are devices, and on one device vmapped, or on a
CPU one after the other. JAX_NUM_CPU_DEVICES=2 makes two devices of a CPU's cores.

For a cluster, --dry_run prints one command a run: see launch/slurm.sbatch.
"""

import functools
import json
import pathlib
import re
import runpy
import shlex
import sys
from typing import Any

import jax
import ml_collections
from absl import app, flags, logging

import command
from eqprop_jax import config, records, training
from eqprop_jax.config import variants
from eqprop_jax.figures import sweep as figure
from eqprop_jax.records import sweep
from eqprop_jax.records.sweep import Run

CONFIG = flags.DEFINE_string('config', None, 'The experiment.', required=True)
WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the runs.', required=True)
SEEDS = flags.DEFINE_list('seeds', ['0', '1', '2'], 'Seeds of every row.')
ONLY = flags.DEFINE_string('only', '', 'Rows whose name matches this expression.')
DRY_RUN = flags.DEFINE_bool(
    'dry_run', False, 'Print the single commands; train nothing.'
)
TOGETHER = flags.DEFINE_enum(
    'together',
    'auto',
    ('auto', 'vmap', 'map', 'no'),
    'How runs of one program share a device; no: each run has its own program.',
)
command.define_cache()

# Numbers in which runs of one program may differ, and those of them that none of the
# runs, or all, have at 0.
SWITCHES = ('optimizer.weight_decay', 'homeostasis.weight')
SCALARS = ('seed', 'optimizer.learning_rate', *SWITCHES)


@command.told
def main(argv: list[str]) -> None:
    """Trains what is missing and prints the table."""
    command.begin(argv, logging.ERROR)
    module = _load(CONFIG.value)
    runs = _expand(module)
    if DRY_RUN.value:
        for run in runs:
            print(_command(run))
        return
    records.folder(WORKDIR.value)  # an empty name is refused
    failures: dict[Any, str] = {}
    try:
        for run in {run.row: run for run in runs}.values():  # before the first trains
            _build(module, run, alone=True)
        number = 0
        for group in _groups(module, runs):
            run, number = group[0], number + len(group)
            print(f'[{number}/{len(runs)}] {_names(group)}', flush=True)
            failures |= _train(module, group)
            jax.clear_caches()
    except command.TOLD as error:
        command.fail(f'{run.row}: {error}')
    except KeyboardInterrupt as stop:
        message = 'interrupted; the same command goes on with what is missing'
        command.fail(message, command.exit_code(stop))
    rows = sweep.table(runs, failures)
    if ONLY.value:  # the others stay
        rows = sweep.merged(rows, WORKDIR.value)
    sweep.write(rows, WORKDIR.value)
    print(sweep.text(rows))
    try:
        print(f'drawn in {figure.draw(WORKDIR.value, rows)}')
    except OSError as error:
        command.fail(str(error))


def _train(module: dict[str, Any], group: list[Run]) -> dict[Any, str]:
    """Trains what is missing of a group; returns what broke runs off, by workdir."""
    experiments = [_build(module, run, alone=not group[1:]) for run in group]
    missing = {}
    for run, experiment in zip(group, experiments, strict=True):
        if (run.workdir / records.SUMMARY).exists():
            records.claim(run.workdir, experiment.config)  # of another run: an error
        else:
            missing[run.workdir] = experiment._replace(dataset=experiments[0].dataset)
    if not missing:
        return {}
    ends = training.train_together(
        list(missing.values()),
        list(missing),
        how=None if TOGETHER.value == 'auto' else TOGETHER.value,
    )
    failures = {
        workdir: str(end)
        for workdir, end in zip(missing, ends, strict=True)
        if isinstance(end, training.TrainingError)
    }
    for workdir, message in failures.items():
        print(f'sweep: {workdir}: {message}', file=sys.stderr)
    return failures


def _names(group: list[Run]) -> str:
    """Returns which runs these are, in words."""
    rows: dict[str, list[str]] = {}
    for run in group:
        rows.setdefault(run.row, []).append(str(run.changes['seed']))
    return '; '.join(f'{row}, seed {", ".join(seeds)}' for row, seeds in rows.items())


def _load(config: str) -> dict[str, Any]:
    """Returns what an experiment's file defines, `get_config` with its variant."""
    path, colon, variant = config.partition(':')
    if not pathlib.Path(path).is_file():
        command.fail(f'cannot read the configuration: {path} does not exist')
    try:
        module = runpy.run_path(path)
        if colon:
            module['get_config'] = functools.partial(module['get_config'], variant)
        module['get_config']()
    except variants.NoVariantError:
        raise
    except Exception as error:  # it is a program: it may raise anything
        command.fail(f'cannot read {config}: {type(error).__name__}: {error}')
    if 'sweep' not in module:
        command.fail(f'{path} has no sweep(add): train it by launch/train.py')
    return module


def _expand(module: dict[str, Any]) -> list[Run]:
    """Returns all rows with all seeds, one after the other."""
    rows: dict[str, dict[str, Any]] = {}

    def add(name: str, changes: dict[str, Any]) -> None:
        if name in rows:
            command.fail(f'{CONFIG.value} has two rows called {name!r}')
        rows[name] = dict(changes)

    module['sweep'](add)
    try:
        chosen = {n: row for n, row in rows.items() if re.search(ONLY.value, n)}
    except re.error as error:
        command.fail(f'--only={ONLY.value} is no regular expression: {error}')
    if not all(map(sweep.slug, rows)):
        command.fail(f'{CONFIG.value} has a row whose name has no letter and no digit')
    if len({sweep.slug(name) for name in rows}) < len(rows):
        command.fail(f'{CONFIG.value} has rows whose names differ in punctuation only')
    if not chosen:
        command.fail(f'--only={ONLY.value}: choose from {", ".join(rows)}')
    if not all(seed.isdecimal() for seed in SEEDS.value):
        command.fail(f'--seeds takes integers, not {",".join(SEEDS.value)}')
    if len(set(map(int, SEEDS.value))) < len(SEEDS.value):
        command.fail(f'--seeds={",".join(SEEDS.value)} has a seed twice')
    return [
        sweep.Run(
            name,
            {**changes, 'seed': int(seed)},
            sweep.folder_of(WORKDIR.value, name, int(seed)),
        )
        for name, changes in chosen.items()
        for seed in SEEDS.value
    ]


def _groups(module: dict[str, Any], runs: list[Run]) -> list[list[Run]]:
    """Returns the runs that are trained together, in the order of their first ones.

    Their configurations are equal but for numbers that one program can take.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        values = _values(module, run)
        for key in SCALARS:
            *sections, last = key.split('.')
            section = values
            for name in sections:
                section = section[name]
            if last in section:
                section[last] = bool(section[last]) if key in SWITCHES else None
        key = json.dumps(values, sort_keys=True, default=str)
        if TOGETHER.value == 'no':
            key = str(run.workdir)
        groups.setdefault(key, []).append(run)
    return list(groups.values())


def _build(module: dict[str, Any], run: Run, *, alone: bool) -> training.Experiment:
    """Builds a run; of several each takes one device, unless told otherwise."""
    values = _values(module, run)
    devices = values.setdefault('mesh', {})
    if not alone and devices.get('data') is None:
        devices['data'] = 1
    return config.experiment(ml_collections.ConfigDict(values))


def _values(module: dict[str, Any], run: Run) -> dict[str, Any]:
    """Returns the configuration of a run as plain values."""
    values = module['get_config']().to_dict()
    for key, value in run.changes.items():
        *sections, last = key.split('.')
        section = values
        for name in sections:
            if not isinstance(section.get(name), dict):
                command.fail(f'{run.row}: the configuration has no section of {key!r}')
            section = section[name]
        section[last] = value
    return values


def _command(run: Run) -> str:
    """Returns the command that trains one run by itself."""
    module = [f'--config={CONFIG.value}', f'--workdir={run.workdir}']
    changes = [f'--config.{key}={value}' for key, value in run.changes.items()]
    return shlex.join(['python', 'launch/train.py', *module, *changes])


if __name__ == '__main__':
    app.run(main)
