"""What all figures have in common: colours, titles, and how they are saved."""

import io
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


def numbers(values: list) -> np.ndarray:
    """Returns a list as JSON has it as an array, NaN for null."""
    return np.array([np.nan if value is None else value for value in values], float)


def layer(name: str) -> str:
    """Returns a layer's name in words: layer_1 is layer 1."""
    return name.replace('_', ' ')


def strip(axis: Axes) -> None:
    """Takes the upper and the right spine away."""
    axis.spines[['top', 'right']].set_visible(False)


def legend(axis: Axes, *, above: int | None = None, **options: Any) -> None:
    """Names the curves, if there are any: in the panel, or above it in columns."""
    if above is not None:
        options |= {'loc': 'lower left', 'bbox_to_anchor': (0, 1), 'borderaxespad': 0}
        options |= {'ncols': above, 'columnspacing': 1.2}
    if axis.lines:
        axis.legend(frameon=False, fontsize=8, **options)


def over_epochs(axis: Axes) -> None:
    """Makes the horizontal axis one of epochs, from 0 on, with ticks at whole ones."""
    axis.set_xlabel('epoch')
    axis.set_xlim(left=0)
    ticks = MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True)
    axis.xaxis.set_major_locator(ticks)


def save(figure: Figure, path: records.Folder) -> records.Path:
    """Writes a figure, into a folder that is made if need be, and returns the path."""
    path = records.folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=200)
    records.write_whole(path, picture.getvalue())
    return path


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
