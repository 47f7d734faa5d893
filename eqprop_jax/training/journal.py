"""What is kept of a run while it trains: records, checkpoints, notes for the end."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from eqprop_jax import _disk as disk
from eqprop_jax import checkpoint, records
from eqprop_jax.training import hosts, legs
from eqprop_jax.training import step as steps
from eqprop_jax.training.callbacks import Callback
from eqprop_jax.training.metrics import doubts, of_phases
from eqprop_jax.training.programs import Chunk
from eqprop_jax.training.state import Experiment, TrainState, init_state


class TrainingError(RuntimeError):
    """Training cannot go on; the message names step and quantity."""


class Journal:
    """Claims a workdir, finds where its run goes on, and writes down how.

    A context manager: it holds files open while the run goes on. Arguments and errors
    are those of `loop.train_and_evaluate`.
    """

    def __init__(
        self,
        experiment: Experiment,
        workdir: str | os.PathLike[str],
        keep: int,
        rests_on: Mapping[str, Any],
        *,
        overwrite: bool,
        callbacks: Sequence[Callback] = (),
    ):
        self.experiment, self.workdir, self._keep = experiment, workdir, keep
        self._callbacks = callbacks if hosts.is_first() else ()
        finished = legs.is_finished(experiment, workdir, anew=overwrite)
        self.ended: TrainState | None = None
        """The last state of a run that has ended before: there is nothing to do."""
        if finished and not overwrite:
            self.ended = checkpoint.restore(
                workdir, init_state(experiment), accepts=legs.of(experiment)
            )
            return
        records.claim(
            workdir,
            experiment.config,
            defaults=experiment.defaults,
            rests_on=rests_on,
            anew=finished,
            write=hosts.is_first(),
        )
        state, self.notes = legs.begin(experiment, workdir, anew=finished)
        self.notes[legs.CONFIG] = dict(experiment.config)
        self.notes['legs'] = [*self.notes.get('legs', ()), legs.leg()]
        self.begun: TrainState | None = state
        """What the run goes on from, until it does."""
        self.start = int(state.step)
        """Steps taken before."""
        self.error: TrainingError | None = None
        """What ended the run, if anything did: nothing is written from then on."""
        self._names = steps.quantities(state.params)
        self._files = contextlib.ExitStack()

    def __enter__(self) -> 'Journal':
        idle = not hosts.is_first()
        enter = self._files.enter_context
        writer = records.Writer(
            self.workdir, self.start, idle=idle, config=self.experiment.config
        )
        self._writer = enter(writer)
        is_ours = self._writer.is_ours
        saver = checkpoint.Saver(self.workdir, keep=self._keep, is_ours=is_ours)
        self._saver = enter(saver)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._files.__exit__(kind, error, trace)

    def trained(self, before: int, chunk: Chunk, seconds: float | None) -> None:
        """Records a chunk of steps, or why it broke off.

        It took so many seconds, None with those of compiling; `before` counts the steps
        taken up to it.
        """
        if self.error is not None:
            return
        taken = int(chunk.num_steps)
        if taken:
            metrics = floats(chunk.metrics)
            if seconds is not None:
                examples = taken * self.experiment.batch_size
                metrics['examples_per_second'] = examples / seconds
            self._write(before + taken, 'train', metrics)
        finite = np.asarray(chunk.finite)
        if not finite.all():
            self.error = self._not_finite(before + taken, finite)
            self._saver.wait()
            self._writer.check()
            legs.remove_checkpoints(self.workdir)
        elif seconds is not None:
            self.notes['train_seconds'] += seconds
            self.notes['timed_steps'] += taken

    def _write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        epoch = step / self.experiment.steps_per_epoch
        self._writer.write(step, epoch, split, metrics)
        for callback in self._callbacks:
            callback(step, {'epoch': epoch, 'split': split, **metrics})

    def _not_finite(self, step: int, finite: np.ndarray) -> TrainingError:
        """Returns the error of the step that comes after so many."""
        bad = [name for name, fine in zip(self._names, finite, strict=True) if not fine]
        bad = [name for name in bad if not name.startswith(steps.RESULT)] or bad
        return TrainingError(
            f'step {step + 1} (epoch {step // self.experiment.steps_per_epoch + 1}) is '
            f'not finite in {disk.first_three(bad)}. The step was not taken; the '
            f'records up to it are in {self.workdir}. A smaller learning rate, a '
            'smaller nudge radius, or estimator.skip_unconverged=True may help; '
            '"converged" and "settled" in the records say whether the network still '
            'settled.'
        )

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
        """Records metrics by split, and saves the state if none was better.

        What is extra, a diagnosis or nothing, goes with the first split.
        """
        row: dict[str, Any] = {
            'step': step,
            'epoch': step / self.experiment.steps_per_epoch,
        }
        more = floats(extra)
        for split, metrics in found.items():
            row[split] = floats(metrics)
            self._write(step, split, row[split] | more)
            more = {}
        evaluations = self.notes['evaluations']
        evaluations.append(row)
        if _best(evaluations) is row:
            self._saver.save(state, {legs.CONFIG: self.notes[legs.CONFIG]}, best=True)

    def save(self, state: TrainState, *, wait: bool = False) -> None:
        """Writes a checkpoint; the records up to there are on the disk before it is."""
        self._writer.flush()
        self._saver.save(state, self.notes)
        if wait:
            self._saver.wait()

    def end(self) -> None:
        """Writes the summary of a run that took all its steps, after all else."""
        if self.error is not None:
            return
        self._saver.wait()
        self._writer.check()
        if not hosts.is_first():
            return
        run, last = self.experiment, self.notes['evaluations'][-1]
        phases = of_phases(records.read(self.workdir), run.steps_per_epoch)
        warnings = doubts(last['test']['converged'], phases)
        for warning in warnings:
            logging.warning('%s', warning)
        summary = self._summary() | {'phases': phases, 'warnings': warnings}
        records.write_summary(self.workdir, summary)

    def _summary(self) -> dict[str, Any]:
        evaluations, seconds = self.notes['evaluations'], self.notes['train_seconds']
        timed = self.notes['timed_steps'] * self.experiment.batch_size
        return {
            'last': evaluations[-1],
            'best': _best(evaluations),
            'seed': self.experiment.seed,
            'examples_per_second': timed / seconds if seconds else None,
            'train_seconds': seconds,
            **records.provenance(),
            **{
                key: legs.distinct(leg.get(key) for leg in self.notes['legs'])
                for key in legs.leg()
            },
        }


def floats(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Returns metrics as plain numbers."""
    return {name: float(value) for name, value in jax.device_get(metrics).items()}


def _best(evaluations: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Returns the first one of the least held-out error, None without held-out ones."""
    return min(
        (row for row in evaluations if 'eval' in row),
        key=lambda row: (row['eval']['error'], row['eval']['loss']),
        default=None,
    )
