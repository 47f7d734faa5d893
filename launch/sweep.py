"""Trains every row of an experiment, with several seeds, and tells how they compare.

    python launch/sweep.py --config=configs/digits_estimators.py --workdir=runs/sweep

The file has `get_config()` and `sweep(add)`, which calls add(name, changes) for every
row. Runs go to WORKDIR/<row>/seed_<seed>, one after the other; those that have ended
are not repeated. sweep.json in the workdir has the table that is printed at the end.
"""

import json
import os
import pathlib
import re
import runpy
import shlex
import sys
from typing import Any, NamedTuple, NoReturn

from absl import app, flags, logging

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # configurations import each other as `configs.name`

CONFIG = flags.DEFINE_string('config', None, 'The experiment.', required=True)
WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the runs.', required=True)
SEEDS = flags.DEFINE_list('seeds', ['0', '1', '2'], 'Seeds of every row.')
ONLY = flags.DEFINE_string('only', '', 'Rows whose name matches this expression.')
DRY_RUN = flags.DEFINE_bool(
    'dry_run', False, 'Print the single commands; train nothing.'
)
CACHE = flags.DEFINE_string(
    'compilation_cache',
    os.path.join(os.path.expanduser('~'), '.cache', 'eqprop_jax'),
    'Folder that keeps compiled programs between runs; empty: none.',
)


class Run(NamedTuple):
    """One row with one seed."""

    row: str
    changes: dict[str, Any]
    """By dotted key, the seed included."""
    workdir: pathlib.Path


def main(argv: list[str]) -> None:
    """Trains what is missing and prints the table."""
    if len(argv) > 1:
        raise app.UsageError(f'unexpected arguments: {" ".join(argv[1:])}')
    logging.set_verbosity(logging.ERROR)
    module = _load(pathlib.Path(CONFIG.value))
    runs = _expand(module)
    if DRY_RUN.value:
        for run in runs:
            print(_command(run))
        return
    import jax
    import ml_collections

    from eqprop_jax import build, checkpoint, records, training
    from eqprop_jax.data import NotPreparedError

    if CACHE.value:
        jax.config.update('jax_compilation_cache_dir', CACHE.value)
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    for run in {run.row: run for run in runs}.values():  # all, before the first trains
        try:
            build.experiment(ml_collections.ConfigDict(_values(module, run)))
        except (build.ConfigError, NotPreparedError) as error:
            _fail(f'{run.row}: {error}')
    failures = {}
    for number, run in enumerate(runs, start=1):
        print(
            f'[{number}/{len(runs)}] {run.row}, seed {run.changes["seed"]}', flush=True
        )
        try:
            values = ml_collections.ConfigDict(_values(module, run))
            experiment = build.experiment(values)
            if (run.workdir / records.SUMMARY).exists():
                records.claim(run.workdir, experiment.config)  # another: an error
            else:
                training.train_and_evaluate(experiment, run.workdir)
                jax.clear_caches()
        except training.TrainingError as error:
            failures[run.workdir] = str(error)
            print(f'sweep: {error}', file=sys.stderr)
        except (
            build.ConfigError,
            checkpoint.CheckpointError,
            NotPreparedError,
            records.WorkdirError,
        ) as error:
            _fail(f'{run.row}: {error}')
        except KeyboardInterrupt:
            _fail('interrupted; the same command goes on with what is missing', 130)
    rows = _table(runs, failures)
    path = pathlib.Path(WORKDIR.value) / 'sweep.json'
    if ONLY.value and path.exists():  # the others stay
        new = {row['name']: row for row in rows}
        old = {row['name']: row for row in json.loads(path.read_text())}
        rows = list((old | new).values())
    path.write_text(json.dumps(rows, indent=2) + '\n', encoding='utf-8')
    print(_text(rows))


def _load(path: pathlib.Path) -> dict[str, Any]:
    """Returns the names that an experiment's file defines."""
    if not path.is_file():
        _fail(f'cannot read the configuration: {path} does not exist')
    module = runpy.run_path(str(path))
    if 'sweep' not in module:
        _fail(f'{path} has no sweep(add): train it by launch/train.py')
    return module


