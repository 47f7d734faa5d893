"""What is kept of a run while it trains: records, checkpoints, notes for the end."""

import contextlib
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import jax
import numpy as np
from absl import logging

from eqprop_jax import checkpoint, records
from eqprop_jax.training import hosts
from eqprop_jax.training import step as steps
from eqprop_jax.training.programs import Chunk
from eqprop_jax.training.state import Experiment, TrainState, init_state


class TrainingError(RuntimeError):
    """Training cannot go on; the message names step and quantity."""


class Journal:
    """Claims a workdir, finds where its run goes on, and writes down how.

    A context manager: it holds files open while the run goes on.

    Args:
      experiment: the run.
      workdir: as in `train_and_evaluate`.
      keep: as there.

    Raises:
      CheckpointError: if the checkpoint to go on from has another state.
      WorkdirError: if the workdir holds the run of another configuration.
    """

    def __init__(
        self, experiment: Experiment, workdir: str | os.PathLike[str], keep: int
    ):
        self.experiment, self.workdir, self._keep = experiment, workdir, keep
        records.claim(workdir, experiment.config, write=hosts.is_first())
        state, self.notes = _begin(experiment, workdir)
        self.begun: TrainState | None = state
        """What the run goes on from, until it does."""
        self.start = int(state.step)
        """Steps taken before."""
        self.error: TrainingError | None = None
        """What ended the run, if anything did."""
        self._names = steps.quantities(state.params)
        self._files = contextlib.ExitStack()

    def __enter__(self) -> 'Journal':
        idle = not hosts.is_first()
        enter = self._files.enter_context
        self._writer = enter(records.Writer(self.workdir, self.start, idle=idle))
        self._saver = enter(checkpoint.Saver(self.workdir, keep=self._keep))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._files.__exit__(kind, error, trace)

    def trained(self, step: int, chunk: Chunk, seconds: float | None) -> None:
        """Records a chunk of steps, or why it broke off.

        Args:
          step: steps taken so far.
          chunk: what came of the last of them.
          seconds: that they took; None: they were compiled, too.
        """
        taken = int(chunk.num_steps)
        if taken:
            metrics = floats(chunk.metrics)
            if seconds is not None:
                examples = taken * self.experiment.batch_size
                metrics['examples_per_second'] = examples / seconds
            epoch = step / self.experiment.steps_per_epoch
            self._writer.write(step, epoch, 'train', metrics)
        finite = np.asarray(chunk.finite)
        if not finite.all():
            self.error = TrainingError(
                _diagnosis(self.experiment, self._names, finite, step, self.workdir)
            )
            self._saver.wait()
            _remove_checkpoints(self.workdir)
        elif seconds is not None:
            self.notes['train_seconds'] += seconds
            self.notes['timed_steps'] += taken

    def wants_diagnosis(self) -> bool:
        """Returns whether the next evaluation comes with one of the gradient."""
        every = self.experiment.diagnostics.every_evals
        return bool(every) and len(self.notes['evaluations']) % every == 0

    def evaluated(
        self,
        step: int,
        state: TrainState,
        found: Mapping[str, Mapping[str, Any]],
        extra: Mapping[str, Any],
    ) -> None:
        """Records an evaluation, and saves the state if none was better.

        Args:
          step: steps taken so far.
          state: of the run.
          found: metrics by split.
          extra: the diagnosis, which goes with the first of them; {}: none.
        """
        epoch = step / self.experiment.steps_per_epoch
        row: dict[str, Any] = {'step': step, 'epoch': epoch}
        more = floats(extra)
        for split, metrics in found.items():
            row[split] = floats(metrics)
            self._writer.write(step, epoch, split, row[split] | more)
            more = {}
        evaluations = self.notes['evaluations']
        evaluations.append(row)
        if _best(evaluations) is row:
            self._saver.save(state, best=True)

    def save(self, state: TrainState, *, wait: bool = False) -> None:
        """Writes a checkpoint; the records up to there are safe before it is."""
        self._writer.flush()
        self._saver.save(state, self.notes)
        if wait:
            self._saver.wait()

    def end(self) -> None:
        """Writes the summary of a run that took all its steps."""
        if hosts.is_first():
            records.write_summary(self.workdir, _summary(self.experiment, self.notes))
        _warn_unsettled(self.notes['evaluations'][-1]['test']['converged'])


def floats(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Returns metrics as plain numbers."""
    return {name: float(value) for name, value in jax.device_get(metrics).items()}


def _begin(
    experiment: Experiment, workdir: str | os.PathLike[str]
) -> tuple[TrainState, dict[str, Any]]:
    """Returns the state to start from, and what was noted of the run up to there.

    The first host looks which checkpoint that is; 0: from the start.
    """
    state, found = init_state(experiment), 0
    new = {'evaluations': [], 'train_seconds': 0.0, 'timed_steps': 0}
    if hosts.is_first() and records.is_unfinished(workdir):
        found = checkpoint.newest(workdir, logging.warning) or 0
    (number,) = hosts.largest(found)
    if number:
        state, notes = checkpoint.read(workdir, number, state)
        if notes.keys() >= new.keys():
            return state, notes
        state = init_state(experiment)
    _remove_checkpoints(workdir)  # they belong to records that the writer removes
    return state, new


def _remove_checkpoints(workdir: str | os.PathLike[str]) -> None:
    """Removes what is there, on the first host, while the others wait."""
    if hosts.is_first():
        checkpoint.remove(workdir)
    hosts.largest(0)


def _diagnosis(
    experiment: Experiment,
    names: list[str],
    finite: np.ndarray,
    step: int,
    workdir: str | os.PathLike[str],
) -> str:
    bad = [name for name, fine in zip(names, finite, strict=True) if not fine]
    bad = [name for name in bad if not name.startswith(steps.RESULT)] or bad
    shown = ', '.join(bad[:3]) + (f' and {len(bad) - 3} more' if len(bad) > 3 else '')
    return (
        f'step {step + 1} (epoch {step // experiment.steps_per_epoch + 1}) is not '
        f'finite in {shown}. The step was not taken; the records up to it are in '
        f'{workdir}. A smaller learning rate, a smaller nudge radius, or '
        'estimator.skip_unconverged=True may help; "converged" and "settled" in the '
        'records say whether the network still settled.'
    )


def _summary(experiment: Experiment, notes: dict[str, Any]) -> dict[str, Any]:
    evaluations, seconds = notes['evaluations'], notes['train_seconds']
    timed = notes['timed_steps'] * experiment.batch_size
    return {
        'last': evaluations[-1],
        'best': _best(evaluations),
        'seed': experiment.seed,
        'examples_per_second': timed / seconds if seconds else None,
        'train_seconds': seconds,
        'hardware': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
        'jax': jax.__version__,
        **records.provenance(),
    }


def _best(evaluations: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Returns the first one of the least held-out error, None without held-out ones."""
    return min(
        (row for row in evaluations if 'eval' in row),
        key=lambda row: (row['eval']['error'], row['eval']['loss']),
        default=None,
    )


def _warn_unsettled(converged: float, threshold: float = 0.9) -> None:
    """Logs a warning if too few of the test examples were at equilibrium at the end."""
    if not converged >= threshold:
        logging.warning(
            'only %.0f %% of the test examples settled within solver.max_steps to '
            'solver.tol at the end: gradients were taken away from equilibrium',
            100 * converged,
        )
