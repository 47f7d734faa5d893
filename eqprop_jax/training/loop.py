"""The main loop: chunks of steps, evaluations on a schedule, records, progress."""

import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from absl import logging

from eqprop_jax import checkpoint, records
from eqprop_jax.training import hosts, mesh
from eqprop_jax.training import step as steps
from eqprop_jax.training.diagnose import first_examples, make_diagnose
from eqprop_jax.training.interrupts import Interrupted, Watch
from eqprop_jax.training.state import Experiment, TrainState, init_state, stream


class TrainingError(RuntimeError):
    """Training cannot go on; the message names step and quantity."""


class Chunk(NamedTuple):
    """A run of steps within one epoch, and what follows it."""

    epoch: int
    first: int
    num_steps: int
    evaluate: bool


def train_and_evaluate(
    experiment: Experiment,
    workdir: str | os.PathLike[str],
    *,
    progress: bool = True,
    save_every: float = 60.0,
    keep: int = 2,
) -> TrainState:
    """Trains, evaluates on held-out and test examples, writes records and checkpoint.

    The best evaluation is the one with the smallest error on the held-out examples
    (the loss decides between equals); the test error reported as `best` is the one
    measured at that point. Without held-out examples there is no best.

    A run that did not end goes on from its last checkpoint, to the same numbers to the
    bit; on other devices to within rounding. SIGINT and SIGTERM are obeyed at the end
    of a chunk, once the state is saved: of several hosts by all at the same step, if
    one of them gets the signal.

    Args:
      experiment: from `eqprop_jax.build.experiment`.
      workdir: where config.json, metrics.jsonl, tensorboard/, checkpoint/ and
        summary.json go.
      progress: show a progress bar (on process 0).
      save_every: seconds between checkpoints, which are written at the ends of chunks.
      keep: how many checkpoints are left, and the best beside them; positive.

    Returns:
      The state after the last step.

    Raises:
      TrainingError: if the loss or a gradient turns non-finite. The records up to
        there stay in the workdir, without a checkpoint.
      CheckpointError: if the checkpoint to go on from has another state, or one cannot
        be written.
      Interrupted: if a signal asked to leave.
      WorkdirError: if the workdir holds the run of another configuration.
    """
    on_main = hosts.is_first()
    records.claim(workdir, experiment.config, write=on_main)
    dataset = experiment.dataset
    train, held_out, test = (
        mesh.place(split, experiment.mesh) if len(split.labels) else None
        for split in (dataset.train, dataset.held_out, dataset.test)
    )
    probe = first_examples(experiment, experiment.diagnostics.num_examples)
    run_chunk = steps.make_train_chunk(experiment)
    evaluate = steps.make_evaluate(experiment)
    diagnose = make_diagnose(experiment)
    state, notes = _begin(experiment, workdir)
    names = steps.quantities(state.params)
    start = int(state.step)

    def assess(
        state: TrainState, step: int, epoch: float, writer: records.Writer
    ) -> dict[str, Any]:
        """Evaluates, records it, and returns what the summary needs."""
        every = experiment.diagnostics.every_evals
        extra = {}
        if every and len(notes['evaluations']) % every == 0:
            rng = jax.random.fold_in(stream(experiment.seed, 'diagnose'), step)
            extra = _floats(diagnose(state.params, probe, rng))
        row: dict[str, Any] = {'step': step, 'epoch': epoch}
        for split, examples in (('eval', held_out), ('test', test)):
            if examples is not None:
                row[split] = _floats(evaluate(state.params, examples))
                writer.write(step, epoch, split, row[split] | extra)
                extra = {}
        return row

    bar = tqdm.tqdm(
        total=experiment.num_steps,
        initial=start,
        unit='step',
        miniters=1,
        disable=not (progress and on_main),
    )
    saved = time.monotonic()
    with (
        bar,
        records.Writer(workdir, start, idle=not on_main) as writer,
        checkpoint.Saver(workdir, keep=keep) as saver,
        Watch() as watch,
    ):
        for number, chunk in enumerate(schedule(experiment, start)):
            begin = time.perf_counter()
            position = (jnp.int32(n) for n in chunk[:3])
            state, result = run_chunk(state, train, *position)
            finite = np.asarray(result.finite)
            elapsed = time.perf_counter() - begin
            step = int(state.step)
            epoch = step / experiment.steps_per_epoch
            taken = int(result.num_steps)
            compiled = number > 0  # the first chunk compiles
            speed = taken * experiment.batch_size / elapsed
            if taken:
                metrics = _floats(result.metrics)
                if compiled:
                    metrics['examples_per_second'] = speed
                writer.write(step, epoch, 'train', metrics)
            if not finite.all():
                message = _diagnosis(experiment, names, finite, step, workdir)
                saver.wait()
                _remove_checkpoints(workdir)
                raise TrainingError(message)
            if compiled:
                notes['train_seconds'] += elapsed
                notes['timed_steps'] += taken
            bar.set_postfix_str(
                f'error {100 * metrics["error"]:.1f} %, '
                f'residual {metrics["residual"]:.1e}, {speed:,.0f} examples/s',
                refresh=False,
            )
            bar.update(taken)
            if chunk.evaluate:
                notes['evaluations'].append(assess(state, step, epoch, writer))
                if _best(notes['evaluations']) is notes['evaluations'][-1]:
                    saver.save(state, best=True)
            due = time.monotonic() - saved >= save_every or step == experiment.num_steps
            due, signal = hosts.largest(int(due), watch.number or 0)
            if due or signal:
                writer.flush()
                saver.save(state, notes)
                saved = time.monotonic()
            if signal and step < experiment.num_steps:
                saver.wait()
                raise Interrupted(
                    f'interrupted after step {step} of {experiment.num_steps}; '
                    f'{workdir} has it, and the same command goes on from there',
                    signal,
                )
    if on_main:
        records.write_summary(workdir, _summary(experiment, notes))
    _warn_unsettled(notes['evaluations'][-1]['test']['converged'])
    return state


