"""The updates of EP against those of BPTT: the same where the Jacobian is symmetric."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eqprop_jax import records
from eqprop_jax.figures import style
from experiments.figures import shared

NAME = 'processes'


def draw(folder: records.Folder, out: records.Folder | None = None) -> records.Path:
    """Draws processes.png from processes.json and returns its path.

    A column for each network and a row for each layer: the updates of some synapses by
    EP (lines) and BPTT (dots) over time; at the right the distance of all updates.

    Args:
      folder: of the data.
      out: folder of the picture; None: that of the data.
    """
    data = records.read_data(folder, NAME)
    networks, times = data['networks'], style.numbers(data['times'])
    step = data['step_size']
    layers = list(next(iter(networks.values()))['layers'])
    height = 1.5 + 1.15 * max(3, len(layers))
    figure = Figure(figsize=(8.4, height), layout='constrained')
    grid = figure.add_gridspec(len(layers), len(networks) + 1)
    for row, layer in enumerate(layers):
        first = None
        for column, (name, network) in enumerate(networks.items()):
            axis = figure.add_subplot(grid[row, column], sharey=first)
            _updates(axis, times, network['layers'][layer])
            axis.tick_params(labelleft=first is None)
            if first is None:
                first = axis
                axis.set_ylabel(f'update, {layer.replace("_", " ")}')
                axis.ticklabel_format(axis='y', scilimits=(-2, 2), useMathText=True)
            if row == 0:
                axis.set_title(name, fontsize=10)
                _legend(axis)
            if row == len(layers) - 1:
                axis.set_xlabel(f'time (τ), steps of {step:g}')
            else:
                axis.tick_params(labelbottom=False)
    right = figure.add_subplot(grid[:, -1])
    _distances(right, times, networks)
    right.set_xlabel(f'time (τ), steps of {step:g}')
    figure.suptitle(
        'Updates of the strongest synapses of each layer, a colour each, by EP from '
        f'the nudge on\nand BPTT; {shared.network_title(data["network"])}, or tied',
        fontsize=10,
    )
    return style.save(figure, records.folder(out or folder) / f'{NAME}.png')


def _updates(axis: Axes, times: np.ndarray, synapses: list[dict]) -> None:
    for index, synapse in enumerate(synapses):
        colour = style.colour(index)
        axis.plot(times, style.numbers(synapse['ep']), color=colour, linewidth=1.2)
        axis.plot(
            times,
            style.numbers(synapse['bptt']),
            'o',
            color=colour,
            markersize=2.6,
            fillstyle='none',
            markeredgewidth=0.7,
        )
    axis.axhline(0, color=style.GREY, linewidth=0.5, zorder=0)
    style.strip(axis)


def _legend(axis: Axes) -> None:
    handles = [
        Line2D([], [], color='0.3', label='EP'),
        Line2D([], [], color='0.3', marker='o', ls='', ms=3, mfc='none', label='BPTT'),
    ]
    axis.legend(handles=handles, frameon=False, fontsize=7, ncols=2, borderpad=0)


def _distances(axis: Axes, times: np.ndarray, networks: dict) -> None:
    for index, (name, network) in enumerate(networks.items()):
        axis.semilogy(
            times,
            style.numbers(network['distance']),
            color=(style.BLACK, style.GREY)[index % 2],
            marker=style.MARKERS[index],
            markersize=2,
            linewidth=1,
            label=name,
        )
    axis.set_ylabel('relative distance of the updates')
    axis.set_title('all parameters, float64', fontsize=10)
    axis.legend(frameon=False, fontsize=8)
    style.strip(axis)
