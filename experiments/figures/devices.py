"""How a training step divides among devices."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from eqprop_jax import records
from eqprop_jax.figures import style

NAME = 'devices'
TITLES = ('sent by a device in a step', 'strong scaling', 'weak scaling')


def draw(folder: records.Folder, out: records.Folder | None = None) -> records.Path:
    """Draws devices.png from devices.json and returns its path.

    A row for each network: megabytes that a device sends in a step, how many times
    faster a batch of fixed size is, and the efficiency at a fixed batch for each
    device, against the number of devices. Points follow from compiled programs.

    Args:
      folder: of the data.
      out: folder of the picture; None: that of the data.
    """
    data = records.read_data(folder, NAME)
    networks = data['network']
    figure = Figure(
        figsize=(8.4, 2.6 * len(networks) + 1),
        layout=ConstrainedLayoutEngine(wspace=0.05),
    )
    axes = figure.subplots(len(networks), 3, squeeze=False)
    looks: dict[str, dict[str, str]] = {}
    for row, (name, network) in zip(axes, networks.items(), strict=True):
        most = 1
        for index, (sharing, kinds) in enumerate(data['curves'][name].items()):
            look = {'color': style.colour(index), 'marker': style.MARKERS[index]}
            looks[sharing] = look
            for kind, axis in (('strong', row[1]), ('weak', row[2])):
                filled = kind == 'strong'
                _draw_curve(row[0], kinds[kind], 'bytes', look, filled, unit=1e-6)
                _draw_curve(axis, kinds[kind], 'relative', look, filled)
                if sharing == '1':
                    _tell(row[0], kind, kinds[kind]['paper'])
                most = max(most, *kinds[kind]['paper']['devices'])
        _dress(row, name, network['batch_size'], most)
    for axis, title in zip(axes[0], TITLES, strict=True):
        axis.set_title(title, fontsize=11)
    figure.legend(
        handles=_legend(looks), loc='outside lower center', ncols=3, fontsize=9
    )
    return style.save(figure, records.folder(out or folder) / f'{NAME}.png')


def _draw_curve(
    axis: Axes,
    curve: dict[str, Any],
    name: str,
    look: dict[str, str],
    filled: bool,
    unit: float = 1.0,
) -> None:
    """Draws what is on paper as a line, and what was compiled as points."""
    line: dict[str, Any] = {'linestyle': '--', 'linewidth': 1.2}
    points: dict[str, Any] = {
        'linestyle': '',
        'marker': look['marker'],
        'markersize': 5,
        'markerfacecolor': look['color'] if filled else 'white',
    }
    for kind, options in (('paper', line), ('compiled', points)):
        columns = curve[kind]
        values = unit * style.numbers(columns[name])
        axis.plot(
            columns['devices'],
            np.where(values > 0, values, np.nan),  # one device sends nothing
            color=look['color'],
            **options,
        )


def _tell(axis: Axes, kind: str, paper: dict[str, Any]) -> None:
    """Says at the end of a line of bytes whose it is."""
    last = paper['devices'][-1], 1e-6 * paper['bytes'][-1]
    axis.annotate(
        kind, last, (6, 0), textcoords='offset points', va='center', fontsize=9
    )


def _dress(row: np.ndarray, name: str, batch: dict[str, int], most: int) -> None:
    """Says what the axes of a network show."""
    sent, strong, weak = row
    for axis in row:
        axis.set_xscale('log', base=2)
        axis.set_xlim(0.8, 1.25 * most)
        axis.set_xticks(
            [4**power for power in range(most.bit_length()) if 4**power <= most]
        )
        axis.xaxis.set_major_formatter('{x:g}')
        axis.minorticks_off()
        axis.set_xlabel('devices')
        style.strip(axis)
    sent.set_xlim(0.8, 2.5 * most)  # room for the text
    strong.plot([1, most], [1, most], ':', color=style.GREY, linewidth=1)
    weak.axhline(1, linestyle=':', color=style.GREY, linewidth=1)
    for axis in (sent, strong):
        axis.set_yscale('log', base=2)
        axis.yaxis.set_major_formatter('{x:g}')
    sent.set_ylabel(f'{name}\n\nmegabytes', fontsize=10)
    strong.set_ylabel('times faster than one device')
    weak.set_ylabel('efficiency')
    weak.set_ylim(0, 1.15)
    for axis, text in (
        (strong, f'{batch["strong"]} examples'),
        (weak, f'{batch["weak"]} examples a device'),
    ):
        axis.text(0.03, 0.99, text, transform=axis.transAxes, va='top', fontsize=9)


def _legend(looks: dict[str, dict[str, str]]) -> list[Line2D]:
    def point(label: str, marker: str, colour: str, face: str) -> Line2D:
        return Line2D(
            [],
            [],
            color=colour,
            ls='',
            marker=marker,
            mfc=face,
            markersize=5,
            label=label,
        )

    phases = [
        point(_label(sharing), look['marker'], look['color'], look['color'])
        for sharing, look in looks.items()
    ]
    return [
        *phases,
        Line2D([], [], color=style.BLACK, linestyle='--', label='on paper'),
        point('compiled, strong', 'o', style.BLACK, style.BLACK),
        point('compiled, weak', 'o', style.BLACK, 'white'),
    ]


def _label(sharing: str) -> str:
    if sharing == '1':
        return 'every device relaxes all phases'
    return f'{sharing} devices share the phases'
