"""The finite nudge's bias, the asymmetry's, and an estimate in continuous time."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import gaussian_kde

from eqprop_jax import records
from eqprop_jax.figures import style

NAME = 'fig2'
LEAST = 1e-15


def draw(folder: records.Folder, out: records.Folder | None = None) -> records.Path:
    """Draws fig2.png from fig2.json and returns its path.

    a, b: the error over |β|, tied and untied. c, d: densities of the cosines between
    the response to small nudges and the exact error vector, by angle and by layer.
    e, f: running estimates of a nudge that turns while the network moves, and their
    error over the turns.

    Args:
      folder: of the data.
      out: folder of the picture; None: that of the data.
    """
    data = records.read_data(folder, NAME)
    figure = Figure(figsize=(8.4, 5.8), layout='constrained')
    axes = figure.subplots(2, 3)
    (a, c, e), (b, d, f) = axes
    lowest = min(
        value
        for curves in data['errors'].values()
        for values in curves.values()
        for value in values
        if value
    )
    for axis, name in ((a, 'tied'), (b, 'untied')):
        _errors(axis, data['radii'], data['errors'][name])
        axis.set_ylim(max(lowest, LEAST) / 3, 30)
        axis.set_title(name, fontsize=10)
    angles = [f'{angle:g}°' for angle in data['angles']]
    _densities(c, dict(zip(angles, data['cosines'], strict=True)))
    c.set_title('by angle of feedback', fontsize=10)
    layers = {style.layer(name): values for name, values in data['layers'].items()}
    _densities(d, layers)
    d.set_title(f'by layer, at {angles[-1]}', fontsize=10)
    _units(e, data['turning'])
    _turns(f, data['turning'])
    for letter, axis in zip('acebdf', axes.flat, strict=True):
        axis.text(-0.14, 1.04, letter, transform=axis.transAxes, weight='bold')
        style.strip(axis)
    count = len(data['cosines'][0])
    network = data['network']
    sizes = '-'.join(map(str, network['sizes']))
    figure.suptitle(
        f'{sizes}, random weights; feedback tied (a), as said (c), or at '
        f'{network["angle"]:g}°; {network["num_images"]} digits ({count} in c, d)\n'
        'T: time of one turn of the nudge, τ: time constant of the units',
        fontsize=10,
    )
    return style.save(figure, records.folder(out or folder) / f'{NAME}.png')


def _errors(axis: Axes, radii: list, curves: dict) -> None:
    for index, (name, errors) in enumerate(curves.items()):
        corrected = name.endswith('corrected')
        axis.loglog(
            style.numbers(radii),
            style.numbers(errors),
            '--' if corrected else '-',
            color=style.METHODS['corrected'] if corrected else _colour(name),
            marker='x' if corrected else style.MARKERS[index % len(style.MARKERS)],
            markersize=4,
            linewidth=1.2,
            label=name,
        )
    axis.set_xlabel('|β|')
    axis.set_ylabel('relative error of δ')
    handles, labels = axis.get_legend_handles_labels()
    place = 'lower right'
    if labels[-1].endswith('corrected'):  # the others are those of the tied network
        handles, labels, place = handles[-1:], labels[-1:], (0.02, 0.62)
    axis.legend(handles, labels, frameon=False, fontsize=8, loc=place)


def _colour(name: str) -> str:
    """Returns the colour of a curve that is called N = ... ."""
    return style.NUDGES.get(int(name.split()[2]), style.GREY)


def _densities(axis: Axes, samples: dict[str, list]) -> None:
    places = np.linspace(-1, 1, 401)
    for index, (name, values) in enumerate(samples.items()):
        found = style.numbers(values)
        found = found[np.isfinite(found)]
        if found.size and np.ptp(found) < 1e-3:  # symmetric: all of them at 1
            mean = found.mean()
            axis.axvline(
                mean, color=style.colour(index), label=f'{name}: all {mean:.2f}'
            )
        elif found.size > 2:
            density = gaussian_kde(found)(places)
            axis.plot(places, density, color=style.colour(index), label=name)
            axis.fill_between(places, density, color=style.colour(index), alpha=0.15)
    axis.set_xlim(-1, 1.02)
    axis.set_ylim(bottom=0)
    axis.set_xlabel('cosine of the response to the exact δ')
    axis.set_ylabel('density')
    axis.legend(frameon=False, fontsize=8, loc='upper left')


def _units(axis: Axes, data: dict) -> None:
    turns = style.numbers(data['errors'][-1]['turns'])
    for index, unit in enumerate(data['units']):
        axis.plot(
            turns,
            style.numbers(unit['estimate']),
            color=style.colour(index),
            linewidth=1.2,
            label=f'{style.layer(unit["layer"])}, unit {unit["unit"]}',
        )
        axis.axhline(unit['exact'], color=style.colour(index), linestyle=':')
    axis.plot([], [], ':', color=style.GREY, label='at β → 0')
    axis.set_xlabel('turns of the nudge')
    axis.set_ylabel('running mean of Re s/β')
    axis.set_title(
        f'|β| = {data["radius"]:g}, T = {data["durations"][-1]:g} τ', fontsize=10
    )
    axis.legend(frameon=False, fontsize=8)


def _turns(axis: Axes, data: dict) -> None:
    for index, (duration, columns) in enumerate(
        zip(data['durations'], data['errors'], strict=True)
    ):
        turns, error = (style.numbers(columns[key]) for key in ('turns', 'error'))
        axis.semilogy(turns, error, color=style.colour(index), linewidth=0.8, alpha=0.6)
        whole = np.isclose(turns, np.round(turns))
        axis.semilogy(
            turns[whole],
            error[whole],
            style.MARKERS[index],
            color=style.colour(index),
            markersize=6,
            label=f'T = {duration:g} τ',
        )
    axis.set_xlabel('turns of the nudge')
    axis.set_ylabel('relative error of the mean')
    axis.set_ylim(top=10 * np.nanmax(error))
    axis.legend(
        frameon=False,
        fontsize=8,
        title='after whole turns',
        title_fontsize=8,
        loc='upper right',
    )
