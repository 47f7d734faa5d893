"""The rows of a sweep side by side: every run, and mean ± standard deviation."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from eqprop_jax import records
from eqprop_jax.figures import style

NAME = 'sweep'
RUN: dict[str, Any] = dict(
    color=style.BLUE, marker='o', linestyle='', alpha=0.5, markersize=4, mew=0
)
MEAN: dict[str, Any] = dict(
    color=style.BLACK, fmt='|', markersize=9, capsize=3, linewidth=1, zorder=3
)


@style.fixed()
def draw(workdir: records.Folder, rows: Sequence[Mapping[str, Any]]) -> records.Path:
    """Draws sweep.png into the workdir of a sweep and returns its path.

    Test error after the last epoch, one row of the sweep a line, in their order. Runs
    that broke off are missing; a row of such runs says so.

    Args:
      workdir: the folder.
      rows: as sweep.json has them.
    """
    size = (style.WIDTH, 0.9 + 0.28 * len(rows))
    figure = Figure(figsize=size, layout='constrained')
    axis = figure.subplots()
    middle = axis.get_yaxis_transform()
    found = []
    for line, row in enumerate(rows):
        errors = [error for error in row['last'] if error is not None]
        found += errors
        axis.plot(errors, [line] * len(errors), **RUN)
        if errors:
            axis.errorbar(row['mean'], line, xerr=row['std'] or 0, **MEAN)
        else:
            axis.text(
                0.5,
                line,
                'broke off',
                transform=middle,
                va='center',
                fontsize=style.SMALL,
            )
    axis.set_yticks(range(len(rows)), [textwrap.fill(row['name'], 40) for row in rows])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    if found and min(found) > 0 and max(found) > 8 * min(found):
        axis.set_xscale('log')
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter('{x:g}')
        axis.minorticks_off()
    axis.set_xlabel('test error after the last epoch / %')
    axis.grid(axis='x', alpha=0.3)
    style.compact(figure)
    style.strip(axis)
    return style.save(figure, records.folder(workdir) / f'{NAME}.png')
