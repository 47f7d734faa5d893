"""Three Jacobians, and the error vectors that EP and recurrent backprop find there."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from eqprop_jax import records
from eqprop_jax.figures import style
from experiments.figures import shared

NAME = 'fig1'


def draw(folder: records.Folder, out: records.Folder | None = None) -> records.Path:
    """Draws fig1.png from fig1.json and returns its path.

    Above, the Jacobians of one example as images, lines between the layers. Below, the
    response to small nudges over the exact error vector, unit by unit, in units of the
    root mean square of that layer.

    Args:
      folder: of the data.
      out: folder of the picture; None: that of the data.
    """
    data = records.read_data(folder, NAME)
    networks = data['networks']
    figure = Figure(figsize=(2.8 * len(networks), 6), layout='constrained')
    axes = figure.subplots(2, len(networks), squeeze=False)
    entries = [np.abs(shared.matrix(net['jacobian'])) for net in networks.values()]
    reach = max(np.quantile(values[values > 0], 0.98) for values in entries)
    norm = Normalize(-reach, reach)
    for column, (name, network) in enumerate(networks.items()):
        _matrix(axes[0, column], name, network, norm)
        _errors(axes[1, column], network)
    axes[0, 0].set_ylabel('unit that receives')
    axes[1, 0].set_ylabel('response $ds^*/dβ$ / rms of the layer')
    colours = ScalarMappable(norm, 'RdBu_r')
    figure.colorbar(
        colours, ax=axes[0, -1], label='$J_{ij} = ∂D_i/∂s_j$', shrink=0.8, extend='both'
    )
    handles, labels = axes[1, 0].get_legend_handles_labels()
    axes[1, 0].legend(handles, labels, frameon=False, fontsize=8, loc='upper left')
    sizes = '-'.join(map(str, data['network']['sizes']))
    figure.suptitle(f'{sizes}, random weights, one digit', fontsize=10)
    return style.save(figure, records.folder(out or folder) / f'{NAME}.png')


def _matrix(axis: Axes, name: str, network: dict, norm: Normalize) -> None:
    axis.imshow(shared.matrix(network['jacobian']), cmap='RdBu_r', norm=norm)
    edges = np.cumsum([0, *network['layers'].values()]) - 0.5
    for edge in edges[1:-1]:
        axis.axhline(edge, color=style.GREY, linewidth=0.6)
        axis.axvline(edge, color=style.GREY, linewidth=0.6)
    middles = (edges[:-1] + edges[1:]) / 2
    labels = [style.layer(layer) for layer in network['layers']]
    axis.set_xticks(middles, labels, fontsize=8)
    axis.set_yticks(middles, labels, fontsize=8, rotation=90, va='center')
    axis.tick_params(length=0)
    axis.set_xlabel('unit that sends')
    axis.set_title(
        f'{name}\nsymmetric share {network["symmetric_share"]:.2f}', fontsize=10
    )


def _errors(axis: Axes, network: dict) -> None:
    for index, layer in enumerate(network['layers']):
        axis.plot(
            style.numbers(network['exact'][layer]),
            style.numbers(network['response'][layer]),
            style.MARKERS[index],
            color=style.colour(index),
            markersize=4,
            alpha=0.8,
            label=style.layer(layer),
        )
    reach = 1.05 * max(abs(limit) for limit in (*axis.get_xlim(), *axis.get_ylim()))
    axis.plot([-reach, reach], [-reach, reach], '--', color=style.GREY, linewidth=1)
    axis.set_xlim(-reach, reach)
    axis.set_ylim(-reach, reach)
    axis.set_aspect('equal')
    axis.set_xlabel('exact δ / rms of the layer')
    axis.set_title(f'cosine {network["cosine"]:.2f}', fontsize=10)
    style.strip(axis)
