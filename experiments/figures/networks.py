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
    """Returns one line of panels for each network, or two, a panel for each metric.

    Lines are medians of the runs over epochs, bands go from the least to the most of
    them. What lies on one another is seen in the order of `style.METHODS`, the
    references below.

    Args:
      found: records of sweeps, as `experiments.results.collect` makes them: rows are
        called 'network, method'.
      paths: metrics, of PANELS; what a row has no curve of is left out of its panel.
    """
    networks: dict[str, dict[str, dict]] = {}
    for row in (row for record in found for row in record['rows']):
        network, _, method = row['name'].partition(', ')
        networks.setdefault(network, {})[method] = row['curves']
    columns = 2 if len(paths) == 4 else len(paths)
    lines = len(networks) * len(paths) // columns
    size = (2.8 * columns, 0.4 + 2.6 * lines)
    figure = Figure(figsize=size, layout='constrained')
    axes = figure.subplots(lines, columns).reshape(len(networks), len(paths))
    for line, (network, methods) in zip(axes, networks.items(), strict=True):
        for axis, path in zip(line, paths, strict=True):
            for method, curves in methods.items():
                if path in curves:
                    scale = 100 if path == 'test/error' else 1
                    shared.runs(
                        axis,
                        curves[path],
                        shared.method(method),
                        re.sub(r'homeostasis ([\d.]+)', r'homeostasis, λ = \1', method),
                        scale=scale,
                        above=shared.rank(method),
                    )
            _dress(axis, path)
        line[0].set_title(network, fontsize=10)
        if len(networks) > 1:
            room = next((axis for axis in line if not axis.lines), line[1])
            curves = line[0].get_legend_handles_labels()
            place = 'best' if room.lines else 'center left'
            room.legend(*curves, loc=place, frameon=False, fontsize=8)
    if len(networks) == 1:
        handles, labels = axes[0, 0].get_legend_handles_labels()
        place = 'outside lower center'
        figure.legend(handles, labels, loc=place, ncols=3, frameon=False, fontsize=8)
    filled = [axis for axis in axes.flat if axis.lines]
    for axis in set(axes.flat) - set(filled):
        axis.set_axis_off()
    for letter, axis in zip('abcdefghijkl', filled, strict=False):
        axis.text(-0.16, 1.02, letter, transform=axis.transAxes, weight='bold')
    figure.suptitle('\n'.join(map(shared.sweep_title, found)), fontsize=10)
    return figure


def _dress(axis: Axes, path: str) -> None:
    axis.set_ylabel(PANELS[path])
    style.over_epochs(axis)
    if path == 'eval/overall_angle':
        axis.set_ylim(0, 95)
    elif path != 'test/error':
        axis.set_ylim(min(0, axis.get_ylim()[0]), 1.03)
    style.strip(axis)
