"""The table of a sweep: what the runs of every row came to."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from eqprop_jax.records import files
from eqprop_jax.records.files import Folder, WorkdirError, read_json
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


def table(runs: Sequence[Run], failures: Mapping[Any, str]) -> list[dict[str, Any]]:
    """Returns for every row what its runs came to, test errors in %.

    Args:
      runs: that have ended.
      failures: what broke runs off, by workdir; None stands for their numbers.

    Returns:
      Rows in the order of the runs, with `name`, `changes`, `seeds`, the columns (a
      number for each seed), and mean and standard deviation of `last`.

    Raises:
      WorkdirError: if the summary of a run cannot be read.
    """
    rows: dict[str, dict[str, Any]] = {}
    for run in runs:
        changes = {key: value for key, value in run.changes.items() if key != 'seed'}
        new = {'name': run.row, 'changes': changes, 'seeds': []}
        row = rows.setdefault(run.row, {**new, **{key: [] for key in COLUMNS}})
        row['seeds'].append(run.changes['seed'])
        broke_off = run.workdir in failures
        found = dict.fromkeys(COLUMNS) if broke_off else _came_to(run.workdir)
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


def merged(rows: list[dict[str, Any]], workdir: Folder) -> list[dict[str, Any]]:
    """Returns the rows, and those that a workdir has beside them.

    Raises:
      WorkdirError: if what it has cannot be read.
    """
    path = files.folder(workdir) / f'{NAME}.json'
    if not path.exists():
        return rows
    try:
        old = {row['name']: row for row in files.parse_rows(path.read_bytes())}
    except (KeyError, OSError, ValueError) as error:
        raise WorkdirError(f'{path} is damaged ({error}): delete it') from error
    return list((old | {row['name']: row for row in rows}).values())


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


def _came_to(workdir: Folder) -> dict[str, float | None]:
    """Returns the numbers of a run that has ended."""
    path = files.folder(workdir) / SUMMARY
    summary = read_json(path)
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


def _percent(metrics: Mapping[str, Any]) -> float:
    return round(100 * metrics['error'], 3)
