"""What all figures have in common: colours, titles, and how they are saved."""

import contextlib
import io
import json
from collections.abc import Generator
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context, rcParams, style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eqprop_jax import records

# Okabe and Ito's colours, told apart by colour-blind readers too.
BLACK, GREY = '#000000', '0.5'
BLUE, ORANGE, GREEN = '#0072B2', '#E69F00', '#009E73'
PURPLE, SKY, RED, YELLOW = '#CC79A7', '#56B4E9', '#D55E00', '#F0E442'
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED)
# The same method has the same colour, marker and place in the legend wherever methods
# are held against each other.
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
MARKS = dict(zip(METHODS, 'x+s^DvP<o^', strict=True))
NUDGES = {1: RED, 2: ORANGE, 4: SKY, 6: PURPLE, 8: GREEN}  # by their number
MARKERS = ('o', 's', '^', 'D', 'v', 'P')
WIDTH = 4.7  # inches; letters of SMALL points have six in a column of nine centimetres
SMALL = 8
UNDATED = {'svg': {'Date': None}, 'pdf': {'CreationDate': None}}


@contextlib.contextmanager
def fixed() -> Generator[None, None, None]:
    """Lets figures be as the library has them, whatever a user's matplotlibrc says.

    It may ask for TeX, which is not there; only the format of pictures is the user's.
    """
    with style.context(['default', {'savefig.format': rcParams['savefig.format']}]):
        yield


def colour(index: int) -> str:
    """Returns the colour of the layer or curve with this index."""
    return PALETTE[index % len(PALETTE)]


def angle(degrees: float) -> tuple[float, ...]:
    """Returns the colour of an angle between feedback and transposes, 0 to 90°."""
    return colormaps['viridis'](0.9 * degrees / 90)


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
        options = {'ncols': above, 'columnspacing': 1} | options
        options = {'handlelength': 1.2, 'handletextpad': 0.4} | options
    if axis.lines:
        axis.legend(frameon=False, fontsize=8, **options)


def compact(figure: Figure) -> None:
    """Gives the letters around all panels one size."""
    for axis in figure.axes:
        axis.tick_params(labelsize=SMALL)
        for text in (axis.xaxis.label, axis.yaxis.label, axis.title):
            text.set_fontsize(SMALL)


def letter(axis: Axes, name: str) -> None:
    """Puts the letter of a panel to the left of its title."""
    place: dict[str, Any] = dict(xycoords='axes fraction', textcoords='offset points')
    axis.annotate(name, (0, 1), (-20, 5), weight='bold', fontsize=SMALL + 1, **place)


def over_epochs(axis: Axes) -> None:
    """Makes the horizontal axis one of epochs, from 0 on, with ticks at whole ones."""
    axis.set_xlabel('epoch')
    axis.set_xlim(left=0)
    ticks = MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True)
    axis.xaxis.set_major_locator(ticks)


def save(figure: Figure, path: records.Folder) -> records.Path:
    """Writes a figure, into a folder that is made if need be, and returns the path.

    The format is matplotlib's `savefig.format`, 'png' by default, which the path gets
    as its suffix. Vector formats have no date in them, and PDF has its letters as text.
    """
    kind = rcParams['savefig.format']
    path = records.folder(path).with_suffix(f'.{kind}')
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = io.BytesIO()
    with rc_context({'pdf.fonttype': 42, 'svg.hashsalt': path.stem}):
        figure.savefig(picture, dpi=300, metadata=UNDATED.get(kind))
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