def _expand(module: dict[str, Any]) -> list[Run]:
    """Returns all rows with all seeds, one after the other."""
    rows: dict[str, dict[str, Any]] = {}

    def add(name: str, changes: dict[str, Any]) -> None:
        if name in rows:
            _fail(f'{CONFIG.value} has two rows called {name!r}')
        rows[name] = dict(changes)

    module['sweep'](add)
    try:
        chosen = {n: row for n, row in rows.items() if re.search(ONLY.value, n)}
    except re.error as error:
        _fail(f'--only={ONLY.value} is no regular expression: {error}')
    if len({_slug(name) for name in rows}) < len(rows):
        _fail(f'{CONFIG.value} has rows whose names differ in punctuation only')
    if not chosen:
        _fail(f'--only={ONLY.value}: choose from {", ".join(rows)}')
    if not all(seed.isdecimal() for seed in SEEDS.value):
        _fail(f'--seeds takes integers, not {",".join(SEEDS.value)}')
    if len(set(map(int, SEEDS.value))) < len(SEEDS.value):
        _fail(f'--seeds={",".join(SEEDS.value)} has a seed twice')
    folder = pathlib.Path(WORKDIR.value)
    return [
        Run(name, {**changes, 'seed': int(seed)}, folder / _slug(name) / f'seed_{seed}')
        for name, changes in chosen.items()
        for seed in SEEDS.value
    ]


def _slug(name: str) -> str:
    """Returns a folder's name: letters, digits, dots and underscores."""
    return re.sub(r'[^a-z0-9.]+', '_', name.lower()).strip('_')


def _values(module: dict[str, Any], run: Run) -> dict[str, Any]:
    """Returns the configuration of a run as plain values."""
    values = module['get_config']().to_dict()
    for key, value in run.changes.items():
        *sections, last = key.split('.')
        section = values
        for name in sections:
            if not isinstance(section.get(name), dict):
                _fail(f'{run.row}: the configuration has no section of {key!r}')
            section = section[name]
        section[last] = value
    return values


def _command(run: Run) -> str:
    """Returns the command that trains one run by itself."""
    module = [f'--config={CONFIG.value}', f'--workdir={run.workdir}']
    changes = [f'--config.{key}={value}' for key, value in run.changes.items()]
    return shlex.join(['python', 'launch/train.py', *module, *changes])


def _table(runs: list[Run], failures: dict[pathlib.Path, str]) -> list[dict[str, Any]]:
    """Returns for every row what its runs came to; None for a run that broke off."""
    import numpy as np

    rows: dict[str, dict[str, Any]] = {}
    for run in runs:
        row = rows.setdefault(
            run.row,
            {
                'name': run.row,
                'changes': {k: v for k, v in run.changes.items() if k != 'seed'},
                'seeds': [],
                'last': [],
                'held_out_last': [],
                'train_seconds': [],
            },
        )
        row['seeds'].append(run.changes['seed'])
        done = {'last': None, 'held_out_last': None, 'train_seconds': None}
        if run.workdir not in failures:
            summary = json.loads((run.workdir / 'summary.json').read_text())
            last = summary['last']
            done['last'] = round(100 * last['test']['error'], 3)
            if 'eval' in last:
                done['held_out_last'] = round(100 * last['eval']['error'], 3)
            done['train_seconds'] = round(summary['train_seconds'], 2)
        for key, value in done.items():
            row[key].append(value)
    for row in rows.values():
        errors = [error for error in row['last'] if error is not None]
        row['mean'] = round(float(np.mean(errors)), 3) if errors else None
        row['std'] = round(float(np.std(errors, ddof=1)), 3) if errors[1:] else None
    return list(rows.values())


def _text(rows: list[dict[str, Any]]) -> str:
    width = max(len(row['name']) for row in rows)
    lines = [f'{"":{width}}  test error %, last epoch']
    for row in rows:
        mean = 'broke off' if row['mean'] is None else f'{row["mean"]:6.2f}'
        std = '' if row['std'] is None else f' ± {row["std"]:.2f}'
        singles = ', '.join('-' if e is None else f'{e:.2f}' for e in row['last'])
        lines.append(f'{row["name"]:{width}}  {mean}{std}   ({singles})')
    return '\n'.join(lines)


def _fail(message: str, code: int = 1) -> NoReturn:
    print(f'sweep: {message}', file=sys.stderr)
    sys.exit(code)


if __name__ == '__main__':
    app.run(main)
