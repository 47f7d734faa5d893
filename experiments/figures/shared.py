"""What figures share beside `eqprop_jax.figures.style`: rows of sweeps, titles."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from eqprop_jax.figures import style


def rank(name: str) -> int:
    """Returns which of METHODS a row of a sweep names first; their number for none."""
    named = (index for index, known in enumerate(style.METHODS) if known in name)
    return next(named, len(style.METHODS))


def matrix(values: list) -> np.ndarray:
    """Returns a list of rows as JSON has them as an array, NaN for null."""
    return np.array([style.numbers(row) for row in values])


def look(name: str) -> dict[str, Any]:
    """Returns how the line of a row of a sweep is drawn: as its method is everywhere.

    Earlier ones of METHODS lie above the others and are thinner, so that these are seen
    as well. The references, which others come to lie on, are broken lines.
    """
    place = rank(name)
    colours = [*style.METHODS.values(), style.PURPLE]
    marks = [*style.MARKS.values(), style.MARKERS[-1]]
    reference = 'backprop' in name
    return {
        'color': colours[place],
        'marker': marks[place],
        'markersize': 5 if reference else 3.5 + 0.2 * place,
        'linestyle': (0, (4, 2)) if reference else '-',
        'linewidth': 1.0 if reference else 1.2 + 0.08 * place,
        'zorder': 3 - place / 100,
    }


def runs(
    axis: Axes, curve: dict[str, list], *, scale: float = 1.0, **look: Any
) -> None:
    """Draws the median of some runs over epochs, from the least to the most of them.

    Args:
      axis: where.
      curve: `epochs` and `values`, as `experiments.results.collect` has them.
      scale: that values are multiplied by.
      **look: of the line.
    """
    epochs, values = style.numbers(curve['epochs']), scale * matrix(curve['values'])
    every = max(1, epochs.size // 5)
    middle = np.median(values, axis=0)
    axis.plot(epochs, middle, markevery=every, clip_on=False, **look)
    if len(values) > 1:
        low, high = values.min(axis=0), values.max(axis=0)
        axis.fill_between(
            epochs, low, high, color=look['color'], alpha=0.15, linewidth=0
        )


def legend(figure: Figure | SubFigure, **options: Any) -> None:
    """Names the methods of all panels below them, in the order of METHODS."""
    named: dict[str, Any] = {}
    for axis in figure.axes:
        for line, label in zip(*axis.get_legend_handles_labels(), strict=True):
            named.setdefault(label, line)
    labels = sorted(named, key=rank)
    options = {'loc': 'outside lower center', 'fontsize': style.SMALL} | options
    handles = [named[label] for label in labels]
    figure.legend(handles, labels, frameon=False, **options)


def network_title(network: dict) -> str:
    """Returns what the network of the figures of the analysis is, in a line."""
    sizes = '-'.join(map(str, network['sizes']))
    return (
        f'{sizes}, random weights, feedback at {network["angle"]:g}° to the '
        f'transposes, {network["num_images"]} digits'
    )


def counts(rows: list[dict[str, Any]]) -> str:
    """Returns how many epochs and seeds rows of a sweep have."""
    numbers = {
        'epoch': max(row['num_epochs'] for row in rows),
        'seed': max(len(row['seeds']) for row in rows),
    }
    return ', '.join(f'{n} {name}{"s" if n > 1 else ""}' for name, n in numbers.items())
