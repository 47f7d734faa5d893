"""The legs of a run: where it begins, or goes on, and what each leg is computed by."""

import functools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from eqprop_jax import checkpoint, records
from eqprop_jax.training import hosts
from eqprop_jax.training.state import Experiment, TrainState, init_state, rests_on

CONFIG = 'config'  # in the notes of a checkpoint


def leg() -> dict[str, Any]:
    """Returns what a run, or the rest of an interrupted one, is computed by."""
    return {
        'hardware': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
        'jax': jax.__version__,
        'commit': records.commit(),
    }


def distinct(values: Iterable[str | None]) -> str | None:
    """Returns each of them once, None for none."""
    return ', '.join(dict.fromkeys(filter(None, values))) or None


def is_finished(
    experiment: Experiment, workdir: str | os.PathLike[str], *, anew: bool = False
) -> bool:
    """Returns, on all hosts, whether the run has come to its end in a workdir.

    Args:
      experiment: from `eqprop_jax.config.experiment`.
      workdir: as of `train_and_evaluate`.
      anew: whether it is to begin anew then, on whatever it rests now.

    Raises:
      WorkdirError: if the workdir holds the run of another configuration, or one that
        has ended and rests on something else.
    """
    claim = functools.partial(
        records.claim,
        workdir,
        experiment.config,
        defaults=experiment.defaults,
        write=False,
    )
    claim()
    (ended,) = hosts.largest(int(hosts.is_first() and records.is_finished(workdir)))
    if ended and not anew:
        claim(rests_on=rests_on(experiment))
    return bool(ended)


def of(experiment: Experiment) -> Callable[[Mapping[str, Any]], bool]:
    """Returns whether the notes of a checkpoint are those of such a run.

    Older checkpoints do not say so, and pass.
    """

    def accepts(notes: Mapping[str, Any]) -> bool:
        there, here = notes.get(CONFIG, experiment.config), experiment.config
        return not records.differences(there, here, experiment.defaults)

    return accepts


def begin(
    experiment: Experiment, workdir: str | os.PathLike[str], *, anew: bool
) -> tuple[TrainState, dict[str, Any]]:
    """Returns the state to start from, and what was noted of the run up to there.

    The first host looks which checkpoint that is; 0: from the start, also of a run that
    has ended and begins anew, of which the summary goes first.
    """
    state, found = init_state(experiment), 0
    new = {'evaluations': [], 'train_seconds': 0.0, 'timed_steps': 0}
    if hosts.is_first() and anew:
        records.reopen(workdir)
    elif hosts.is_first() and records.is_unfinished(workdir):
        found = checkpoint.newest(workdir, of(experiment)) or 0
    (number,) = hosts.largest(found)
    if number:
        restored, notes = checkpoint.read(workdir, number, state)
        if notes.keys() >= new.keys():
            return restored, notes
    remove_checkpoints(workdir)  # they belong to records that the writer removes
    return state, new


def remove_checkpoints(workdir: str | os.PathLike[str]) -> None:
    """Removes what is there, on the first host, while the others wait."""
    if hosts.is_first():
        checkpoint.remove(workdir)
    hosts.largest(0)
