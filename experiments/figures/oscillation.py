"""The online estimator: how patient it has to be, and how noise averages out."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eqprop_jax import records
from eqprop_jax.figures import style
from experiments.figures import shared

NAME = 'oscillation'
ONLINE = style.METHODS['online']


def draw(folder: records.Folder, out: records.Folder | None = None) -> records.Path:
    """Draws oscillation.png from oscillation.json and returns its path.

    Left the error over the sweeps at each point, without noise; right, with noise, over
    the periods that are averaged, beside one-sided nudging for as many sweeps, whose
    first value is that of a single pair of phases. What each comes to at equilibrium,
    without noise, is dotted.

    Args:
      folder: of the data.
      out: folder of the picture; None: that of the data.
    """
    data = records.read_data(folder, NAME)
    figure = Figure(figsize=(6.4, 4.2), layout='constrained')
    left, right = figure.subplots(1, 2)
    _patience(left, data)
    _noise(right, data)
    for axis in (left, right):
        axis.legend(frameon=False, fontsize=8)
        style.strip(axis)
    figure.suptitle(
        f'Online, {data["num_points"]} points of radius {data["radius"]:g}\n'
        f'{shared.network_title(data["network"])}',
        fontsize=10,
    )
    return style.save(figure, records.folder(out or folder) / f'{NAME}.png')


def _patience(axis: Axes, data: dict) -> None:
    for index, (name, errors) in enumerate(data['patience'].items()):
        _curve(axis, data['sweeps'], errors, index, name, ONLINE)
    axis.set_xlabel('sweeps at each point')
    axis.set_ylabel('relative error of δ')
    axis.set_title('no noise; against the\nsame points at equilibrium', fontsize=10)
    _mark(axis, data['sweeps'])


def _noise(axis: Axes, data: dict) -> None:
    online, ticks = data['online'], set(data['online']['periods'])
    methods = [(f'online, {data["num_points"]} points', online)]
    for pairs in data['one_sided']:
        methods.append((f'one-sided, β = {pairs["beta"]:g}', pairs))
        ticks.update(pairs['periods'])
    for index, (name, values) in enumerate(methods):
        colour = style.NUDGES[1] if index else ONLINE
        _curve(axis, values['periods'], values['errors'], index, name, colour)
        if values['at_equilibrium'] is not None:
            _level(axis, values['at_equilibrium'], colour)
    periods = style.numbers(online['periods'])
    axis.plot(
        periods,
        style.numbers(online['errors'])[0] * np.sqrt(periods[0] / periods),
        '--',
        color=style.GREY,
        linewidth=1,
        label='1/√periods',
    )
    _level(axis, np.nan, style.GREY, label='at equilibrium, no noise')
    sweeps = data['steps_per_point'] * data['num_points']
    axis.set_xlabel(
        f'averaged periods of {sweeps} sweeps\n(half a period: one pair of phases)'
    )
    axis.set_title(
        f'noise {data["noise"]:g} a sweep, float32;\nagainst the response at β → 0',
        fontsize=10,
    )
    _mark(axis, sorted(ticks))
    low, high = axis.get_ylim()
    axis.set_ylim(low, high * (high / low) ** 0.4)  # room for the legend


def _level(axis: Axes, value: float, colour: str, label: str | None = None) -> None:
    axis.axhline(value, color=colour, linestyle=':', linewidth=1, label=label)


def _curve(
    axis: Axes, x: list, errors: list, index: int, label: str, colour: str
) -> None:
    axis.plot(
        style.numbers(x),
        style.numbers(errors),
        color=colour,
        marker=style.MARKERS[index % len(style.MARKERS)],
        markersize=4,
        linewidth=1.2,
        label=label,
    )


def _mark(axis: Axes, values: list) -> None:
    """Makes both axes logarithmic and marks the values, every other one of many."""
    axis.set_yscale('log')
    axis.set_xscale('log', base=2)
    ticks = values[:: 2 if len(values) > 8 else 1]
    axis.set_xticks(ticks, [f'{tick:g}' for tick in ticks])
