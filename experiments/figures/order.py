"""The worst layer's error from sweep to sweep, by the order of the sweeps."""

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eqprop_jax import records
from eqprop_jax.figures import style

NAME = 'order'
STYLES = {'from the top': '-', 'odd and even': '--'}


def draw(folder: records.Folder, out: records.Folder | None = None) -> records.Path:
    """Draws order.png from order.json and returns its path.

    Args:
      folder: of the data.
      out: folder of the picture; None: that of the data.
    """
    data = records.read_data(folder, NAME)
    figure = Figure(figsize=(6.4, 4.0), layout='constrained')
    axis = figure.subplots()
    for index, (name, curves) in enumerate(data['curves'].items()):
        for order, errors in curves.items():
            axis.plot(
                data['sweeps'],
                style.numbers(errors),
                STYLES[order],
                color=style.colour(index),
                marker=style.MARKERS[index],
                markersize=3.5,
                linewidth=1.2,
                label=name if order == 'from the top' else None,
            )
    axis.axhline(0.05, color=style.GREY, linestyle=':', linewidth=1)
    axis.text(data['sweeps'][-1], 0.055, '5 %', ha='right', va='bottom', fontsize=8)
    axis.set_yscale('log')
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_ylim(1e-6, 2)
    axis.set_xlabel('sweeps under the nudge')
    axis.set_ylabel('relative error of δ in the worst layer')
    for order, line in STYLES.items():
        axis.plot([], [], line, color='black', linewidth=1.2, label=order)
    axis.legend(frameon=False, fontsize=8, loc='lower left')
    style.strip(axis)
    figure.suptitle('Sweeps in the order of the nudge, and in two blocks', fontsize=10)
    return style.save(figure, records.folder(out or folder) / f'{NAME}.png')
