"""The rows of a sweep side by side: every run, and mean ± standard deviation."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from eqprop_jax import records
from eqprop_jax.figures import style

NAME = 'sweep'


def draw(workdir: records.Folder, rows: Sequence[Mapping[str, Any]]) -> records.Path:
    """Draws sweep.png into the workdir of a sweep and returns its path.

    Test error after the last epoch, one row of the sweep a line, in their order. Runs
    that broke off are missing; a row of such runs says so.

    Args:
      workdir: the folder.
      rows: as sweep.json has them.
    """
    height = 1.0 + 0.32 * len(rows)
    figure = Figure(figsize=(7, height), layout='constrained')
    axis = figure.subplots()
    found = [error for row in rows for error in row['last'] if error is not None]
    for line, row in enumerate(rows):
        errors = [error for error in row['last'] if error is not None]
        axis.plot(
            errors,
            [line] * len(errors),
            'o',
            color=style.BLUE,
            alpha=0.4,
            markersize=4,
            markeredgewidth=0,
        )
        if errors:
            axis.errorbar(
                row['mean'],
                line,
                xerr=row['std'] or 0,
                fmt='D',
                color=style.BLACK,
                markersize=4,
                capsize=3,
            )
        else:
            middle = axis.get_yaxis_transform()
            axis.text(0.5, line, 'broke off', transform=middle, va='center')
    axis.set_yticks(range(len(rows)), [row['name'] for row in rows], fontsize=8)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    if found and min(found) > 0 and max(found) > 8 * min(found):
        axis.set_xscale('log')
    axis.set_xlabel('test error after the last epoch / %')
    axis.grid(axis='x', alpha=0.3)
    axis.spines[['top', 'right']].set_visible(False)
    return style.save(figure, records.folder(workdir) / f'{NAME}.png')
