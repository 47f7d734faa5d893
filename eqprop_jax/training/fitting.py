"""A run from Python, without a configuration: of a system, data and an estimator."""

import contextlib
import math
import os
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import optax

from eqprop_jax import estimators, records, solvers
from eqprop_jax.data import _pipeline as pipeline
from eqprop_jax.data._augment import Augment
from eqprop_jax.data._splits import Dataset
from eqprop_jax.homeostasis import Penalty
from eqprop_jax.training import mesh, optimizers
from eqprop_jax.training.callbacks import Callback
from eqprop_jax.training.loop import train_and_evaluate
from eqprop_jax.training.state import (
    REFERENCE_TOL,
    Diagnostics,
    Experiment,
    TrainState,
)
from eqprop_jax.types import Estimator, Params, Solver, System

MADE_BY = 'eqprop_jax.fit'
"""`made_by` in the config.json of such a run, which no configuration describes."""


class Fit(NamedTuple):
    """A run that has ended."""

    state: TrainState
    """After the last step; `state.params` is θ."""
    history: list[dict[str, Any]]
    """The records of the run, in their order, as metrics.jsonl has them."""

    @property
    def params(self) -> Params:
        """θ after the last step."""
        return self.state.params


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
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> Fit:
    """Trains a system on a data set by an estimator, on all devices there are.

    It is the loop of the commands: the order of the examples depends on the seed alone,
    held-out and test examples are evaluated, and the gradient is held against recurrent
    backprop.

    Args:
      system: what moves.
      dataset: from `data.load` or `data.from_arrays`.
      estimate: of this system; what `learn`s.
      solve: relaxes the free phase; None: relaxation to a tolerance of 1e-3.
      optimizer: of optax; None: Adam with a rate of 1e-3, which falls to 0 as a cosine,
        and gradients clipped to a norm of 1.
      num_epochs: positive.
      batch_size: examples of a step, positive.
      normalization: of inputs, as in `data.normalizer`.
      augment: from `data.augmentation`; None: nothing.
      penalty: from `homeostasis.penalty`; None: none.
      penalty_weight: of that.
      kolen_pollack: whether paired weights share their gradients.
      seed: of the initial parameters, the order of examples and all that is drawn.
      log_every_steps: steps that one record of training is the mean of.
      eval_every_steps: steps between evaluations; 0: at the end of every epoch.
      diagnose: whether 100 examples are held against recurrent backprop then, too.
      workdir: where records and checkpoints stay, and where a run that was interrupted
        goes on: by the same arguments, which is for the caller to see to. None: nothing
        stays.
      callbacks: called with (step, metrics) at every record.
      progress: show a progress bar.

    Returns:
      The state after the last step, and the history.

    Raises:
      ValueError: if the system does not fit the data, or a number is out of range.
      TrainingError: if the loss or a gradient turns non-finite.
      WorkdirError: as `train_and_evaluate`.
    """
    numbers = {
        'num_epochs': num_epochs,
        'batch_size': batch_size,
        'log_every_steps': log_every_steps,
    }
    for name, value in numbers.items():
        if not (int(value) == value and value >= 1):
            raise ValueError(f'{name} has to be a positive integer, not {value}')
    if batch_size > len(dataset.train.labels):
        raise ValueError(
            f'batch_size={batch_size} is more than the {len(dataset.train.labels)} '
            f'training examples of {dataset.name!r}'
        )
    preprocess = pipeline.normalizer(dataset, normalization)
    shapes = _shapes(system, dataset, preprocess)
    num_steps = len(dataset.train.labels) // batch_size * num_epochs
    if optimizer is None:
        optimizer = optimizers.make(
            'adam',
            learning_rate=1e-3,
            schedule='cosine',
            clip_norm=1.0,
            num_steps=num_steps,
        )
    own = {'seed': seed, 'eval_every_steps': eval_every_steps, **numbers}
    experiment = Experiment(
        system=system,
        solve=solvers.relaxation(tol=1e-3, max_steps=100) if solve is None else solve,
        estimate=estimate,
        learn=estimate,
        exact=estimators.recurrent_backprop(system, tol=REFERENCE_TOL, method='aitken'),
        optimizer=optimizer,
        dataset=dataset,
        preprocess=preprocess,
        augment=augment,
        penalty=penalty,
        penalty_weight=penalty_weight,
        penalty_fraction=1.0,
        kolen_pollack=kolen_pollack,
        skip_unconverged=False,
        mesh=mesh.make(),
        accumulation_steps=1,
        diagnostics=Diagnostics(int(diagnose), 100, 32),
        config={
            'made_by': MADE_BY,
            'params': shapes,
            'normalization': normalization,
            'kolen_pollack': kolen_pollack,
            **own,
        },
        defaults={},
        **own,
    )
    with contextlib.ExitStack() as stack:
        save_every = 60.0
        if workdir is None:
            workdir = stack.enter_context(tempfile.TemporaryDirectory())
            save_every = math.inf
        state = train_and_evaluate(
            experiment,
            workdir,
            progress=progress,
            save_every=save_every,
            callbacks=callbacks,
        )
        return Fit(state, records.read(workdir))


def _shapes(
    system: System, dataset: Dataset, preprocess: pipeline.Preprocess
) -> dict[str, str]:
    """Returns the shapes of the parameters by name; refuses what does not fit."""
    images = dataset.train.images
    raw = jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)

    def scores(raw: jax.Array) -> tuple[Params, jax.Array]:
        x = preprocess(raw)
        params = system.init(jax.random.key(0), x)
        state = system.rest(system.inject(params, x))
        return params, system.predict(params, system.rates(state))

    params, found = jax.eval_shape(scores, raw)
    if found.shape[-1] != dataset.num_outputs:
        raise ValueError(
            f'the system has {found.shape[-1]} scores, but {dataset.name!r} has '
            f'{dataset.num_outputs} '
            f'{"numbers a target" if dataset.num_classes is None else "classes"}'
        )
    named, _ = jax.tree.flatten_with_path(params)
    return {jax.tree_util.keystr(path): str(leaf.shape) for path, leaf in named}
