"""Trains every row of an experiment, with several seeds, and tells how they compare.

    eqprop-sweep --config=digits_estimators --workdir=runs/sweep

The file has `get_config()` and `sweep(add)`, which calls add(name, changes) for every
row. With --config=FILE:VARIANT the rows change `get_config(variant)`, and flags like
--config.num_epochs=5, as eqprop-train has them, change it for all rows.

Runs go to WORKDIR/<row>/seed_<seed>; those that have ended are not repeated, and those
that were interrupted go on. sweep.json and sweep.png in the workdir have the table that
is printed at the end.

Runs that differ in their seed, learning rate, weight decay or the weight of the
homeostatic term alone are trained together, in one program that is compiled once: each
on a device of its own as far as there are devices, and on one device vmapped, or on a
CPU one after the other. JAX_NUM_CPU_DEVICES=2 makes two devices of a CPU's cores.

For a cluster, --dry_run prints one command a run: see launch/slurm.sbatch.
"""

from eqprop_jax.cli import command, process

import contextlib
import functools
import re
import shlex
import sys
from collections.abc import Generator
from typing import Any

import jax
import ml_collections
from absl import app, flags, logging

from eqprop_jax import config, records, training
from eqprop_jax.config import alike, builtin, changes
from eqprop_jax.figures import sweep as figure
from eqprop_jax.records import sweep
from eqprop_jax.records.sweep import Run

CONFIG = command.define_path('config', None, 'The experiment.', required=True)
WORKDIR = command.define_path('workdir', None, 'Folder of the runs.', required=True)
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
OVERRIDE = re.compile(r'--?config\.([^=]+)')
OVERRIDES: list[str] = []  # flags of this command


@command.told
def main(argv: list[str]) -> None:
    """Trains what is missing and prints the table."""
    command.begin(argv, logging.ERROR)
    module = _module()
    runs = _expand(module)
    if DRY_RUN.value:
        print('\n'.join([_command(module, run) for run in runs]))
        return
    records.folder(WORKDIR.value)  # an empty name is refused
    process.interrupted = 'interrupted; the same command goes on with what is missing'
    built = _built(module, runs)
    sweep.table(_with_others(runs, built))  # refuses before the first trains
    kept = sweep.kept(changes.rows(module['sweep']), runs, WORKDIR.value)
    _with_others(kept, _built(module, kept))
    number = 0
    for group in _groups(module, runs):
        number += len(group)
        print(f'[{number}/{len(runs)}] {_names(group)}', flush=True)
        with _naming(group[0]):
            try:
                _train(module, group)
            except (MemoryError, jax.errors.JaxRuntimeError) as error:
                _tell_too_large(group, error)
        jax.clear_caches()
        if process.asked:  # at the very end of that group
            command.fail(process.interrupted, 128 + process.asked)
    with records.locked(WORKDIR.value, wait=True):  # another sweep may end, too
        rows = sweep.table(_with_others(runs, built))
        if ONLY.value:  # the others stay
            rows = sweep.merged(rows, WORKDIR.value)
        sweep.write(rows, WORKDIR.value)
    print(sweep.text(rows))
    try:
        print(f'drawn in {figure.draw(WORKDIR.value, rows)}')
    except OSError as error:
        command.fail(str(error))


def _module() -> dict[str, Any]:
    """Returns what the file of the experiment defines, overridden by flags."""
    module = builtin.module(CONFIG.value)
    if 'sweep' not in module:
        command.fail(f'{CONFIG.value} has no sweep(add): train it by eqprop-train')
    values = module['get_config']().to_dict()
    values = changes.applied(values, changes.told(values, OVERRIDES))
    return {**module, 'get_config': lambda: ml_collections.ConfigDict(values)}


@contextlib.contextmanager
def _naming(run: Run) -> Generator[None, None, None]:
    """Ends the launcher, naming the row, by what the library tells."""
    try:
        yield
    except command.TOLD as error:
        command.fail(f'{run.row}: {error}')


def _built(module: dict[str, Any], runs: list[Run]) -> dict[str, tuple]:
    """Returns what `claim` takes of the runs of a row, by its name."""
    found = {}
    for run in {run.row: run for run in runs}.values():
        with _naming(run):
            built = _build(module, run, alone=True)
        rests_on = training.rests_on(built)
        found[run.row] = built.config, built.defaults, rests_on
    return found


