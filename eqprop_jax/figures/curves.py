"""The curves of one run: learning, settling, and the quality of its gradient."""

import json
import textwrap
from typing import Any

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from eqprop_jax import records
from eqprop_jax.figures import style

WHOLE: dict[str, Any] = dict(
    color=style.BLACK, linestyle='--', linewidth=1, zorder=3, marker=''
)
SECOND: dict[str, Any] = dict(color=style.GREY, linewidth=1, marker='')  # on the right


@style.fixed()
def draw(workdir: records.Folder) -> records.Path:
    """Draws curves.png into the workdir of a run and returns its path.

    Four panels over epochs: error; residual and the fraction of examples settled;
    relative error of each layer's δ against exact recurrent backprop, and the cosine of
    the gradient without the readout; symmetric share of the Jacobian and angles of
    paired weights. Of runs that have no relative errors: cosines.
    """
    folder = records.folder(workdir)
    rows = records.read(folder)
    figure = Figure(figsize=(style.WIDTH, 5.0), layout='constrained')
    axes = figure.subplots(2, 2)
    errors(axes[0, 0], rows)
    settling(axes[0, 1], rows)
    _credit(axes[1, 0], rows)
    _symmetry(axes[1, 1], rows)
    for axis in axes.flat:
        style.over_epochs(axis)
        style.strip(axis)
    style.compact(figure)
    title = textwrap.fill(style.run_title(folder), 64)
    figure.suptitle(title, fontsize=style.SMALL + 1)
    return style.save(figure, folder / 'curves.png')


def summary_line(workdir: records.Folder) -> str:
    """Returns one line that says how the run ended."""
    folder = records.folder(workdir)
    summary = json.loads((folder / records.SUMMARY).read_text())
    records.check_summary(workdir, summary)
    last, best = summary['last'], summary['best']
    curves = f'curves.{rcParams["savefig.format"]}'
    line = f'test error {100 * last["test"]["error"]:.2f} % after the last epoch'
    if best is not None:
        line += (
            f', {100 * best["test"]["error"]:.2f} % at epoch {best["epoch"]:.4g}, '
            'where the held-out error was least'
        )
    phases = summary.get('phases', {})
    if phases.get('last_epoch'):  # of older runs there is none
        settled = phases['last_epoch']['settled']
        skipped = phases['whole_run']['skipped']
        line += f'; in the last epoch {100 * settled:.1f} % of the examples settled'
        line += f', {100 * skipped:.1f} % of all were left out' if skipped else ''
    return f'{line}; records and {curves} in {folder}'


def errors(axis: Axes, rows: list[dict]) -> None:
    """Draws the errors of all splits over epochs."""
    for split, label, colour, mark in (
        ('train', 'training', style.BLUE, 'o'),
        ('eval', 'held out', style.ORANGE, 's'),
        ('test', 'test', style.RED, '^'),
    ):
        look = dict(color=colour, marker=mark, label=label)
        _plot(axis, rows, split, 'error', 100, **look)
    axis.set_ylabel('error (%)')
    style.legend(axis, above=2)
    axis.set_yscale('symlog', linthresh=1.0)  # an error of zero has its place
    axis.set_ylim(bottom=0)
    ticks = [t for t in (0, 0.5, 1, 2, 5, 10, 20, 50, 100) if t <= axis.get_ylim()[1]]
    axis.set_yticks(ticks, [f'{tick:g}' for tick in ticks])
    axis.minorticks_off()


def settling(axis: Axes, rows: list[dict]) -> None:
    """Draws residuals and, on a second axis, the fraction of examples settled."""
    for name, label, line, colour in (
        ('residual', 'free phase, mean', '-', style.BLUE),
        ('max_residual', 'free phase, worst', ':', style.BLUE),
        ('max_nudged_residual', 'nudged phases, worst', '--', style.ORANGE),
    ):
        epochs, values = records.series(rows, 'train', name)
        if np.any(values > 0):
            width = 3 if line == ':' else 1.5  # seen below the others
            axis.plot(epochs, values, line, color=colour, label=label, linewidth=width)
    axis.set_ylabel('residual of the worst layer')
    _decades(axis)
    twin = _twin(axis, 'examples settled (%)', style.GREY)
    _plot(twin, rows, 'train', 'settled', 100, **SECOND)
    twin.set_ylim(0, 103)
    style.legend(axis, above=1)


