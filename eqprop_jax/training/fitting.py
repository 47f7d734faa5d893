"""A run from Python, without a configuration: of a system, data and an estimator."""

import functools
import hashlib
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from eqprop_jax import _parts as parts
from eqprop_jax import estimators, records, solvers
from eqprop_jax.data import _pipeline as pipeline
from eqprop_jax.data import _splits as splits
from eqprop_jax.data._augment import Augment
from eqprop_jax.data._splits import Dataset
from eqprop_jax.estimators._marked import check as check_system
from eqprop_jax.homeostasis import Penalty
from eqprop_jax.training import mesh, optimizers, programs
from eqprop_jax.training.callbacks import Callback
from eqprop_jax.training.fitted import Fit
from eqprop_jax.training.interrupts import Interrupted
from eqprop_jax.training.journal import TrainingError
from eqprop_jax.training.loop import train_and_evaluate
from eqprop_jax.training.state import (
    REFERENCE_TOL,
    Diagnostics,
    Experiment,
    TrainState,
    init_state,
    shapes_of,
)
from eqprop_jax.types import Estimator, Solver, System

MADE_BY = 'eqprop_jax.fit'
"""`made_by` in the config.json of such a run, which no configuration describes."""
NOTHING = 'without a workdir nothing of a run is kept'
NUMBERS = ('seed', 'num_epochs', 'batch_size', 'log_every_steps', 'eval_every_steps')
FIXED: dict[str, Any] = {
    'penalty_fraction': 1.0,
    'skip_unconverged': False,
    'accumulation_steps': 1,
    'defaults': {},
}


def fit(
    system: System,
    dataset: Dataset,
    estimate: Estimator,
    *,
    solve: Solver | None = None,
    optimizer: optax.GradientTransformation | None = None,
    num_epochs: int = 10,
    batch_size: int = 50,
    normalization: str = 'standard',
    augment: Augment | None = None,
    penalty: Penalty | None = None,
    penalty_weight: float = 1.0,
    kolen_pollack: bool = False,
    seed: int = 0,
    log_every_steps: int = 50,
    eval_every_steps: int = 0,
    diagnose: bool = True,
    workdir: str | os.PathLike[str] | None = None,
    callbacks: Callback | Sequence[Callback] = (),
    progress: bool = True,
) -> Fit:
    """Trains a system by an estimator with the loop of the commands, on all devices.

    Args:
      system: what moves.
      dataset: from `data.load` or `data.from_arrays`.
      estimate: of its gradient, built of this very system.
      solve: relaxes the free phase; None: relaxation to a tolerance of 1e-3.
      optimizer: of optax; None: Adam with a rate of 1e-3, which falls to 0 as a cosine,
        and gradients clipped to a norm of 1.
      num_epochs: positive.
      batch_size: examples of a step, positive.
      normalization: of inputs, as in `data.normalizer`.
      augment: from `data.augmentation`; None: nothing.
      penalty: from `homeostasis.penalty`; None: none.
      penalty_weight: λ of that.
      kolen_pollack: whether paired weights share their gradients.
      seed: of the initial parameters, the order of examples and all that is drawn.
      log_every_steps: steps that one record of training is the mean of.
      eval_every_steps: steps between evaluations; 0: at the end of every epoch.
      diagnose: whether δ of 100 examples is held against recurrent backprop then.
      workdir: where records and checkpoints stay, an interrupted run goes on, and what
        one that has ended came to is read. None: nothing stays.
      callbacks: one or several, called with (step, metrics) at every record.
      progress: show a bar.

    Raises:
      TypeError: for a part that is none.
      ValueError: if system and data do not fit, the estimator is of another system, or
        a number is out of range.
      TrainingError: if the loss or a gradient turns non-finite.
      WorkdirError: as `train_and_evaluate`; also if a workdir has the run of other
        data, or of another program: that of other parts, or on other devices.
    """
    numbers = seed, num_epochs, batch_size, log_every_steps, eval_every_steps
    own = _checked(dataset, dict(zip(NUMBERS, numbers, strict=True)))
    solve = solvers.relaxation(tol=1e-3, max_steps=100) if solve is None else solve
    check_system(system, solve, estimate)
    _check_parts(optimizer, penalty, penalty_weight)
    experiment = Experiment(
        system=system,
        solve=solve,
        estimate=estimate,
        learn=estimate,
        exact=estimators.recurrent_backprop(system, tol=REFERENCE_TOL, method='aitken'),
        optimizer=_adam(dataset, own) if optimizer is None else optimizer,
        dataset=dataset,
        preprocess=pipeline.normalizer(dataset, normalization),
        augment=augment,
        penalty=penalty,
        penalty_weight=penalty_weight,
        kolen_pollack=kolen_pollack,
        mesh=mesh.make(),
        diagnostics=Diagnostics(int(diagnose), 100, 32),
        config={'made_by': MADE_BY, 'normalization': normalization, **own},
        **FIXED,
        **own,
    )
    return _trained(experiment, workdir, callbacks, progress=progress)