def _with_others(runs: list[Run], rows: dict[str, tuple]) -> list[Run]:
    """Returns the runs, and others of their rows; none has the workdir of another."""
    every = [*runs, *sweep.others(runs, WORKDIR.value)]
    for run in every:
        config, defaults, rests_on = rows[run.row]
        own = {**config, 'seed': run.changes['seed']}
        known = {'defaults': defaults, 'rests_on': rests_on}
        with _naming(run):
            records.claim(run.workdir, own, **known, write=False)
    return every


def _train(module: dict[str, Any], group: list[Run]) -> None:
    """Trains what is missing of a group; tells what broke off, or is to be doubted."""
    missing = {
        run.workdir: _build(module, run, alone=not group[1:])
        for run in group
        if not (run.workdir / records.SUMMARY).exists()
    }
    if not missing:
        return
    dataset = next(iter(missing.values())).dataset
    ends = training.train_together(
        [experiment._replace(dataset=dataset) for experiment in missing.values()],
        list(missing),
        how=None if TOGETHER.value == 'auto' else TOGETHER.value,
    )
    for workdir, end in zip(missing, ends, strict=True):
        broke_off = isinstance(end, training.TrainingError)
        for message in [end] if broke_off else sweep.warnings(workdir):
            print(f'sweep: {workdir}: {message}', file=sys.stderr)


def _tell_too_large(group: list[Run], error: Exception) -> None:
    """Tells which runs memory does not suffice for; raises other errors again."""
    if not command.is_out_of_memory(error):
        raise error
    message = 'too large for the memory of this machine'
    print(f'sweep: {_names(group)}: {message}', file=sys.stderr)


def _names(group: list[Run]) -> str:
    """Returns which runs these are, in words."""
    rows: dict[str, list[str]] = {}
    for run in group:
        rows.setdefault(run.row, []).append(str(run.changes['seed']))
    return '; '.join(f'{row}, seed {", ".join(seeds)}' for row, seeds in rows.items())


def _expand(module: dict[str, Any]) -> list[Run]:
    """Returns all rows with all seeds, one after the other."""
    try:
        rows = changes.rows(module['sweep'])
    except config.ConfigError as error:
        command.fail(f'{CONFIG.value}: {error}')
    chosen = command.matching(ONLY, rows)
    told = {key[1] for key in map(OVERRIDE.match, OVERRIDES) if key}
    if 'seed' in told:
        command.fail('--seeds chooses the seed of every row')
    for name, row in chosen.items():
        if own := sorted(told & row.keys()):
            command.fail(f'row {name!r} sets {", ".join(own)} itself')
    seeds = ','.join(SEEDS.value)
    if not seeds or not all(s.isdecimal() and int(s) < 2**31 for s in SEEDS.value):
        command.fail(f'--seeds takes integers from 0 on, below 2^31, not {seeds!r}')
    if len(set(map(int, SEEDS.value))) < len(SEEDS.value):
        command.fail(f'--seeds={seeds} has a seed twice')
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
    """Returns the runs that are trained together, in the order of their first ones."""
    if TOGETHER.value == 'no':
        return [[run] for run in runs]
    return alike.grouped(runs, functools.partial(_values, module))


def _build(module: dict[str, Any], run: Run, *, alone: bool) -> training.Experiment:
    """Builds a run; of several each takes one device, unless told otherwise."""
    values = _values(module, run)
    devices = values.setdefault('mesh', {})
    if not alone and devices.get('data') is None:
        devices['data'] = 1
    return config.experiment(ml_collections.ConfigDict(values))


def _values(module: dict[str, Any], run: Run) -> dict[str, Any]:
    """Returns the configuration of a run as plain values."""
    return changes.applied(module['get_config']().to_dict(), run.changes)


def _command(module: dict[str, Any], run: Run) -> str:
    """Returns the command that trains one run by itself."""
    values = module['get_config']().to_dict()
    flags = [f'--config={CONFIG.value}', f'--workdir={run.workdir}', *OVERRIDES]
    flags += changes.flags(values, run.changes)
    return shlex.join([*process.command('train'), *flags])


@command.told
def _parse(argv: list[str]) -> list[str]:
    """Parses the flags; keeps those that change the configuration."""
    OVERRIDES[:] = filter(OVERRIDE.match, argv)
    return app.parse_flags_with_usage([a for a in argv if not OVERRIDE.match(a)])


def run() -> None:
    """The command."""
    command.run(main, _parse)
