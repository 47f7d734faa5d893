"""What figures share beside `eqprop_jax.figures.style`: rows of sweeps, titles."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from eqprop_jax.figures import style


def method(name: str) -> str:
    """Returns the colour of a row of a sweep: the first of METHODS that it names."""
    return [*style.METHODS.values(), style.PURPLE][rank(name)]


def rank(name: str) -> int:
    """Returns which of METHODS a row of a sweep names first; their number for none."""
    named = (index for index, known in enumerate(style.METHODS) if known in name)
    return next(named, len(style.METHODS))


def matrix(values: list) -> np.ndarray:
    """Returns a list of rows as JSON has them as an array, NaN for null."""
    return np.array([style.numbers(row) for row in values])


def runs(
    axis: Axes,
    curve: dict[str, list],
    colour: str,
    label: str | None = None,
    *,
    scale: float = 1.0,
    width: float = 1.4,
    above: int = 0,
) -> None:
    """Draws the median of some runs over epochs, from the least to the most of them.

    Args:
      axis: where.
      curve: `epochs` and `values`, as `experiments.results.collect` has them.
      colour: of the line.
      label: of the line; None: it has none.
      scale: that values are multiplied by.
      width: of the line.
      above: how many other lines it is drawn above.
    """
    epochs, values = style.numbers(curve['epochs']), scale * matrix(curve['values'])
    middle = np.median(values, axis=0)
    axis.plot(
        epochs,
        middle,
        color=colour,
        label=label,
        linewidth=width,
        zorder=2 + above / 100,
    )
    if len(values) > 1:
        low, high = values.min(axis=0), values.max(axis=0)
        axis.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0)


def network_title(network: dict) -> str:
    """Returns what the network of the figures of the analysis is, in a line."""
    sizes = '-'.join(map(str, network['sizes']))
    return (
        f'{sizes}, random weights, feedback at {network["angle"]:g}° to the '
        f'transposes, {network["num_images"]} digits'
    )


def sweep_title(record: dict[str, Any]) -> str:
    """Returns what the record of a sweep is of, in a line."""
    counts = {
        'epoch': max(row['num_epochs'] for row in record['rows']),
        'seed': max(len(row['seeds']) for row in record['rows']),
    }
    words = [f'{n} {name}{"s" if n > 1 else ""}' for name, n in counts.items()]
    title = f'{record["config"]}: {", ".join(words)}'
    return f'{title}; median, least to most' if counts['seed'] > 1 else title
