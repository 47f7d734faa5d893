"""Training from feedback at several angles to the transposes, method by method."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eqprop_jax import records
from eqprop_jax.figures import style
from experiments.figures import shared

NAME, RECORD = 'fig3', 'fig3_fmnist'
LABELS = {'plain true derivative': 'plain, small nudges'}


def draw(folder: records.Folder, out: records.Folder | None = None) -> records.Path:
    """Draws fig3.png from fig3_fmnist.json and returns its path.

    a: test error after the last epoch over the angle that the feedback starts from.
    b: the angle over epochs. c: the cosine of the gradient to that of recurrent
    backprop over epochs, medians of the runs and their range. Thin lines start from
    smaller angles; runs that broke off are missing.

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
    figure = Figure(figsize=(8.4, 3.2), layout='constrained')
    a, b, c = figure.subplots(1, 3)
    for index, (method, rows) in enumerate(methods.items()):
        _errors(a, index, method, rows)
        _curves(b, method, rows, 'eval/overall_angle')
        _curves(c, method, rows, 'eval/gradient_cosine')
    a.set_xticks(list(next(iter(methods.values()))))
    a.set_xlabel('initial angle of the feedback (°)')
    a.set_ylabel('test error (%)')
    a.legend(frameon=False, fontsize=8, loc=(0.02, 0.34))
    b.set_ylabel('angle of the feedback (°)')
    b.set_ylim(0, 95)
    c.set_ylabel('cosine to exact gradient')
    c.set_ylim(top=1.03)
    for letter, axis in zip('abc', (a, b, c), strict=True):
        axis.text(-0.16, 1.02, letter, transform=axis.transAxes, weight='bold')
        style.strip(axis)
    title = (
        f'{shared.sweep_title(data)}\n'
        'a: means, and a dash for each run; b, c: from thin (0°) to thick (90°) lines'
    )
    figure.suptitle(title, fontsize=10)
    return style.save(figure, records.folder(out or folder) / f'{NAME}.png')


def _errors(axis: Axes, index: int, method: str, rows: dict[float, dict]) -> None:
    angles = sorted(rows)
    runs = [style.numbers(rows[angle]['last']) for angle in angles]
    means = [
        np.nanmean(errors) if np.isfinite(errors).any() else np.nan for errors in runs
    ]
    axis.plot(
        angles,
        means,
        color=shared.method(method),
        marker=style.MARKERS[index % len(style.MARKERS)],
        markersize=5,
        label=LABELS.get(method, method),
    )
    for angle, errors in zip(angles, runs, strict=True):
        if errors.size > 1:
            axis.plot(
                np.full(errors.size, angle),
                errors,
                '_',
                color=shared.method(method),
                markersize=7,
            )


def _curves(axis: Axes, method: str, rows: dict[float, dict], path: str) -> None:
    for angle, row in rows.items():
        if path in row['curves']:
            width = 0.6 + angle / 90
            shared.runs(axis, row['curves'][path], shared.method(method), width=width)
    style.over_epochs(axis)
