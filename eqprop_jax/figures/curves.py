"""The curves of one run: learning, settling, and the quality of its gradient."""

import json

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eqprop_jax import records
from eqprop_jax.figures import style

COLOURS = {
    'train': style.BLUE,
    'eval': style.ORANGE,
    'test': style.RED,
    'exact': style.BLACK,
    'share': style.BLACK,
    'settled': style.GREY,
}


def draw(workdir: records.Folder) -> records.Path:
    """Draws curves.png into the workdir of a run and returns its path.

    Four panels over epochs: error; residual and the fraction of examples settled;
    cosine of each layer's error vector to exact recurrent backprop; symmetric share
    of the Jacobian and angles of paired weights.
    """
    folder = records.folder(workdir)
    rows = records.read(folder)
    figure = Figure(figsize=(6.6, 5.2), layout='constrained')
    axes = figure.subplots(2, 2)
    _errors(axes[0, 0], rows)
    _settling(axes[0, 1], rows)
    _credit(axes[1, 0], rows)
    _symmetry(axes[1, 1], rows)
    for axis in axes.flat:
        style.over_epochs(axis)
        axis.spines[['top', 'right']].set_visible(False)
    figure.suptitle(style.run_title(folder), fontsize=10)
    return style.save(figure, folder / 'curves.png')


def summary_line(workdir: records.Folder) -> str:
    """Returns one line that says how the run ended."""
    folder = records.folder(workdir)
    summary = json.loads((folder / records.SUMMARY).read_text())
    last, best = summary['last'], summary['best']
    line = f'test error {100 * last["test"]["error"]:.2f} % after the last epoch'
    if best is not None:
        line += (
            f', {100 * best["test"]["error"]:.2f} % at epoch {best["epoch"]:.4g}, '
            'where the held-out error was least'
        )
    return f'{line}; records and curves.png in {folder}'


def _errors(axis: Axes, rows: list[dict]) -> None:
    labels = {'train': 'training', 'eval': 'held out', 'test': 'test'}
    for split, label in labels.items():
        epochs, values = records.series(rows, split, 'error')
        if values.size:
            percent = 100 * values
            axis.plot(
                epochs, percent, color=COLOURS[split], label=label, **_style(values)
            )
    axis.set_ylabel('error (%)')
    _legend(axis)
    axis.set_yscale('symlog', linthresh=1.0)  # an error of zero has its place
    axis.set_ylim(bottom=0)
    ticks = [t for t in (0, 0.5, 1, 2, 5, 10, 20, 50, 100) if t <= axis.get_ylim()[1]]
    axis.set_yticks(ticks, [f'{tick:g}' for tick in ticks])
    axis.minorticks_off()


def _settling(axis: Axes, rows: list[dict]) -> None:
    for name, label, line, colour in (
        ('residual', 'free phase, mean', '-', style.BLUE),
        ('max_residual', 'free phase, worst', ':', style.BLUE),
        ('max_nudged_residual', 'nudged phases, worst', '--', style.ORANGE),
    ):
        epochs, values = records.series(rows, 'train', name)
        if np.any(values > 0):
            width = 3 if line == ':' else 1.5  # seen below the others
            axis.plot(epochs, values, line, color=colour, label=label, linewidth=width)
    axis.set_yscale('log')
    axis.set_ylabel('relative residual')
    low, high = np.log10(axis.get_ylim())
    axis.set_ylim(10 ** np.floor(low), 10 ** np.ceil(high))
    twin = axis.twinx()
    epochs, settled = records.series(rows, 'train', 'settled')
    twin.plot(epochs, 100 * settled, color=COLOURS['settled'], linewidth=1)
    twin.set_ylabel('examples settled (%)', color=COLOURS['settled'])
    twin.set_ylim(0, 103)
    twin.spines['top'].set_visible(False)
    _legend(axis)


def _credit(axis: Axes, rows: list[dict]) -> None:
    epochs, values = records.series(rows, 'eval', 'gradient_cosine')
    split = 'eval' if values.size else 'test'
    epochs, values = records.series(rows, split, 'gradient_cosine')
    axis.set_ylabel('cosine to the exact one')
    if not values.size:
        _absent(axis)
        return
    axis.plot(
        epochs,
        values,
        '--',
        color=COLOURS['exact'],
        label='gradient',
        linewidth=1,
        zorder=3,
        **_style(values),
    )
    for index, name in enumerate(_names(rows, 'cosine/')):
        epochs, values = records.series(rows, split, name)
        axis.plot(
            epochs,
            values,
            color=style.colour(index),
            label='δ of ' + style.layer(name.removeprefix('cosine/')),
            linewidth=2.5 - 0.5 * min(index, 3),
            **_style(values),
        )
    axis.set_ylim(min(0, axis.get_ylim()[0]), 1.03)
    _legend(axis)


def _symmetry(axis: Axes, rows: list[dict]) -> None:
    split = 'eval' if _names(rows, 'symmetric_share', 'eval') else 'test'
    epochs, values = records.series(rows, split, 'symmetric_share')
    axis.set_ylabel('symmetric share of J', color=COLOURS['share'])
    if not values.size:
        _absent(axis)
        return
    axis.plot(epochs, values, color=COLOURS['share'], **_style(values))
    axis.set_ylim(0, 1.03)
    pairs = _names(rows, 'angle/')
    if not pairs:
        return
    twin = axis.twinx()
    for index, name in enumerate(pairs):
        epochs, values = records.series(rows, split, name)
        layer = name.removeprefix('angle/').removesuffix('/feedback')
        twin.plot(
            epochs,
            values,
            color=style.colour(index),
            label=f'feedback to {style.layer(layer)}',
            **_style(values),
        )
    twin.plot([], [], color=COLOURS['share'], label='symmetric share')
    twin.set_ylabel('angle to the transpose (°)')
    twin.set_ylim(0, 100)
    twin.spines['top'].set_visible(False)
    _legend(twin)


def _names(rows: list[dict], prefix: str, split: str | None = None) -> list[str]:
    return sorted(
        {
            name
            for row in rows
            if split is None or row['split'] == split
            for name in row
            if name.startswith(prefix)
        }
    )


def _legend(axis: Axes) -> None:
    if axis.lines:
        axis.legend(frameon=False, fontsize=8)


def _absent(axis: Axes) -> None:
    axis.text(
        0.5,
        0.5,
        'not measured\n(diagnostics.every_evals = 0)',
        ha='center',
        va='center',
        transform=axis.transAxes,
        color='0.5',
    )


def _style(values: np.ndarray) -> dict:
    return {'marker': 'o' if len(values) < 20 else None, 'markersize': 3}
