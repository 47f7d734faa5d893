"""What training several networks by several methods came to, panel by panel."""

import re
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eqprop_jax import records
from eqprop_jax.figures import style
from experiments.figures import shared

PANELS = {
    'test/error': 'test error (%)',
    'eval/gradient_cosine': 'cosine to exact gradient',
    'eval/symmetric_share': 'symmetric share of J',
    'eval/overall_angle': 'angle of the feedback (°)',
}
"""Metric and label, by the name that a configuration lists in CURVES."""


def draw(
    name: str,
    record: str,
    paths: tuple[str, ...],
    folder: records.Folder,
    out: records.Folder | None,
    *,
    more: tuple[str, ...] = (),
) -> records.Path:
    """Draws <name>.png, the `figure` of some records, and returns its path.

    Args:
      name: of the picture.
      record: name of the record of a sweep.
      paths: as in `figure`.
      folder: of the records.
      out: folder of the picture; None: that of the records.
      more: names of further records, drawn below where they are there.

    Raises:
      WorkdirError: if there is no such record.
    """
    folder = records.folder(folder)
    names = [record, *(other for other in more if (folder / f'{other}.json').exists())]
    drawn = figure([records.read_data(folder, found) for found in names], paths)
    return style.save(drawn, records.folder(out or folder) / f'{name}.png')


def figure(found: Sequence[dict[str, Any]], paths: tuple[str, ...]) -> Figure:
    """Returns a column of panels for each network, or a square of four for one.

    Lines are medians of the runs over epochs, bands go from the least to the most of
    them. Letters go down the columns.

    Args:
      found: records of sweeps, as `experiments.results.collect` makes them: rows are
        called 'network, method'.
      paths: metrics, of PANELS; what a row has no curve of is left out of its panel.
    """
    networks: dict[str, dict[str, dict]] = {}
    for row in (row for record in found for row in record['rows']):
        network, _, method = row['name'].partition(', ')
        networks.setdefault(network, {})[method] = row
    square = len(networks) == 1 and len(paths) == 4
    lines = 2 if square else len(paths)
    size = (style.WIDTH, 0.9 + 1.8 * lines)
    figure = Figure(figsize=size, layout='constrained')
    axes = figure.subplots(lines, 2 if square else len(networks), squeeze=False)
    axes = axes.reshape(4, 1) if square else axes
    for column, (network, methods) in zip(axes.T, networks.items(), strict=True):
        for axis, path in zip(column, paths, strict=True):
            for method in sorted(methods, key=shared.rank):
                _curve(axis, path, method, methods[method]['curves'])
            _dress(axis, path)
        column[0].set_title(_title(network, methods))
    for line, path in zip(axes, paths, strict=True):
        first = next((axis for axis in line if axis.lines), line[0])
        first.set_ylabel(PANELS[path])
    style.compact(figure)
    shared.legend(figure, ncols=3, title=_bands(found), title_fontsize=style.SMALL)
    filled = [axis for axis in axes.T.flat if axis.lines]
    for axis in set(axes.flat) - set(filled):
        axis.set_axis_off()
    for letter, axis in zip('abcdefghijkl', filled, strict=False):
        style.letter(axis, letter)
    return figure


def _curve(axis: Axes, path: str, method: str, curves: dict[str, dict]) -> None:
    if path in curves:
        scale = 100 if path == 'test/error' else 1
        label = re.sub(r' [\d.]+$', '', method)
        look = shared.look(method)
        shared.runs(axis, curves[path], scale=scale, label=label, **look)


def _title(network: str, methods: dict[str, dict]) -> str:
    weights = re.findall(r'homeostasis ([\d.]+)', ', '.join(methods))
    title = f'{network}\n{shared.counts(list(methods.values()))}'
    return f'{title}\nλ = {weights[0]}' if weights else title


def _bands(found: Sequence[dict[str, Any]]) -> str | None:
    several = any(len(row['seeds']) > 1 for record in found for row in record['rows'])
    return 'medians, and bands from the least to the most' if several else None


def _dress(axis: Axes, path: str) -> None:
    style.over_epochs(axis)
    if path == 'eval/overall_angle':
        axis.set_ylim(0, 95)
    elif path != 'test/error':
        axis.set_ylim(min(0, axis.get_ylim()[0]), 1.06)
    style.strip(axis)
