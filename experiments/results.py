"""The table of results: every number of it from a record in results/.

A record is the JSON of a configuration: what was run, by which command, commit and
machine, and what every seed came to. Those of a sweep have `rows`. `table.json` says
which of them are lines of the table, in what order and under which names:

    [{"title": "...", "lines": [{"record": "fmnist_mlp", "row": "...", "name": "..."}]}]
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eqprop_jax.records import claims, drawn, files, run, sweep, writer
from eqprop_jax.records.files import Folder, WorkdirError

CONTENTS = 'table'
BEGIN, END = '<!-- results -->', '<!-- end of results -->'
HEAD = (
    '| {title} | last epoch | best epoch | published | runs | record, date |',
    '|---|---|---|---|---|---|',
)


def collect(
    workdir: Folder,
    config: str,
    *,
    published: Mapping[str, str],
    hardware: str,
    curves: Sequence[str] = (),
) -> dict[str, Any]:
    """Returns the record of a sweep that has ended.

    Args:
      workdir: of the sweep.
      config: its file.
      published: numbers to be held against, by row.
      hardware: what it ran on, in words.
      curves: metrics over epochs that figures need, as 'split/name'.

    Returns:
      The configuration, the command, and the rows of sweep.json, each with its
      `num_epochs`, the `hardware`, the latest `date` and all `commit`s of its runs, the
      number `published`, and its `curves`: for each metric that was recorded the
      `epochs` and the `values`, a list for each run.

    Raises:
      WorkdirError: if a file of the sweep is missing or damaged, or if a run has other
        numbers than sweep.json.
    """
    folder = files.folder(workdir)
    rows = _rows(folder / f'{sweep.NAME}.json')
    for row in rows:
        try:
            places = [sweep.folder_of(folder, row['name'], s) for s in row['seeds']]
            row['num_epochs'] = claims.read_config(places[0])['num_epochs']
            summaries = [
                files.read_json(place / writer.SUMMARY)
                for place, last in zip(places, row['last'], strict=True)
                if last is not None  # else it broke off
            ]
            if [sweep.came_to(place)['last'] for place in places] != row['last']:
                raise ValueError('of other numbers than sweep.json: run it again')
            row['date'] = max((found['date'] for found in summaries), default=None)
            row['commit'] = _all_of(found['commit'] or '' for found in summaries)
            if curves:
                row['curves'] = _curves(places, curves)
        except (KeyError, TypeError, ValueError) as error:
            raise WorkdirError(f'{folder} has a damaged run ({error!r})') from error
        row['published'] = published.get(row['name'])
        row['hardware'] = hardware
    return {
        'config': config,
        'command': sweep.command(config, rows),
        'metric': 'test error in percent; mean and std of the last epoch',
        'rows': rows,
    }


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a record with the rows and the seeds that an older one has beside it.

    A row of the same changes and epochs has the seeds of both, those of the new one
    where both have them. Otherwise, or if nothing of the old one is left, the new row
    takes its place. Rows that stay keep the mark of the criterion that they were
    measured by; nothing is added to those.

    Args:
      old: from `collect`.
      new: likewise, of the same configuration.

    Raises:
      WorkdirError: if the older one is the record of something else.
    """
    if 'rows' not in old:
        raise WorkdirError(f'there is a record of {new["config"]} that is no sweep')
    mark = {'criterion': old['criterion']} if 'criterion' in old else {}
    rows = {row['name']: mark | row for row in old['rows']}
    for row in new['rows']:
        if (before := rows.get(row['name'])) and _goes_on(before, row):
            row = _with_seeds(before, row)
        rows[row['name']] = row
    every = list(rows.values())
    return {**new, 'command': sweep.command(new['config'], every), 'rows': every}


