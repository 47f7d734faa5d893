"""What biases the gradient of a run: causes, layers, costs, asymmetry of J."""

import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from eqprop_jax import records
from eqprop_jax.figures import style

TOTAL = 'total'
CAUSES: dict[str, dict[str, Any]] = {
    'settling': {'color': style.SKY, 'marker': 'o'},
    'nudge': {'color': style.ORANGE, 'marker': '^'},
    'asymmetry': {'color': style.RED, 'marker': 's'},
}
WHOLE: dict[str, Any] = dict(color=style.BLACK, marker='|', markersize=12, zorder=1)
CAUSE: dict[str, Any] = dict(markersize=5, markeredgecolor='white', markeredgewidth=0.4)
CLOSE = 22.0  # distance on the page, in pixels, at which two labels would overlap


@style.fixed()
def draw(workdir: records.Folder) -> records.Path:
    """Draws bias.png from the bias.json of a run and returns its path.

    Four panels: each method's error in its worst layer, whole and by cause; the cosine
    of its error vector to recurrent backprop, whole and by layer; the worst layer's
    error over cost, points numbered like the methods; the asymmetry of the Jacobian by
    pairs of layers. The first method is highlighted. What is zero has its place on
    logarithmic axes, what is null has none.

    Args:
      workdir: of the run; without its configuration the title is the folder's name.
    """
    folder = records.folder(workdir)
    report = records.read_bias(folder)
    methods = report['methods']
    height = 1.3 + 0.24 * len(methods)
    figure = Figure(figsize=(8.4, 4.2 + height), layout='constrained')
    grid = figure.add_gridspec(2, 1, height_ratios=(height, 3.8))
    upper, lower = (figure.add_subfigure(grid[row]) for row in range(2))
    left, right = upper.subplots(1, 2, sharey=True)
    worst = [_worst(method) for method in methods.values()]
    _causes(left, methods, worst)
    _cosines(right, methods)
    left, right = lower.subplots(1, 2, width_ratios=(1.5, 1))
    _costs(left, methods, _values(methods, 'error', worst), figure)
    _asymmetry(right, report['asymmetry'])
    for axis in figure.axes:
        style.strip(axis)
    named = (folder / records.CONFIG).exists()
    title = style.run_title(folder) if named else folder.name
    figure.suptitle(f'Against exact recurrent backprop: {title}', fontsize=10)
    lower.supxlabel(_summary(report), fontsize=8, linespacing=1.5)
    return style.save(figure, folder / 'bias.png')


def _causes(axis: Axes, methods: dict, worst: list[str]) -> None:
    rows = np.arange(len(methods))
    error = _values(methods, 'error', worst)
    causes = {name: _values(methods, name, worst) for name in CAUSES}
    axis.plot(error, rows, linestyle='', label='error', **WHOLE)
    for name, values in causes.items():
        axis.plot(values, rows, linestyle='', label=name, **CAUSE, **CAUSES[name])
    _logarithmic(axis, 'x', np.concatenate([error, *causes.values()]))
    axis.set_xlabel('error of δ in the worst layer, and its causes')
    beside = axis.get_yaxis_transform()
    for row, name in enumerate(map(style.layer, worst)):
        axis.text(1.03, row, name, transform=beside, fontsize=7, va='center')
    axis.set_yticks(rows, [f'{row + 1}  {name}' for row, name in enumerate(methods)])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.get_yticklabels()[0].set_fontweight('bold')
    _finish(axis)


