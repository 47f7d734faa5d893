"""When a run logs and evaluates: the steps between are one call of a program."""

from collections.abc import Iterator
from typing import NamedTuple

from eqprop_jax.training.state import Experiment


class Chunk(NamedTuple):
    """A run of steps within one epoch, and what follows it."""

    epoch: int
    first: int
    num_steps: int
    evaluate: bool


def chunks(experiment: Experiment, start: int = 0) -> Iterator[Chunk]:
    """Yields the chunks of a run from a step on; a record of its means follows each.

    Evaluations fall on multiples of `eval_every_steps` (0: on the ends of epochs) and
    on the last step. No chunk crosses an evaluation or the end of an epoch, and none
    is longer than `log_every_steps`.
    """
    length = experiment.steps_per_epoch
    every = experiment.eval_every_steps or length
    step = start
    while step < experiment.num_steps:
        epoch, first = divmod(step, length)
        ends = ((step // period + 1) * period for period in (length, every))
        stop = min(*ends, step + experiment.log_every_steps, experiment.num_steps)
        last = stop == experiment.num_steps
        yield Chunk(epoch, first, stop - step, stop % every == 0 or last)
        step = stop