def _begin(
    experiment: Experiment, workdir: str | os.PathLike[str]
) -> tuple[TrainState, dict[str, Any]]:
    """Returns the state to start from, and what was noted of the run up to there.

    The first host looks which checkpoint that is; 0: from the start.
    """
    state = init_state(experiment)
    found = 0
    if hosts.is_first() and records.is_unfinished(workdir):
        found = checkpoint.newest(workdir, logging.warning) or 0
    (number,) = hosts.largest(found)
    if number:
        state, notes = checkpoint.read(workdir, number, state)
        if notes:
            return state, notes
    _remove_checkpoints(workdir)  # they belong to records that the writer removes
    return state, {'evaluations': [], 'train_seconds': 0.0, 'timed_steps': 0}


def _remove_checkpoints(workdir: str | os.PathLike[str]) -> None:
    """Removes what is there, on the first host, while the others wait."""
    if hosts.is_first():
        checkpoint.remove(workdir)
    hosts.largest(0)


def schedule(experiment: Experiment, start: int = 0) -> Iterator[Chunk]:
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
    }


def _best(evaluations: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Returns the first one of the least held-out error, None without held-out ones."""
    return min(
        (row for row in evaluations if 'eval' in row),
        key=lambda row: (row['eval']['error'], row['eval']['loss']),
        default=None,
    )


def _floats(metrics: steps.Metrics) -> dict[str, float]:
    return {name: float(value) for name, value in jax.device_get(metrics).items()}


def _warn_unsettled(converged: float, threshold: float = 0.9) -> None:
    """Logs a warning if too few of the test examples were at equilibrium at the end."""
    if not converged >= threshold:
        logging.warning(
            'only %.0f %% of the test examples settled within solver.max_steps to '
            'solver.tol at the end: gradients were taken away from equilibrium',
            100 * converged,
        )
