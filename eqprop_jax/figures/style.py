"""What all figures have in common: colours, titles, and how they are saved."""

import json
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eqprop_jax import records

# Okabe and Ito's colours, told apart by colour-blind readers too.
BLACK, GREY = '#000000', '0.5'
BLUE, ORANGE, GREEN = '#0072B2', '#E69F00', '#009E73'
PURPLE, SKY, RED, YELLOW = '#CC79A7', '#56B4E9', '#D55E00', '#F0E442'
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED)
# The same method has the same colour wherever methods are held against each other.
METHODS = {
    'feed-forward backprop': GREY,
    'recurrent backprop': BLACK,
    'corrected': BLUE,
    'homeostasis': GREEN,
    'Kolen-Pollack': PURPLE,
    'one-sided': RED,
    'random sign': SKY,
    'symmetric': ORANGE,
    'plain': ORANGE,
    'online': GREEN,
}
NUDGES = {1: RED, 2: ORANGE, 4: SKY, 6: PURPLE, 8: GREEN}  # by their number
MARKERS = ('o', 's', '^', 'D', 'v', 'P')


def colour(index: int) -> str:
    """Returns the colour of the layer or curve with this index."""
    return PALETTE[index % len(PALETTE)]


def method(name: str) -> str:
    """Returns the colour of a row of a sweep: the first of METHODS that it names."""
    return [*METHODS.values(), PURPLE][rank(name)]


def rank(name: str) -> int:
    """Returns which of METHODS a row of a sweep names first; their number for none."""
    named = (index for index, known in enumerate(METHODS) if known in name)
    return next(named, len(METHODS))


def numbers(values: list) -> np.ndarray:
    """Returns a list as JSON has it as an array, NaN for null."""
    return np.array([np.nan if value is None else value for value in values], float)


def matrix(values: list) -> np.ndarray:
    """Returns a list of rows as JSON has them as an array, NaN for null."""
    return np.array([numbers(row) for row in values])


def layer(name: str) -> str:
    """Returns a layer's name in words: layer_1 is layer 1."""
    return name.replace('_', ' ')


def strip(axis: Axes) -> None:
    """Takes the upper and the right spine away."""
    axis.spines[['top', 'right']].set_visible(False)


def over_epochs(axis: Axes) -> None:
    """Makes the horizontal axis one of epochs, from 0 on, with ticks at whole ones."""
    axis.set_xlabel('epoch')
    axis.set_xlim(left=0)
    ticks = MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True)
    axis.xaxis.set_major_locator(ticks)


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
      curve: `epochs` and `values`, as `records.results.collect` has them.
      colour: of the line.
      label: of the line; None: it has none.
      scale: that values are multiplied by.
      width: of the line.
      above: how many other lines it is drawn above.
    """
    epochs, values = numbers(curve['epochs']), scale * matrix(curve['values'])
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


def save(figure: Figure, path: records.Folder) -> records.Path:
    """Writes a figure, into a folder that is made if need be, and returns the path."""
    path = records.folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('wb') as file:
        figure.savefig(file, dpi=200)
    return path


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


def run_title(folder: records.Folder) -> str:
    """Returns what the run in a workdir is, in a line."""
    config = json.loads((records.folder(folder) / records.CONFIG).read_text())
    system, estimator = config['system'], config['estimator']
    sizes = system.get('sizes') or (
        *system.get('channels', ()),
        *system.get('hidden', ()),
    )
    parts = [
        config['data']['name'],
        f'{system["name"]} {"-".join(map(str, sizes))}'.strip(),
        estimator['name'],
    ]
    if estimator['name'] == 'contour':
        parts[-1] = _nudges(estimator)
        if estimator.get('correction'):
            parts.append(f'{estimator["correction"]} correction')
    if config['homeostasis']['weight']:
        parts.append(f'homeostasis {config["homeostasis"]["weight"]:g}')
    return ', '.join(parts)


def _nudges(estimator: dict[str, Any]) -> str:
    contour = estimator.get('contour', 'circle')
    imaginary = estimator.get('num_points') == 2 and estimator.get('half_step')
    if contour == 'circle' and imaginary:  # β = ±ir
        contour = 'complex_step'
    return contour.replace('_', ' ') + ' nudges'
