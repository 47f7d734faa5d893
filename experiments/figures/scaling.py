"""What a gradient costs, and how that grows."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eqprop_jax import records
from eqprop_jax.figures import style

NAME = 'scaling'
LABELS = {
    'width': 'units of a layer',
    'depth': 'layers',
    'batch_size': 'examples in a batch',
    'num_points': 'nudges on the circle',
    'tol': 'tolerance',
}


def draw(folder: records.Folder, out: records.Folder | None = None) -> records.Path:
    """Draws scaling.png from scaling.json and returns its path.

    Five panels of evaluations of the drive against a size or the tolerance, with what
    the batch costs if it goes on together, and one of the gradient's error against the
    tolerance.

    Args:
      folder: of the data.
      out: folder of the picture; None: that of the data.
    """
    data = records.read_data(folder, NAME)
    figure = Figure(figsize=(8.4, 5.8), layout='constrained')
    axes = figure.subplots(2, 3).flat
    for axis, (name, label) in zip(axes, LABELS.items(), strict=False):
        _evaluations(axis, name, data['axes'][name])
        axis.set_xlabel(label)
    axes[0].set_ylabel('evaluations of the drive')
    axes[3].set_ylabel('evaluations of the drive')
    _error(axes[5], data['axes']['tol'])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center', ncols=3, fontsize=9)
    figure.suptitle(
        'Cost of a corrected gradient of an untied network at initialisation: all '
        'phases, per example\nsolid: with compaction, dotted: until the last of the '
        'batch has settled; in the corner: growth',
        fontsize=10,
    )
    return style.save(figure, records.folder(out or folder) / f'{NAME}.png')


def _evaluations(axis: Axes, name: str, panel: dict) -> None:
    values = style.numbers(panel['values'])
    said = []
    for index, (variant, columns) in enumerate(panel['variants'].items()):
        colour = style.colour(index)
        axis.plot(
            values,
            style.numbers(columns['compacted']),
            marker=style.MARKERS[index],
            color=colour,
            markersize=4,
            label=variant,
        )
        axis.plot(values, style.numbers(columns['together']), ':', color=colour)
        law = columns['law']
        if law is not None:
            unit = ' a decade' if name == 'tol' else ''
            said.append(f'+{law:.1f}{unit}' if unit else f'$\\propto x^{{{law:.2f}}}$')
    axis.set_yscale('log')
    axis.set_xscale('log', base=10 if name == 'tol' else 2)
    if name == 'tol':
        axis.invert_xaxis()
    else:
        axis.set_xticks(values, [f'{value:g}' for value in values])
        axis.minorticks_off()
    for index, text in enumerate(said):
        axis.text(
            0.03,
            0.97 - 0.09 * index,
            text,
            color=style.colour(index),
            transform=axis.transAxes,
            va='top',
            fontsize=8,
        )
    low, high = axis.get_ylim()
    axis.set_ylim(low, high * (high / low) ** 0.4)  # room for the text
    style.strip(axis)


def _error(axis: Axes, panel: dict) -> None:
    for index, columns in enumerate(panel['variants'].values()):
        axis.plot(
            style.numbers(panel['values']),
            np.maximum(1 - style.numbers(columns['cosine']), 1e-8),
            color=style.colour(index),
            marker=style.MARKERS[index],
            markersize=4,
        )
    axis.set_xscale('log')
    axis.set_yscale('log')
    axis.invert_xaxis()
    axis.set_xlabel('tolerance')
    axis.set_ylabel('1 − cosine to the exact gradient')
    style.strip(axis)
