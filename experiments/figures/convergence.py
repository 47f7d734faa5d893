"""How the error of a nudged estimate falls with the radius, until rounding stops it."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eqprop_jax import records
from eqprop_jax.figures import style
from experiments.figures import shared

NAME = 'convergence'
COMPLEX_STEP = 'complex step'
CEILING = 1e3


def draw(folder: records.Folder, out: records.Folder | None = None) -> records.Path:
    """Draws convergence.png from convergence.json and returns its path.

    A panel for each precision: error over the radius for every contour, with lines of
    the order r^N that it should have. The legend has the orders that were measured.

    Args:
      folder: of the data.
      out: folder of the picture; None: that of the data.
    """
    data = records.read_data(folder, NAME)
    panels = data['panels']
    figure = Figure(figsize=(3.1 * len(panels), 4.2), layout='constrained')
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    radii = style.numbers(data['radii'])
    for axis, (precision, panel) in zip(axes, panels.items(), strict=True):
        _panel(axis, radii, panel)
        axis.set_title(precision, fontsize=10)
        axis.set_xlabel('radius r of the nudges')
    known = [
        error
        for panel in panels.values()
        for errors in panel['errors'].values()
        for error in errors
        if error
    ]
    if known:
        axes[0].set_ylim(10 ** np.floor(np.log10(min(known) / 2)), CEILING)
    axes[0].set_ylabel('relative error of δ')
    _legend(figure, axes[0], panels)
    figure.suptitle(
        'N nudges on a circle, corrected, against recurrent backprop\n'
        f'{shared.network_title(data["network"])}',
        fontsize=10,
    )
    return style.save(figure, records.folder(out or folder) / f'{NAME}.png')


def _panel(axis: Axes, radii: np.ndarray, panel: dict) -> None:
    for index, (name, errors) in enumerate(panel['errors'].items()):
        values = style.numbers(errors)
        order = panel['orders'][name]
        exact = name == COMPLEX_STEP
        count = 0 if exact else int(name.removeprefix('N = '))
        colour = style.NUDGES.get(count, style.BLACK)
        axis.loglog(
            radii,
            values,
            color=colour,
            marker='x' if exact else style.MARKERS[index % len(style.MARKERS)],
            markersize=4 if exact else 3,
            linewidth=1.2,
            label=name,
        )
        if order is not None and not exact:
            _guide(axis, radii, values, count, colour)
    _rounding(axis, radii, *map(style.numbers, panel['errors'].values()))
    style.strip(axis)


def _legend(figure: Figure, axis: Axes, panels: dict[str, dict]) -> None:
    """Draws one legend for all panels, with the orders measured in each of them."""
    handles, labels = axis.get_legend_handles_labels()
    for index, name in enumerate(labels):
        if name in next(iter(panels.values()))['orders']:
            orders = [panel['orders'][name] for panel in panels.values()]
            labels[index] = f'{name}: {", ".join(map(_in_words, orders))}'
    handles.append(Line2D([], [], color=style.GREY, linestyle='--', linewidth=0.7))
    figure.legend(
        handles,
        [*labels, 'rᴺ'],
        loc='outside lower center',
        ncols=3,
        frameon=False,
        fontsize=8,
        title=f'measured order in {" and ".join(panels)} (–: too few radii show it)',
        title_fontsize=8,
    )


def _in_words(order: float | None) -> str:
    return '–' if order is None else f'{order:.2f}'


def _guide(
    axis: Axes, radii: np.ndarray, values: np.ndarray, order: int, colour: str
) -> None:
    """Draws r^N through the middle of the stretch above the rounding floor."""
    start = int(np.nanargmin(values))
    clear = np.flatnonzero((np.arange(len(radii)) > start) & (radii <= 0.5))
    if clear.size:
        at = clear[len(clear) // 2]
        reach = radii[radii >= radii[start] / 30]
        axis.loglog(
            reach,
            values[at] * (reach / radii[at]) ** order,
            '--',
            color=colour,
            linewidth=0.7,
            alpha=0.7,
            zorder=1,
        )


def _rounding(axis: Axes, radii: np.ndarray, *curves: np.ndarray) -> None:
    """Draws 1/r above the highest of the curves that rise to the left."""
    falling = [
        values
        for values in curves
        if np.isfinite(values).any() and np.nanargmin(values) > 6
    ]
    if not falling:
        return
    worst = max(falling, key=lambda values: values[3])
    start = int(np.nanargmin(worst))
    reach = radii[: start - 1]
    at = start // 2
    axis.loglog(
        reach,
        4 * worst[at] * radii[at] / reach,
        ':',
        color=style.GREY,
        linewidth=1,
        label='rounding: 1/r',
    )
