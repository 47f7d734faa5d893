"""The curves of a run while it trains, in a notebook."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.figure import Figure

from eqprop_jax.figures import curves, style


def live(every: float = 2.0) -> Callable[[int, Mapping[str, Any]], None]:
    """Returns a callback of `fit` that draws errors and settling below a cell.

    Args:
      every: seconds between drawings, at least; evaluations are always drawn.

    Raises:
      ImportError: without IPython, which every notebook has.
    """
    from IPython.display import display

    rows: list[dict[str, Any]] = []
    shown: dict[str, Any] = {'handle': None, 'time': -every}

    def draw(step: int, metrics: Mapping[str, Any]) -> None:
        rows.append({'step': step, **metrics})
        if metrics['split'] == 'train' and time.monotonic() - shown['time'] < every:
            return
        shown['time'] = time.monotonic()
        figure = Figure(figsize=(6.6, 2.8), layout='constrained')
        for axis, panel in zip(
            figure.subplots(1, 2), (curves.errors, curves.settling), strict=True
        ):
            panel(axis, rows)
            style.over_epochs(axis)
            style.strip(axis)
        if shown['handle'] is None:
            shown['handle'] = display(figure, display_id=True)
        else:
            shown['handle'].update(figure)

    return draw
