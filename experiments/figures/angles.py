"""Training from feedback at several angles to the transposes, method by method."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from eqprop_jax import records
from eqprop_jax.figures import style
from experiments.figures import shared

NAME, RECORD = 'fig3', 'fig3_fmnist'
LABELS = {'plain true derivative': 'plain, small nudges'}
PATHS = {
    'eval/overall_angle': 'angle of the feedback (°)',
    'eval/gradient_cosine': 'cosine to exact gradient',
}


def draw(folder: records.Folder, out: records.Folder | None = None) -> records.Path:
    """Draws fig3.png from fig3_fmnist.json and returns its path.

    a: test error after the last epoch over the angle that the feedback starts from.
    b: the angle over epochs. c: the cosine of the gradient to that of recurrent
    backprop over epochs, medians of the runs and their range. b and c have a panel for
    each method and a colour for each initial angle; runs that broke off are missing.

    Args:
      folder: of the record of the sweep, as `experiments.results.collect` makes it:
        rows are called 'method, angle°'.
      out: folder of the picture; None: that of the record.
    """
    data = records.read_data(folder, RECORD)
    methods: dict[str, dict[float, dict]] = {}
    for row in data['rows']:
        method, _, angle = row['name'].rpartition(', ')
        methods.setdefault(method, {})[float(angle.removesuffix('°'))] = row
    names = sorted(methods, key=shared.rank)
    figure = Figure(figsize=(style.WIDTH, 6.2), layout='constrained')
    grid = figure.add_gridspec(2, 1, height_ratios=(1, 2))
    upper, lower = (figure.add_subfigure(grid[row]) for row in range(2))
    above = upper.subplots()
    below = lower.subplots(2, len(names), sharex=True, sharey='row', squeeze=False)
    for name in names:
        _errors(above, name, methods[name])
    above.set_title(f'{shared.counts(data["rows"])}; means, and a dot for each run')
    above.set_xticks(list(methods[names[0]]))
    above.set_xlabel('initial angle of the feedback (°)')
    above.set_ylabel('test error (%)')
    for line, (path, label) in zip(below, PATHS.items(), strict=True):
        line[0].set_ylabel(label)
        for axis, name in zip(line, names, strict=True):
            _curves(axis, methods[name], path)
    for axis, name in zip(below[0], names, strict=True):
        axis.set_title(LABELS.get(name, name))
        axis.set_xlabel('')
    below[0, 0].set_ylim(0, 95)
    below[1, 0].set_ylim(top=1.03)
    style.compact(figure)
    for name, axis in zip('abc', (above, *below[:, 0]), strict=True):
        style.letter(axis, name)
    shared.legend(upper, ncols=len(names))
    _legend(lower, sorted(methods[names[0]]))
    return style.save(figure, records.folder(out or folder) / f'{NAME}.png')


def _errors(axis: Axes, method: str, rows: dict[float, dict]) -> None:
    angles = sorted(rows)
    runs = [style.numbers(rows[angle]['last']) for angle in angles]
    means = [
        np.nanmean(errors) if np.isfinite(errors).any() else np.nan for errors in runs
    ]
    look = shared.look(method)
    axis.plot(angles, means, label=LABELS.get(method, method), **look)
    for angle, errors in zip(angles, runs, strict=True):
        if errors.size > 1:
            places = np.full(errors.size, angle)
            axis.plot(places, errors, '.', color=look['color'], markersize=3)
    style.strip(axis)


def _curves(axis: Axes, rows: dict[float, dict], path: str) -> None:
    for index, (angle, row) in enumerate(sorted(rows.items())):
        if path in row['curves']:
            shared.runs(axis, row['curves'][path], **_look(index, angle))
    style.over_epochs(axis)
    style.strip(axis)


def _look(index: int, angle: float) -> dict:
    marker = style.MARKERS[index % len(style.MARKERS)]
    return dict(color=style.angle(angle), marker=marker, markersize=3, linewidth=1.2)


def _legend(figure: SubFigure, angles: list[float]) -> None:
    figure.legend(
        [Line2D([], [], **_look(*each)) for each in enumerate(angles)],
        [f'{angle:g}°' for angle in angles],
        title='initial angle of the feedback',
        loc='outside lower center',
        ncols=len(angles),
        frameon=False,
        fontsize=style.SMALL,
        title_fontsize=style.SMALL,
        columnspacing=1,
        handlelength=1.5,
    )
