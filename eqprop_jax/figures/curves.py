"""The curves of one run: learning, settling, and the quality of its gradient."""

import json
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from eqprop_jax import records
from eqprop_jax.figures import style

COLOURS = {
    'train': style.BLUE,
    'eval': style.ORANGE,
    'test': style.RED,
    'share': style.BLACK,
    'settled': style.GREY,
}
WHOLE: dict[str, Any] = {'color': style.BLACK, 'linewidth': 1, 'zorder': 3}


def draw(workdir: records.Folder) -> records.Path:
    """Draws curves.png into the workdir of a run and returns its path.

    Four panels over epochs: error; residual and the fraction of examples settled;
    relative error of each layer's δ against exact recurrent backprop, and the cosine of
    the gradient without the readout; symmetric share of the Jacobian and angles of
    paired weights. Of runs that have no relative errors: cosines.
    """
    folder = records.folder(workdir)
    rows = records.read(folder)
    figure = Figure(figsize=(6.6, 5.6), layout='constrained')
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
    axis.set_ylabel('residual of the worst layer')
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
    """Draws errors of δ by layer and, on a second axis, the gradient's cosine."""
    split = _split(rows, 'gradient_cosine')
    if not _names(rows, 'worst_error', split):
        _cosines(axis, rows, split)
        return
    axis.set_ylabel('relative error of δ')
    _layers(axis, rows, split, 'error/')
    epochs, values = records.series(rows, split, 'worst_error')
    axis.plot(epochs, values, '--', label='worst layer', **WHOLE, **_style(values))
    if np.any(values > 0):
        axis.set_yscale('log')
        low, high = np.log10(axis.get_ylim())
        low, high = np.floor(low), np.ceil(high)
        axis.set_ylim(10**low, 10 ** max(high, low + 2))
        axis.yaxis.set_minor_formatter(NullFormatter())
    twin = axis.twinx()
    epochs, values = records.series(rows, split, 'gradient_cosine_without_readout')
    twin.plot(epochs, values, color=style.GREY, linewidth=1)
    twin.set_ylabel('cosine without the readout', color=style.GREY)
    twin.set_ylim(min(0, twin.get_ylim()[0]), 1.03)
    twin.spines['top'].set_visible(False)
    axis.legend(
        frameon=False,
        fontsize=8,
        loc='lower left',
        bbox_to_anchor=(0, 1),  # inside, lines of the second axis would cross it
        borderaxespad=0,
        ncols=2,
        columnspacing=1.2,
    )


def _cosines(axis: Axes, rows: list[dict], split: str) -> None:
    epochs, values = records.series(rows, split, 'gradient_cosine')
    axis.set_ylabel('cosine to the exact one')
    if not values.size:
        _absent(axis)
        return
    axis.plot(epochs, values, '--', label='gradient', **WHOLE, **_style(values))
    _layers(axis, rows, split, 'cosine/')
    axis.set_ylim(min(0, axis.get_ylim()[0]), 1.03)
    _legend(axis)


def _layers(axis: Axes, rows: list[dict], split: str, prefix: str) -> None:
    """Draws a metric of every layer, each line narrower than the one below."""
    for index, name in enumerate(_names(rows, prefix)):
        epochs, values = records.series(rows, split, name)
        axis.plot(
            epochs,
            values,
            color=style.colour(index),
            label='δ of ' + style.layer(name.removeprefix(prefix)),
            linewidth=2.5 - 0.5 * min(index, 3),
            **_style(values),
        )


def _symmetry(axis: Axes, rows: list[dict]) -> None:
    split = _split(rows, 'symmetric_share')
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


def _split(rows: list[dict], name: str) -> str:
    return 'eval' if _names(rows, name, 'eval') else 'test'


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