def _credit(axis: Axes, rows: list[dict]) -> None:
    """Draws errors of δ by layer and, on a second axis, the gradient's cosine."""
    split = _split(rows, 'gradient_cosine')
    if not _names(rows, 'worst_error', split):
        _cosines(axis, rows, split)
        return
    axis.set_ylabel('relative error of δ')
    _layers(axis, rows, split, 'error/')
    values = _plot(axis, rows, split, 'worst_error', label='worst layer', **WHOLE)
    if np.any(values > 0):
        _decades(axis, least=2)
        axis.yaxis.set_minor_formatter(NullFormatter())
    twin = _twin(axis, 'cosine without the readout', style.GREY)
    _plot(twin, rows, split, 'gradient_cosine_without_readout', **SECOND)
    twin.set_ylim(min(0, twin.get_ylim()[0]), 1.03)
    style.legend(axis, above=2)


def _cosines(axis: Axes, rows: list[dict], split: str) -> None:
    axis.set_ylabel('cosine to the exact one')
    if not _plot(axis, rows, split, 'gradient_cosine', label='gradient', **WHOLE).size:
        _absent(axis)
        return
    _layers(axis, rows, split, 'cosine/')
    axis.set_ylim(min(0, axis.get_ylim()[0]), 1.03)
    style.legend(axis, above=2)


def _layers(axis: Axes, rows: list[dict], split: str, prefix: str) -> None:
    """Draws a metric of every layer, each line narrower than the one below."""
    for index, name in enumerate(_names(rows, prefix)):
        label, width = style.layer(name.removeprefix(prefix)), 2.5 - 0.5 * min(index, 3)
        look: dict[str, Any] = dict(color=style.colour(index), linewidth=width)
        look['marker'] = style.MARKERS[index % len(style.MARKERS)]
        _plot(axis, rows, split, name, label=f'δ of {label}', **look)


def _symmetry(axis: Axes, rows: list[dict]) -> None:
    split = _split(rows, 'symmetric_share')
    axis.set_ylabel('symmetric share of J', color=style.BLACK)
    look: dict[str, Any] = dict(color=style.BLACK, marker='', label='share of J')
    if not _plot(axis, rows, split, 'symmetric_share', **look).size:
        _absent(axis)
        return
    axis.set_ylim(0, 1.03)
    pairs = _names(rows, 'angle/')
    if not pairs:
        return
    twin = _twin(axis, 'angle of the feedback (°)', style.BLACK)
    for index, name in enumerate(pairs):
        layer = name.removeprefix('angle/').removesuffix('/feedback')
        label = f'to {style.layer(layer)}'
        mark = style.MARKERS[index % len(style.MARKERS)]
        look = dict(color=style.colour(index), marker=mark, label=label)
        _plot(twin, rows, split, name, **look)
    twin.set_ylim(0, 100)
    style.legend(axis, above=2, handles=[*twin.lines, *axis.lines])


def _plot(
    axis: Axes, rows: list[dict], split: str, name: str, scale: float = 1.0, **look: Any
) -> np.ndarray:
    """Draws a metric over epochs, some values with markers, and returns the values."""
    epochs, values = records.series(rows, split, name)
    look = {'markersize': 3, 'markevery': max(1, values.size // 8)} | look
    if values.size:
        axis.plot(epochs, scale * values, **look)
    return values


def _twin(axis: Axes, label: str, colour: str) -> Axes:
    """Returns a second axis, on the right of a panel and behind it."""
    twin = axis.twinx()
    axis.set_zorder(twin.get_zorder() + 1)
    axis.patch.set_visible(False)
    twin.set_ylabel(label, color=colour)
    twin.spines['top'].set_visible(False)
    return twin


def _decades(axis: Axes, least: int = 1) -> None:
    """Makes the vertical axis logarithmic, of whole decades and at least so many."""
    axis.set_yscale('log')
    low, high = np.log10(axis.get_ylim())
    low, high = np.floor(low), np.ceil(high)
    axis.set_ylim(10**low, 10 ** max(high, low + least))


def _split(rows: list[dict], name: str) -> str:
    return 'eval' if _names(rows, name, 'eval') else 'test'


def _names(rows: list[dict], prefix: str, split: str | None = None) -> list[str]:
    own = (row for row in rows if split is None or row['split'] == split)
    return sorted({name for row in own for name in row if name.startswith(prefix)})


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
