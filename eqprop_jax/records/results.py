"""The table of results: every number of it from a record in results/.

A record is the JSON of a configuration: what was run, by which command, commit and
machine, and what every seed came to. Those of a sweep have `rows`. `table.json` says
which of them are lines of the table, in what order and under which names:

    [{"title": "...", "lines": [{"record": "fmnist_mlp", "row": "...", "name": "..."}]}]
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from eqprop_jax.records import drawn, files, run, sweep, writer
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
) -> dict[str, Any]:
    """Returns the record of a sweep that has ended.

    Args:
      workdir: of the sweep.
      config: its file.
      published: numbers to be held against, by row.
      hardware: what it ran on, in words.

    Returns:
      The configuration, the command, and the rows of sweep.json, each with its
      `num_epochs`, the latest `date` and all `commit`s of its runs, and the number
      `published`.

    Raises:
      WorkdirError: if a file of the sweep is missing or damaged.
    """
    folder = files.folder(workdir)
    rows = _rows(folder / f'{sweep.NAME}.json')
    for row in rows:
        try:
            places = [sweep.folder_of(folder, row['name'], s) for s in row['seeds']]
            row['num_epochs'] = run.read_config(places[0])['num_epochs']
            summaries = [
                files.read_json(place / writer.SUMMARY)
                for place, last in zip(places, row['last'], strict=True)
                if last is not None  # else it broke off
            ]
            row['date'] = max((found['date'] for found in summaries), default=None)
            row['commit'] = ', '.join(sorted({found['commit'] for found in summaries}))
        except (KeyError, TypeError, ValueError) as error:
            raise WorkdirError(f'{folder} has a damaged run ({error!r})') from error
        row['published'] = published.get(row['name'])
    return {
        'config': config,
        'command': f'python launch/sweep.py --config={config} --workdir=WORKDIR',
        'metric': 'test error in percent; mean and std of the last epoch',
        'hardware': hardware,
        'rows': rows,
    }


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

    Args:
      folder: of the records and of table.json.

    Raises:
      WorkdirError: if one is missing or damaged.
    """
    parts = _rows(files.folder(folder) / f'{CONTENTS}.json')
    return '\n\n'.join(_part(folder, part) for part in parts)


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


def _part(folder: Folder, part: Mapping[str, Any]) -> str:
    head = [text.format(title=part['title']) for text in HEAD]
    return '\n'.join([*head, *(_line(folder, entry) for entry in part['lines'])])


def _line(folder: Folder, entry: Mapping[str, Any]) -> str:
    found = line(folder, entry['record'], entry.get('row'))
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