def _cosines(axis: Axes, methods: dict) -> None:
    rows = np.arange(len(methods))
    layers = list(next(iter(methods.values()))['cosine'])
    layers.remove(TOTAL)
    total = _values(methods, 'cosine', [TOTAL] * len(methods))
    axis.plot(total, rows, linestyle='', label='all layers', **WHOLE)
    lowest = [0.0, *total[np.isfinite(total)]]
    for index, layer in enumerate(layers):
        values = _values(methods, 'cosine', [layer] * len(methods))
        shift = 0.5 * ((index + 0.5) / len(layers) - 0.5)
        axis.plot(
            values,
            rows + shift,
            linestyle='',
            color=style.colour(index),
            marker=style.MARKERS[index // len(style.PALETTE)],
            markersize=4,
            label=style.layer(layer),
        )
        lowest.extend(values[np.isfinite(values)])
    axis.set_xlim(min(lowest) - 0.04, 1.04)
    axis.axvline(1, color=style.GREY, linewidth=0.6, zorder=0)
    axis.set_xlabel('cosine of δ')
    axis.tick_params(labelleft=False)
    _finish(axis)


def _finish(axis: Axes) -> None:
    """Marks the first method, draws faint rows and puts the legend above the panel."""
    axis.axhspan(-0.5, 0.5, color=style.YELLOW, alpha=0.25, linewidth=0, zorder=0)
    axis.grid(axis='y', color='0.9', linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(axis='y', length=0)
    style.legend(axis, above=4, handletextpad=0.2)


def _costs(axis: Axes, methods: dict, errors: np.ndarray, figure: Figure) -> None:
    costs = style.numbers([method['evaluations'] for method in methods.values()])
    axis.plot(costs, errors, 'o', color=style.BLUE, markersize=4)
    axis.plot(costs[:1], errors[:1], 'o', color=style.YELLOW, mec='black', markersize=8)
    axis.set_xlabel('field evaluations for an example (numbers: methods as above)')
    axis.set_ylabel('error of δ, worst layer')
    known = np.flatnonzero(np.isfinite(costs) & np.isfinite(errors))
    if not known.size:
        return
    _logarithmic(axis, 'x', costs[known])
    _logarithmic(axis, 'y', errors[known])
    axis.margins(0.08)
    figure.draw_without_rendering()  # lays the panels out
    places = axis.transData.transform(np.stack([costs, errors], axis=1))
    groups: dict[int, list[int]] = {}
    for index in known:
        near = (g for g in groups if np.ptp(places[[g, index]], 0).max() < CLOSE)
        groups.setdefault(next(near, index), []).append(index)
    for first, group in groups.items():
        axis.annotate(
            ', '.join(str(index + 1) for index in group),
            (costs[first], errors[first]),
            xytext=(6, 4),
            textcoords='offset points',
            fontsize=8,
            fontweight='bold' if 0 in group else 'normal',
        )


def _asymmetry(axis: Axes, parts: dict) -> None:
    names = [style.layer(name) for name in parts]
    values = np.stack([style.numbers(list(row.values())) for row in parts.values()])
    largest = np.nanmax(values, initial=0.0)
    axis.imshow(values, cmap='Blues', vmin=0, vmax=2 * largest or 1)
    size = 9 if len(names) < 5 else 6
    for (row, column), value in np.ndenumerate(values):
        text = f'{value:.2g}' if np.isfinite(value) else '–'
        axis.text(column, row, text, ha='center', va='center', fontsize=size)
    axis.set_xticks(range(len(names)), names, fontsize=8)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    if len(names) > 3:
        axis.tick_params(axis='x', rotation=45)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_title(
        f'L_homeo by pairs of layers, sum {np.nansum(values):.3g}', fontsize=9
    )


def _logarithmic(axis: Axes, which: str, values: np.ndarray) -> None:
    """Makes an axis logarithmic, with a place for zero if there is one."""
    positive = values[np.isfinite(values) & (values > 0)]
    if not positive.size:
        return
    low = np.floor(np.log10(positive.min()))
    high = max(np.ceil(np.log10(1.2 * positive.max())), low + 1)
    scale = {'x': axis.set_xscale, 'y': axis.set_yscale}[which]
    if not np.any(values == 0):
        scale('log')
        axis.set(**{f'{which}lim': (10**low, 10**high)})
        return
    scale('symlog', linthresh=10**low, linscale=0.1 * (high - low))
    axis.set(**{f'{which}lim': (-0.25 * 10**low, 10**high)})
    line = {'x': axis.xaxis, 'y': axis.yaxis}[which]
    line.set_ticks([0, *10.0 ** np.arange(low, high + 1, 1 + (high - low) // 8)])
    line.set_minor_locator(NullLocator())


def _worst(method: dict) -> str:
    """Returns the layer with the largest error; reports of old do not name it."""
    if 'worst' in method:
        return method['worst']['layer']
    errors = {name: value or 0 for name, value in method['error'].items()}
    del errors[TOTAL]
    return max(errors, key=errors.__getitem__)


def _values(methods: dict, name: str, parts: list[str]) -> np.ndarray:
    """Returns a number of each method, of its own part."""
    each = zip(methods.values(), parts, strict=True)
    return style.numbers([method[name][part] for method, part in each])


def _summary(report: dict) -> str:
    def number(name: str, factor: float = 1.0) -> str:
        value = report[name]
        return 'not finite' if value is None else f'{factor * value:.3g}'

    network = (
        f'symmetric share {number("symmetric_share")},  '
        f'spectral radius {number("spectral_radius")},  '
        f'distance to instability {number("margin")},  '
        f'{number("unsettled", 100.0)} % of the examples not at equilibrium'
    )
    own = next(iter(report['methods'].values()))['sentence']
    return '\n'.join([network, *textwrap.wrap(own, 120)])
