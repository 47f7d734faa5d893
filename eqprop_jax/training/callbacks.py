"""What is told of a run while it trains: functions of step and metrics.

`eqprop_jax.figures.live` draws them in a notebook.
"""

from collections.abc import Callable, Mapping
from typing import Any

Callback = Callable[[int, Mapping[str, Any]], Any]
"""(steps taken, metrics): a record as metrics.jsonl has it, with `epoch`, `split` and
numbers by name. On several hosts the first one calls it."""


def wandb(run: Any) -> Callback:
    """Returns a callback that logs to Weights & Biases, as 'train/loss' and so on.

    Args:
      run: from `wandb.init`.
    """

    def log(step: int, metrics: Mapping[str, Any]) -> None:
        split = metrics['split']
        values = {k: v for k, v in metrics.items() if k not in ('split', 'epoch')}
        named = {f'{split}/{name}': value for name, value in values.items()}
        run.log({'epoch': metrics['epoch'], **named}, step=step)

    return log