def _check_parts(optimizer: Any, penalty: Penalty | None, weight: float) -> None:
    """Raises TypeError for no optimizer, and ValueError for a weight without use."""
    if optimizer is not None:
        parts.check(optimizer=optimizer)
    if (penalty is None and weight != 1) or not math.isfinite(weight):
        raise ValueError(
            f'penalty_weight has to be finite, and 1 without a penalty, not {weight}'
        )


def _trained(
    run: Experiment,
    workdir: str | os.PathLike[str] | None,
    callbacks: Callback | Sequence[Callback],
    *,
    progress: bool,
) -> Fit:
    """Returns what a run came to, in its folder or in one that is removed again."""
    shapes_of(run.system, run.dataset)
    every = [callbacks] if callable(callbacks) else list(callbacks)
    train = functools.partial(train_and_evaluate, progress=progress, callbacks=every)
    if workdir is not None:
        made = {'data': splits.digest(run.dataset), 'program': _program(run)}
        run = run._replace(config={**run.config, **made})
        return Fit(train(run, workdir), records.read(workdir), run)
    with tempfile.TemporaryDirectory() as folder:
        try:
            state = train(run, folder, save_every=math.inf)
        except Interrupted as error:
            raise Interrupted(f'interrupted: {NOTHING}', error.number) from None
        except TrainingError as error:
            there = f'the records up to it are in {folder}'
            raise TrainingError(str(error).replace(there, NOTHING)) from None
        return Fit(state, records.read(folder), run)


def _program(run: Experiment) -> str:
    """Returns 16 digits of the SHA-256 of where it starts, and of its steps."""
    state = init_state(run)
    train = mesh.place(run.dataset.train, run.mesh)
    numbers = (jax.ShapeDtypeStruct((), jnp.int32),) * 3
    chunk: Any = programs.make_train_chunk(run)
    text = chunk.lower(state, train, *numbers).as_text()
    text += _start(state)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _start(state: TrainState) -> str:
    """Returns length and direction of all arrays, to digits that machines share."""
    found = []
    for leaf in jax.tree.leaves(state):
        values = np.asarray(leaf, np.float64).ravel()
        length = np.linalg.norm(values)
        along = values @ np.cos(np.arange(values.size)) / max(length, 1e-300)
        found.append(f'{length:.3e} {along:.3f}')
    return ', '.join(found)


def _adam(dataset: Dataset, own: Mapping[str, int]) -> optax.GradientTransformation:
    """Returns the optimizer of a run that names none."""
    steps_per_epoch = len(dataset.train.labels) // own['batch_size']
    return optimizers.make(
        'adam',
        learning_rate=1e-3,
        schedule='cosine',
        clip_norm=1.0,
        num_steps=steps_per_epoch * own['num_epochs'],
    )


def _checked(dataset: Dataset, own: Mapping[str, int]) -> dict[str, int]:
    """Returns numbers as integers.

    Raises ValueError for one out of range, and TypeError for no data set.
    """
    if not isinstance(dataset, Dataset):
        raise TypeError('the data set is one of data.load or data.from_arrays')
    for name, value in own.items():
        least = 0 if name in ('seed', 'eval_every_steps') else 1
        if not (int(value) == value and least <= value < 2**31):
            kind = 'positive' if least else 'not negative'
            raise ValueError(
                f'{name} has to be an integer, {kind} and below 2^31, not {value}'
            )
    size, examples = own['batch_size'], len(dataset.train.labels)
    if size > examples:
        raise ValueError(
            f'batch_size={size} is more than the {examples} training examples of '
            f'{dataset.name!r}'
        )
    return {name: int(value) for name, value in own.items()}
