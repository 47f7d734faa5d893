"""Training with Jacobian homeostasis, without it, and with the correction."""

from matplotlib.figure import Figure

from eqprop_jax import records
from eqprop_jax.figures import style

NAME, RECORD = 'fig4', 'fig4_fmnist'
PANELS = {
    'test/error': 'test error (%)',
    'eval/symmetric_share': 'symmetric share of J',
    'eval/gradient_cosine': 'cosine to exact RBP',
}


def draw(folder: records.Folder, out: records.Folder | None = None) -> records.Path:
    """Draws fig4.png from fig4_fmnist.json and returns its path.

    One line of panels for each network: test error, symmetric share of the Jacobian,
    and the cosine of the gradient to that of recurrent backprop, over epochs: medians
    of the runs and their range. Of cosines see `eqprop_jax.figures.angles`.

    Args:
      folder: of the record of the sweep, as `records.results.collect` makes it: rows
        are called 'network, method'.
      out: folder of the picture; None: that of the record.
    """
    data = records.read_data(folder, RECORD)
    networks: dict[str, dict[str, dict]] = {}
    for row in data['rows']:
        network, _, method = row['name'].partition(', ')
        networks.setdefault(network, {})[method] = row['curves']
    size = (11, 0.4 + 3.1 * len(networks))
    figure = Figure(figsize=size, layout='constrained')
    axes = figure.subplots(len(networks), len(PANELS), squeeze=False)
    for line, (network, methods) in zip(axes, networks.items(), strict=True):
        for axis, (path, label) in zip(line, PANELS.items(), strict=True):
            for method, curves in methods.items():
                if path in curves:
                    scale = 100 if path == 'test/error' else 1
                    style.runs(
                        axis, curves[path], style.method(method), method, scale=scale
                    )
            axis.set_ylabel(label)
            axis.set_xlabel('epoch')
            axis.set_xlim(left=0)
            style.strip(axis)
        line[0].set_title(network, fontsize=10)
        line[0].set_ylim(bottom=0)
        line[0].legend(frameon=False, fontsize=8)
        for axis in line[1:]:
            axis.set_ylim(min(0, axis.get_ylim()[0]), 1.03)
    for letter, axis in zip('abcdefghijkl', axes.flat, strict=False):
        axis.text(-0.16, 1.02, letter, transform=axis.transAxes, weight='bold')
    figure.suptitle(style.sweep_title(data), fontsize=10)
    return style.save(figure, records.folder(out or folder) / f'{NAME}.png')
