"""The table of a sweep: what the runs of every row came to."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eqprop_jax.records import files
from eqprop_jax.records.files import Folder, WorkdirError, read_json
from eqprop_jax.records.run import check_summary
from eqprop_jax.records.writer import SUMMARY

NAME = 'sweep'
COLUMNS = ('last', 'best', 'held_out_last', 'train_seconds')


class Run(NamedTuple):
    """One row of a sweep with one seed."""

    row: str
    changes: dict[str, Any]
    """By dotted key, the seed included."""
    workdir: files.Path


def slug(name: str) -> str:
    """Returns the name of a row's folder: letters, digits, dots and underscores."""
    return re.sub(r'[^a-z0-9.]+', '_', name.lower()).strip('._')


def folder_of(workdir: Folder, row: str, seed: int) -> files.Path:
    """Returns the workdir of one run."""
    return files.folder(workdir) / slug(row) / f'seed_{seed}'


def table(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Returns for every row what its runs came to, test errors in %.

    Args:
      runs: that have ended. None stands for the numbers of one that broke off, which
        left no summary.

    Returns:
      Rows in the order of the runs, with `name`, `changes`, `seeds` (ascending), the
      columns (a number for each seed), and mean and standard deviation of `last`.

    Raises:
      WorkdirError: if the summary of a run cannot be read.
    """
    rows: dict[str, dict[str, Any]] = {}
    order = list(dict.fromkeys(run.row for run in runs))
    for run in sorted(runs, key=lambda r: (order.index(r.row), r.changes['seed'])):
        changes = {key: value for key, value in run.changes.items() if key != 'seed'}
        new = {'name': run.row, 'changes': changes, 'seeds': []}
        row = rows.setdefault(run.row, {**new, **{key: [] for key in COLUMNS}})
        row['seeds'].append(run.changes['seed'])
        found = came_to(run.workdir)
        for key, value in found.items():
            row[key].append(value)
    return [row | spread(row['last']) for row in rows.values()]


def spread(errors: Sequence[float | None]) -> dict[str, float | None]:
    """Returns `mean` and `std` (of a sample) of the runs that did not break off."""
    there = [error for error in errors if error is not None]
    return {
        'mean': round(float(np.mean(there)), 3) if there else None,
        'std': round(float(np.std(there, ddof=1)), 3) if there[1:] else None,
    }


def others(runs: Sequence[Run], workdir: Folder) -> list[Run]:
    """Returns what a workdir has of the same rows with other seeds, and has ended.

    Args:
      runs: of the rows.
      workdir: of their sweep; its sweep.json says which runs broke off.

    Raises:
      WorkdirError: if sweep.json cannot be read.
    """
    broken = {
        (slug(row['name']), seed)
        for row in _read(workdir)
        for seed, last in zip(row['seeds'], row['last'], strict=True)
        if last is None
    }
    given, found = {run.workdir for run in runs}, []
    for run in {run.row: run for run in runs}.values():
        for path in run.workdir.parent.glob('seed_*'):
            seed = path.name.removeprefix('seed_')
            if path in given or not re.fullmatch('0|[1-9][0-9]*', seed):
                continue
            if (path / SUMMARY).exists() or (slug(run.row), int(seed)) in broken:
                own = {**run.changes, 'seed': int(seed)}
                found.append(run._replace(changes=own, workdir=path))
    return found


def kept(
    rows: Mapping[str, Mapping[str, Any]], runs: Sequence[Run], workdir: Folder
) -> list[Run]:
    """Returns what a workdir has of rows that are not among the runs.

    Args:
      rows: the changes of every row of the experiment, by its name.
      runs: of the rows that are trained.
      workdir: as in `others`.
    """
    chosen, seed = {run.row for run in runs}, -1  # of none that is there
    left_out = [
        Run(name, {**row, 'seed': seed}, folder_of(workdir, name, seed))
        for name, row in rows.items()
        if name not in chosen
    ]
    return others(left_out, workdir)


def merged(rows: list[dict[str, Any]], workdir: Folder) -> list[dict[str, Any]]:
    """Returns the rows, and those that a workdir has beside them.

    Raises:
      WorkdirError: if what it has cannot be read.
    """
    old = {slug(row['name']): row for row in _read(workdir)}
    return list((old | {slug(row['name']): row for row in rows}).values())


def _read(workdir: Folder) -> list[dict[str, Any]]:
    """Returns the rows of sweep.json, none if there is none."""
    path = files.folder(workdir) / f'{NAME}.json'
    try:
        rows = files.parse_rows(path.read_bytes()) if path.exists() else []
        for row in rows:
            if not isinstance(row['name'], str) or len(row['seeds']) != len(
                row['last']
            ):
                raise ValueError(f'in row {row["name"]!r}')
        return rows
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise WorkdirError(f'{path} is damaged ({error}): delete it') from error


def write(rows: list[dict[str, Any]], workdir: Folder) -> None:
    """Writes sweep.json.

    Raises:
      WorkdirError: if it cannot be written.
    """
    files.write_json(files.folder(workdir) / f'{NAME}.json', rows)


def text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the table in words and numbers, a row a line."""
    width = max(len(row['name']) for row in rows)
    lines = [f'{"":{width}}  test error %, last epoch']
    for row in rows:
        mean = 'broke off' if row['mean'] is None else f'{row["mean"]:6.2f}'
        std = '' if row['std'] is None else f' ± {row["std"]:.2f}'
        singles = ', '.join('-' if e is None else f'{e:.2f}' for e in row['last'])
        lines.append(f'{row["name"]:{width}}  {mean}{std}   ({singles})')
    return '\n'.join(lines)


def came_to(workdir: Folder) -> dict[str, float | None]:
    """Returns the numbers of a run by column; None where it has not ended.

    Raises:
      WorkdirError: if its summary cannot be read.
    """
    path = files.folder(workdir) / SUMMARY
    if not path.exists():
        return dict.fromkeys(COLUMNS)
    summary = read_json(path)
    check_summary(workdir, summary)
    try:
        last, best = summary['last'], summary['best']
        return {
            'last': _percent(last['test']),
            'best': _percent(best['test']) if best else None,
            'held_out_last': _percent(last['eval']) if 'eval' in last else None,
            'train_seconds': round(summary['train_seconds'], 2),
        }
    except (KeyError, TypeError) as error:
        raise WorkdirError(f'{path} is damaged ({error!r})') from error


def warnings(workdir: Folder) -> list[str]:
    """Returns what a run that has ended warned of.

    Raises:
      WorkdirError: if its summary cannot be read.
    """
    return read_json(files.folder(workdir) / SUMMARY).get('warnings', [])


def _percent(metrics: Mapping[str, Any]) -> float:
    return round(100 * metrics['error'], 3)


def command(config: str, rows: Iterable[Mapping[str, Any]]) -> str:
    """Returns what makes the runs of all rows, and more where they differ in seeds."""
    every = {seed for row in rows for seed in row.get('seeds', ())}  # older ones: none
    seeds = ','.join(map(str, sorted(every)))
    return f'python launch/sweep.py --config={config} --workdir=WORKDIR --seeds={seeds}'
