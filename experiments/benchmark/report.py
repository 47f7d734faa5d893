"""Rows of a benchmark: as its file has them, as a table, beside an earlier run."""

import re
import statistics
from collections.abc import Mapping
from typing import Any

from experiments.benchmark.measure import Measurement
from experiments.benchmark.methods import BACKPROP, COMPLEX, PUBLISHED, REAL

RIGHT = 0.05  # |δ̂ − δ| / |δ| of the worst layer up to which a gradient is the exact one
MARKED = re.compile(r'<!-- benchmark (.+?) -->.*?<!-- end of benchmark -->', re.DOTALL)
TITLES = {
    'mlp trained': 'MLP from 0°, after an epoch',
    'mlp': 'MLP',
    'conv': 'conv net',
}
COLUMNS = {
    'method': '<31',
    'ms/step': '>16',
    'compile s': '>9',
    'evals': '>7',
    'GFLOP': '>8',
    'of peak': '>8',
    'MiB': '>7',
    'cosine': '>7',
    'worst layer': '>18',
    'settled': '>8',
    'x published': '>12',
    'x backprop': '>11',
}


def rows(
    case: str, found: Mapping[str, Measurement], peak: float
) -> list[dict[str, Any]]:
    """Returns what was measured on a network, as the JSON file has it.

    Ratios are medians of those within a round; None where the other row is not there.
    What a gradient costs relative to backprop is said of gradients that are right: None
    where δ is off by more than `RIGHT` in its worst layer.

    Args:
      case: 'network/batch'.
      found: by method.
      peak: operations a second of a large product.
    """

    def ratio(numerator: str, denominator: str) -> float | None:
        if not {numerator, denominator} <= set(found):
            return None
        both = zip(found[numerator].seconds, found[denominator].seconds, strict=False)
        return statistics.median(a / b for a, b in both)

    name, batch = case.split('/')
    made = []
    for method, one in found.items():
        right = one.worst_layer_error is None or one.worst_layer_error <= RIGHT
        seconds = statistics.median(one.seconds)
        made.append(
            {
                'network': name,
                'batch': int(batch),
                'method': method,
                'seconds_per_step': seconds,
                'seconds_spread': _spread(one.seconds),
                'compile_seconds': one.compile_seconds,
                'field_evaluations': one.field_evaluations,
                'flops': one.flops,
                'fraction_of_peak': one.flops / seconds / peak,
                'peak_memory_mib': one.peak_memory_mib,
                'cosine_to_rbp': one.cosine,
                'worst_layer': one.worst_layer,
                'worst_layer_error': one.worst_layer_error,
                'settled': one.settled,
                'speedup_over_published_schedule': ratio(PUBLISHED, method),
                'ratio_to_backprop': ratio(method, BACKPROP) if right else None,
                'ratio_to_real_sweeps': ratio(method, REAL)
                if method == COMPLEX
                else None,
            }
        )
    return made


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows of a network as text."""
    first = rows[0]
    lines = [
        f'\n{first["network"]}, batch {first["batch"]}',
        ' '.join(f'{title:{width}}' for title, width in COLUMNS.items()),
    ]
    for row in rows:
        seconds, spread = 1e3 * row['seconds_per_step'], 1e3 * row['seconds_spread']
        cells = (
            row['method'],
            f'{seconds:.2f} ± {spread:.2f}',
            f'{row["compile_seconds"]:.1f}',
            f'{row["field_evaluations"]:.1f}',
            f'{row["flops"] / 1e9:.3f}',
            f'{row["fraction_of_peak"]:.0%}',
            f'{row["peak_memory_mib"]:.0f}',
            _number(row['cosine_to_rbp'], '.4f'),
            _worst(row['worst_layer'], row['worst_layer_error']),
            _number(row['settled'], '.1%'),
            _number(row['speedup_over_published_schedule'], '.2f'),
            _number(row['ratio_to_backprop'], '.2f'),
        )
        widths = zip(cells, COLUMNS.values(), strict=True)
        lines.append(' '.join(f'{cell:{width}}' for cell, width in widths))
        if row['ratio_to_real_sweeps'] is not None:
            cost = f'{row["ratio_to_real_sweeps"]:.2f}'
            lines.append(f'  complex sweeps cost {cost} real ones')
    return '\n'.join(lines)


def comparison(rows: list[dict[str, Any]], earlier: Mapping[str, Any]) -> str:
    """Returns how many times faster each row has become, as text.

    Args:
      rows: of this run.
      earlier: an earlier run, as its file has it.
    """
    keys = ('network', 'batch', 'method')
    before = {tuple(row[key] for key in keys): row for row in earlier['rows']}
    run = earlier['run']
    when = f'{run["date"]} at {run["commit"]}, {run["hardware"]}'
    lines = [f'\ntimes faster than on {when}']
    for row in rows:
        key = tuple(row[key] for key in keys)
        if key not in before:
            lines.append(f'{"/".join(map(str, key)):40} new')
            continue
        faster = before[key]['seconds_per_step'] / row['seconds_per_step']
        lines.append(f'{"/".join(map(str, key)):40} {faster:.2f}')
    return '\n'.join(lines)


def written(text: str, rows: list[dict[str, Any]]) -> str:
    """Returns a document with its tables of a benchmark made anew.

    They stand between `<!-- benchmark CASE; CASE: METHOD; METHOD -->`, where no methods
    are all of them, and `<!-- end of benchmark -->`.

    Args:
      text: Markdown.
      rows: as the file of a benchmark has them.

    Raises:
      ValueError: for a case or a method that was not measured.
    """

    def table(found: re.Match[str]) -> str:
        cases, _, methods = found[1].partition(': ')
        made = markdown(rows, cases.split('; '), [*filter(None, methods.split('; '))])
        return f'<!-- benchmark {found[1]} -->\n\n{made}\n\n<!-- end of benchmark -->'

    return MARKED.sub(table, text)


def markdown(rows: list[dict[str, Any]], cases: list[str], methods: list[str]) -> str:
    """Returns milliseconds / worst layer / x published / x backprop, case beside case.

    Args:
      rows: as the file of a benchmark has them.
      cases: 'network/batch', one column each.
      methods: one row each; none: all.
    """
    columns: dict[str, dict[str, str]] = {case: {} for case in cases}
    for row in rows:
        case = f'{row["network"]}/{row["batch"]}'
        if case in columns:
            columns[case][row['method']] = _cell(row)
    names = methods or list(
        dict.fromkeys(name for one in columns.values() for name in one)
    )
    for name in names:
        if not any(name in one for one in columns.values()):
            raise ValueError(f'the benchmark has no method {name!r} on {cases}')
    for case, one in columns.items():
        if not one:
            raise ValueError(f'the benchmark has no network {case!r}')
    titles = [_title(case) for case in cases]
    lines = [f'| method | {" | ".join(titles)} |', '|---' * (len(cases) + 1) + '|']
    for name in names:
        cells = (columns[case].get(name, '–') for case in cases)
        lines.append(f'| {name} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def _spread(values: list[float]) -> float:
    """Returns half the distance between the quartiles, 0 of a single value."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method='inclusive')
    return (high - low) / 2


