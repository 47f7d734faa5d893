"""The table of results: every number of it from a record in results/.

A record is the JSON of a configuration: what was run, by which command, commit and
machine, and what every seed came to. Those of a sweep have `rows`. `table.json` says
which of them are lines of the table, in what order and under which names:

    [{"title": "...", "lines": [{"record": "fmnist_mlp", "row": "...", "name": "..."}]}]
"""

import datetime
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
    commit: str | None = None,
) -> dict[str, Any]:
    """Returns the record of a sweep that has ended.

    Args:
      workdir: of the sweep.
      config: its file.
      published: numbers to be held against, by row.
      hardware: what it ran on, in words.
      commit: of the code that trained; None: that the summaries of the runs name.

    Raises:
      WorkdirError: if a file of the sweep is missing or damaged, or if its runs are
        those of several commits.
    """
    folder = files.folder(workdir)
    path = folder / f'{sweep.NAME}.json'
    try:
        rows = files.parse_rows(path.read_bytes())
    except (OSError, ValueError) as error:
        raise WorkdirError(f'{path} cannot be read ({error})') from error
    commits, dates = set(), set()
    for row in rows:
        for seed in row['seeds']:
            place = sweep.folder_of(folder, row['name'], seed)
            row['num_epochs'] = run.read_config(place)['num_epochs']
            summary = files.read_json(place / writer.SUMMARY)
            commits.add(commit or summary.get('commit'))
            dates.add(summary.get('date'))
        row['published'] = published.get(row['name'])
    if len(commits) > 1:
        names = ', '.join(sorted(map(str, commits)))
        raise WorkdirError(f'{folder} has runs of several commits: {names}')
    date = max(filter(None, dates), default=datetime.date.today().isoformat())
    return {
        'config': config,
        'command': f'python launch/sweep.py --config={config} --workdir=WORKDIR',
        'metric': 'test error in percent; mean and std of the last epoch',
        'hardware': hardware,
        'date': date,
        'commit': commits.pop() if commits else None,
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
    path = files.folder(folder) / f'{CONTENTS}.json'
    try:
        parts = files.parse_rows(path.read_bytes())
    except (OSError, ValueError) as error:
        raise WorkdirError(f'{path} cannot be read ({error})') from error
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
