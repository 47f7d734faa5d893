"""The finite nudge's bias, the asymmetry's, and an estimate in continuous time."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import gaussian_kde

from eqprop_jax import records
from eqprop_jax.figures import style

NAME = 'fig2'
LEAST = 1e-15
LINES = ('-', '--', '-.', (0, (1, 1)))


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
    figure = Figure(figsize=(style.WIDTH, 6.4), layout='constrained')
    grid = figure.add_gridspec(3, 1, height_ratios=(1.15, 1, 1))
    parts = [figure.add_subfigure(grid[row]) for row in range(3)]
    (a, b), (c, d), (e, f) = axes = [part.subplots(1, 2) for part in parts]
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
        axis.set_title(name)
    parts[0].legend(
        *b.get_legend_handles_labels(),
        loc='outside lower center',
        ncols=5,
        columnspacing=1,
        frameon=False,
        fontsize=style.SMALL,
    )
    angles = [f'{angle:g}°' for angle in data['angles']]
    _densities(
        c,
        dict(zip(angles, data['cosines'], strict=True)),
        [style.angle(angle) for angle in data['angles']],
    )
    c.set_title('by angle of the feedback')
    layers = {style.layer(name): values for name, values in data['layers'].items()}
    _densities(d, layers, [style.colour(index) for index in range(len(layers))])
    d.set_title(f'by layer, at {angles[-1]}')
    _units(e, data['turning'])
    _turns(f, data['turning'])
    style.compact(figure)
    for letter, axis in zip('abcdef', np.ravel(axes), strict=True):
        style.letter(axis, letter)
        style.strip(axis)
    count = len(data['cosines'][0])
    network = data['network']
    sizes = '-'.join(map(str, network['sizes']))
    figure.suptitle(
        f'{sizes}, random weights; {network["num_images"]} digits ({count} in c, d)\n'
        f'feedback tied (a), as said (c), or at {network["angle"]:g}°\n'
        'T: time of one turn of the nudge, τ: time constant of the units',
        fontsize=style.SMALL,
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
            markersize=4 if corrected else 6 - index,  # those below are seen
            linewidth=1.2,
            label=name,
        )
    axis.set_xlabel('|β|')
    axis.set_ylabel('relative error of δ')


def _colour(name: str) -> str:
    """Returns the colour of a curve that is called N = ... ."""
    return style.NUDGES.get(int(name.split()[2]), style.GREY)


def _densities(axis: Axes, samples: dict[str, list], colours: list) -> None:
    places = np.linspace(-1, 1, 401)
    kinds = zip(samples.items(), colours, LINES, strict=False)
    for (name, values), colour, line in kinds:
        found = style.numbers(values)
        found = found[np.isfinite(found)]
        if found.size and np.ptp(found) < 1e-3:  # symmetric: all of them at 1
            mean = found.mean()
            axis.axvline(mean, color=colour, ls=line, label=f'{name}: all {mean:.2f}')
        elif found.size > 2:
            density = gaussian_kde(found)(places)
            axis.plot(places, density, color=colour, ls=line, label=name)
            axis.fill_between(places, density, color=colour, alpha=0.15, linewidth=0)
    axis.set_xlim(-1, 1.02)
    axis.set_ylim(bottom=0)
    axis.set_xlabel('cosine to the exact δ')
    axis.set_ylabel('density')
    axis.legend(frameon=False, fontsize=style.SMALL, loc='upper left')


def _units(axis: Axes, data: dict) -> None:
    turns = style.numbers(data['errors'][-1]['turns'])
    for index, unit in enumerate(data['units']):
        axis.plot(
            turns,
            style.numbers(unit['estimate']),
            color=style.colour(index),
            marker=style.MARKERS[index],
            markersize=3.5,
            markevery=(index * turns.size // 48, max(1, turns.size // 12)),
            linewidth=1.2,
            label=f'{style.layer(unit["layer"])}, unit {unit["unit"]}',
        )
        axis.axhline(unit['exact'], color=style.colour(index), linestyle=':')
    axis.plot([], [], ':', color=style.GREY, label='at β → 0')
    axis.set_xlabel('turns of the nudge')
    axis.set_ylabel('running mean of Re s/β')
    axis.set_title(f'|β| = {data["radius"]:g}, T = {data["durations"][-1]:g} τ')
    low, high = axis.get_ylim()
    axis.set_ylim(low, high + 0.9 * (high - low))  # room for the legend
    axis.legend(frameon=False, fontsize=style.SMALL)


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
    axis.set_ylim(top=2e4 * np.nanmax(error))  # room for the legend
    axis.legend(
        frameon=False,
        fontsize=style.SMALL,
        title='after whole turns',
        title_fontsize=style.SMALL,
        loc='upper right',
    )