def _number(value: float | None, style: str) -> str:
    return '-' if value is None else f'{value:{style}}'


def _worst(layer: str | None, error: float | None) -> str:
    return '-' if layer is None else f'{layer} {error:.1e}'


def _title(case: str) -> str:
    name, batch = case.split('/')
    for short, long in TITLES.items():
        name = name.replace(short, long)
    return f'{name}, batch {batch}'


def _cell(row: dict[str, Any]) -> str:
    milliseconds = 1e3 * row['seconds_per_step']
    time = f'{milliseconds:,.0f}' if milliseconds >= 100 else f'{milliseconds:.2f}'
    worst = _percent(row['worst_layer_error'])
    ratios = (
        '–' if ratio is None else f'{ratio:.1f}'
        for ratio in (row['speedup_over_published_schedule'], row['ratio_to_backprop'])
    )
    return ' / '.join([time, worst, *ratios])


def _percent(error: float | None) -> str:
    if error is None:
        return '–'
    if error < 1e-4:
        return '< 0.01 %'
    return f'{100 * error:.0f} %' if error >= 0.1 else f'{100 * error:.2g} %'


def words(name: str) -> str:
    """Returns a name as it is compared: in small letters, without spaces and °."""
    return re.sub(r'[\s°]', '', name).casefold()
