"""The main loop: chunks of steps, evaluations on a schedule, records, progress."""

import contextlib
import functools
import os
import sys
import time
from collections.abc import Sequence

import numpy as np
import tqdm

from eqprop_jax import records
from eqprop_jax._axes import promoting
from eqprop_jax.training import agreement, hosts, programs
from eqprop_jax.training.callbacks import Callback
from eqprop_jax.training.display import Display
from eqprop_jax.training.interrupts import Interrupted, Watch
from eqprop_jax.training.journal import Journal, TrainingError
from eqprop_jax.training.schedule import Chunk, chunks
from eqprop_jax.training.state import Experiment, TrainState, rests_on
from eqprop_jax.training.together import Runs


@promoting
def train_and_evaluate(
    experiment: Experiment,
    workdir: str | os.PathLike[str],
    *,
    progress: bool = True,
    save_every: float = 60.0,
    keep: int = 2,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
) -> TrainState:
    """Trains, evaluates on held-out and test examples, writes records and checkpoint.

    The best evaluation is the one with the smallest error on the held-out examples
    (the loss decides between equals); the test error reported as `best` is the one
    measured at that point. Without held-out examples there is no best.

    A run that did not end goes on from its last checkpoint, to the same numbers to the
    bit; on other devices to within rounding. Of one that has ended the last state is
    returned, and nothing is written. SIGINT and SIGTERM are obeyed at the end of a
    chunk, once the state is saved: of several hosts by all at the same step, if one of
    them gets the signal.

    Args:
      experiment: from `eqprop_jax.config.experiment`.
      workdir: where config.json, metrics.jsonl, tensorboard/, checkpoint/ and
        summary.json go.
      progress: show a progress bar (on process 0).
      save_every: seconds between checkpoints, which are written at the ends of chunks.
      keep: how many checkpoints are left, and the best beside them; positive.
      overwrite: whether a run that has ended begins anew.
      callbacks: called with (step, metrics) after every record.

    Returns:
      The state after the last step.

    Raises:
      TrainingError: if the loss or a gradient turns non-finite. The records up to
        there stay in the workdir, without a checkpoint.
      CheckpointError: if the checkpoint to go on from has another state, or one cannot
        be written.
      HostsError: if several hosts do not share the workdir.
      Interrupted: if a signal asked to leave.
      WorkdirError: if the workdir holds the run of another configuration, or one that
        was begun on other data or under other settings of JAX, or is in use by another
        run, or is moved, deleted or replaced meanwhile.
    """
    (end,) = train_together(
        [experiment],
        [workdir],
        progress=progress,
        save_every=save_every,
        keep=keep,
        overwrite=overwrite,
        callbacks=callbacks,
    )
    if isinstance(end, TrainingError):
        raise end
    return end


def train_together(
    experiments: Sequence[Experiment],
    workdirs: Sequence[str | os.PathLike[str]],
    *,
    how: str | None = None,
    progress: bool = True,
    save_every: float = 60.0,
    keep: int = 2,
    overwrite: bool = False,
    callbacks: Sequence[Callback] = (),
) -> list[TrainState | TrainingError]:
    """Trains runs in one program: the same as each by itself, to within rounding.

    Runs that were interrupted go on together where they have come equally far. The
    seconds that are recorded for a run are its share of those that all took.

    Args:
      experiments: that differ in their seed, in what `optimizers.make` has in its
        state, and in the weight of the penalty alone.
      workdirs: of each of them.
      how: a key of `programs.WAYS`, as in `Runs`.
      progress: as in `train_and_evaluate`.
      save_every: as there.
      keep: as there.
      overwrite: as there.
      callbacks: as there, called for each of the runs.

    Returns:
      For each run the state after its last step, or what broke it off.

    Raises:
      CheckpointError: as in `train_and_evaluate`.
      HostsError: as there.
      Interrupted: as there.
      ValueError: if `save_every` is negative, or no number.
      WorkdirError: as there.
    """
    if not save_every >= 0:
        raise ValueError(f'save_every is {save_every}: seconds, from 0 on')
    with contextlib.ExitStack() as locks:
        for workdir in workdirs:
            lock = functools.partial(locks.enter_context, records.locked(workdir))
            agreement.first_does(lock)
            agreement.share(workdir)
        basis = rests_on(experiments[0])  # and all of them
        agreement.agree_on(basis)
        journals = [
            Journal(
                experiment,
                workdir,
                keep,
                basis,
                overwrite=overwrite,
                callbacks=callbacks,
            )
            for experiment, workdir in zip(experiments, workdirs, strict=True)
        ]
        ends: dict[int, TrainState | TrainingError] = {
            i: journal.ended
            for i, journal in enumerate(journals)
            if journal.ended is not None
        }
        starts = {i: one.start for i, one in enumerate(journals) if i not in ends}
        watch = locks.enter_context(Watch())
        for start in sorted(set(starts.values())):
            which = [i for i in starts if starts[i] == start]
            group = [journals[i] for i in which]
            found = _train(
                group, start, how, watch, progress=progress, save_every=save_every
            )
            ends |= dict(zip(which, found, strict=True))
    return [ends[index] for index in range(len(ends))]