def _goes_on(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether a row is the same as an older one that has seeds beside it."""
    same = all(old[key] == new[key] for key in ('changes', 'num_epochs'))
    more = not set(old['seeds']) <= set(new['seeds'])
    return same and more and 'criterion' not in old


def _with_seeds(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Returns a row with the seeds that an older one has beside it."""
    found = {
        seed: (row, place)
        for row in (old, new)
        for place, seed in enumerate(row['seeds'])
    }
    sources = [found[seed] for seed in sorted(found)]
    row = {**new, 'seeds': sorted(found)}
    for name in sweep.COLUMNS:
        row[name] = [source[name][place] for source, place in sources]
    row |= sweep.spread(row['last'])
    row['date'] = max(filter(None, (old['date'], new['date'])), default=None)
    row['commit'] = _all_of([old['commit'], new['commit']])
    machines = f'{old["hardware"]}; {new["hardware"]}'.split('; ')
    row['hardware'] = '; '.join(dict.fromkeys(machines))
    if 'curves' in new:
        row['curves'] = {
            path: curve
            | {'values': [source['curves'][path]['values'][i] for source, i in sources]}
            for path, curve in new['curves'].items()
        }
    return row


def _all_of(commits: Iterable[str]) -> str:
    """Returns the commits of all runs, each once; those of one may be several."""
    return ', '.join(sorted({*', '.join(commits).split(', ')} - {''}))


def line(folder: Folder, record: str, row: str | None = None) -> dict[str, Any]:
    """Returns what a record, or a row of it, came to.

    Raises:
      WorkdirError: if there is none, or none that can be read.
    """
    data = drawn.read_data(folder, record)
    if row is None:
        return data
    for found in data.get('rows', ()):
        if found['name'] == row:
            rest = {key: value for key, value in data.items() if key != 'rows'}
            return rest | found
    raise WorkdirError(f'{record}.json has no row {row!r}')


def table(folder: Folder) -> str:
    """Returns the table of results as Markdown, a part for each title.

    Records that carry a `criterion` were measured by one of settling that is no more:
    they keep their files, and have no line.

    Args:
      folder: of the records and of table.json.

    Raises:
      WorkdirError: if one is missing or damaged.
    """
    parts = _rows(files.folder(folder) / f'{CONTENTS}.json')
    shown = [_part(folder, part) for part in parts]
    return '\n\n'.join(part for part in shown if part)


def written(text: str, table: str) -> str:
    """Returns a document with the table between its marks.

    Raises:
      ValueError: if the document has no such marks.
    """
    before, found, rest = text.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        raise ValueError(f'the document has no {BEGIN} ... {END}')
    return f'{before}{BEGIN}\n\n{table}\n\n{END}{after}'


def _rows(path: files.Path) -> list[dict[str, Any]]:
    try:
        return files.parse_rows(path.read_bytes())
    except (OSError, ValueError) as error:
        raise WorkdirError(f'{path} cannot be read ({error})') from error


def _curves(places: Sequence[files.Path], names: Sequence[str]) -> dict[str, Any]:
    """Returns metrics of some runs over epochs, of four digits; NaN after an end."""
    found = [run.read(place) for place in places]
    result = {}
    for path in names:
        split, _, name = path.partition('/')
        series = [run.series(rows, split, name) for rows in found]
        epochs = max((epochs for epochs, _ in series), key=len)
        if epochs.size:
            values = [
                [float(f'{value:.4g}') for value in line]
                + [math.nan] * (epochs.size - line.size)
                for _, line in series
            ]
            result[path] = {'epochs': epochs.tolist(), 'values': values}
    return result


def _part(folder: Folder, part: Mapping[str, Any]) -> str:
    head = [text.format(title=part['title']) for text in HEAD]
    found = [
        (entry, line(folder, entry['record'], entry.get('row')))
        for entry in part['lines']
    ]
    lines = [_line(entry, one) for entry, one in found if 'criterion' not in one]
    return '\n'.join([*head, *lines]) if lines else ''


def _line(entry: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    name = entry.get('name') or entry['row']
    last, best = (_mean(found[column]) for column in ('last', 'best'))
    if entry.get('bold'):
        last = f'**{last}**'
    count, epochs = len(found['seeds']), found.get('num_epochs')
    runs = f'{count} seed{"s" if count > 1 else ""}'
    if epochs:
        runs += f', {epochs} epoch{"s" if epochs > 1 else ""}'
    source = f'[{entry["record"]}](results/{entry["record"]}.json), {found["date"]}'
    published = found.get('published') or 'none'
    return f'| {name} | {last} | {best} | {published} | {runs} | {source} |'


def _mean(values: Sequence[float | None]) -> str:
    """Returns mean ± standard deviation of runs, with how many broke off."""
    there = [value for value in values if value is not None]
    if not there:
        return 'broke off'
    text = f'{statistics.mean(there):.2f}'
    if there[1:]:
        text += f' ± {statistics.stdev(there):.2f}'
    missing = len(values) - len(there)
    return f'{text} ({missing} broke off)' if missing else text