def _train(
    journals: Sequence[Journal],
    start: int,
    how: str | None,
    watch: Watch,
    *,
    progress: bool,
    save_every: float,
) -> list[TrainState | TrainingError]:
    """Trains runs that have come equally far; returns the end of each."""
    experiment = journals[0].experiment
    runs = Runs([journal.experiment for journal in journals], how)
    state = runs.pack([journal.begun for journal in journals])
    for journal in journals:
        journal.begun = None  # the first chunk takes its memory
    bar = tqdm.tqdm(
        total=experiment.num_steps,
        initial=start,
        unit='step',
        miniters=1,
        file=Display(sys.stderr),
        disable=not (progress and hosts.is_first()),
    )
    saved = time.monotonic()
    with contextlib.ExitStack() as stack:
        for context in (bar, *journals):
            stack.enter_context(context)
        for number, chunk in enumerate(chunks(experiment, start)):
            begin = time.perf_counter()
            state, results = runs.train(state, *chunk[:3])
            elapsed = time.perf_counter() - begin
            share = elapsed / len(journals) if number else None  # the first compiles
            before = chunk.epoch * experiment.steps_per_epoch + chunk.first
            step = before + chunk.num_steps
            for journal, result in zip(journals, results, strict=True):
                journal.trained(before, result, share)
            running = [i for i, journal in enumerate(journals) if journal.error is None]
            if not running:
                break
            examples = chunk.num_steps * experiment.batch_size * len(running)
            _show(bar, chunk, [results[i] for i in running], examples / elapsed)
            done = step == experiment.num_steps
            due = done or time.monotonic() - saved >= save_every
            due, signal = hosts.largest(int(due), watch.number or 0)
            save = due or signal
            states = runs.unpack(state) if chunk.evaluate or save else []
            if chunk.evaluate:
                found = runs.evaluate(state)
                wanted = any(journals[i].wants_diagnosis() for i in running)
                extra = runs.diagnose(state) if wanted else [{}] * len(journals)
                for i in running:
                    journals[i].evaluated(step, states[i], found[i], extra[i])
            if save:
                for i in running:
                    journals[i].save(states[i], wait=bool(signal))
                saved = time.monotonic()
            if signal and not done:
                where = ', '.join(str(journal.workdir) for journal in journals)
                raise Interrupted(
                    f'interrupted after step {step} of {experiment.num_steps}; '
                    f'{where} has it, and the same command goes on from there',
                    signal,
                )
        bar.close()
        for journal in journals:
            journal.end()
    ends = zip(journals, runs.unpack(state), strict=True)
    return [journal.error or end for journal, end in ends]


def _show(
    bar: tqdm.tqdm, chunk: Chunk, results: Sequence[programs.Chunk], speed: float
) -> None:
    """Moves the progress bar by a chunk; numbers are means over the runs."""
    error, settled, free, skipped = (
        100 * np.mean([result.metrics[name] for result in results])
        for name in ('error', 'settled', 'converged', 'skipped')
    )
    details = [f'free phase {free:.1f} %'] if free - settled > 0.05 else []
    details += [f'{skipped:.1f} % left out'] if skipped else []
    more = f' ({", ".join(details)})' if details else ''
    bar.set_postfix_str(
        f'error {error:.1f} %, settled {settled:.1f} %{more}, {speed:,.0f} examples/s',
        refresh=False,
    )
    bar.update(chunk.num_steps)
