"""What a training step reads and writes, and what a run consists of."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from eqprop_jax.data.augment import Augment
from eqprop_jax.data.pipeline import Preprocess
from eqprop_jax.data.sources import Dataset
from eqprop_jax.homeostasis import Penalty
from eqprop_jax.training import mesh
from eqprop_jax.training.optimizers import Family
from eqprop_jax.types import Estimator, Params, Solver, System

# Positions are keys: append to it, and stored runs stay what they are.
STREAMS = ('init', 'order', 'estimate', 'diagnose', 'augment')

REFERENCE_TOL = 1e-5
"""Relative residual to which `Experiment.exact` is solved for."""


class TrainState(struct.PyTreeNode):
    """Everything that a step changes."""

    step: Any
    """Steps taken, int32 []."""
    params: Params
    """θ."""
    opt_state: optax.OptState
    """The optimizer's memory."""


class Diagnostics(NamedTuple):
    """Expensive measurements on a schedule."""

    every_evals: int
    """Run at every so many-th evaluation; 0: never."""
    num_examples: int
    """Training examples to measure on."""
    num_probes: int
    """Random probes of the symmetric share."""


class Scalars(NamedTuple):
    """Numbers in which runs of one program may differ; one of each, or [R] of each."""

    seed: Any
    learning_rate: Any
    """η of the optimizer, where a layer has none of its own."""
    weight_decay: Any
    """λ of the optimizer, likewise; not 0 for some of the runs only."""
    penalty_weight: Any
    """λ of the homeostatic term, likewise."""


class Experiment(NamedTuple):
    """A run, built: `eqprop_jax.build` makes one from a configuration."""

    system: System
    solve: Solver
    """Relaxes the free phase."""
    estimate: Estimator
    """Of the gradient, without the readout's dropout: what is diagnosed."""
    learn: Estimator
    """The same with it, and its nudges divided among devices: what is trained by."""
    exact: Estimator
    """Recurrent backprop to REFERENCE_TOL, which the estimate is held against."""
    optimizer: optax.GradientTransformation
    dataset: Dataset
    preprocess: Preprocess
    augment: Augment | None
    """What training images go through at each step, or None."""
    penalty: Penalty | None
    """Homeostasis, or None."""
    penalty_weight: float
    """λ of the homeostatic term."""
    penalty_fraction: float
    """Fraction of the steps that it is applied on."""
    kolen_pollack: bool
    """Whether paired weights share their gradients of the cost."""
    mesh: Mesh
    """The devices, from `training.mesh.make`."""
    seed: int
    batch_size: int
    accumulation_steps: int
    """Parts of a batch that go one after the other, so that one at a time fits."""
    num_epochs: int
    log_every_steps: int
    eval_every_steps: int
    """0: at the end of every epoch."""
    diagnostics: Diagnostics
    config: Mapping[str, Any]
    """Plain values, for the record."""
    optimizers: Family
    """(η, λ) ↦ the optimizer, for runs that are trained together."""

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch; what is left over waits for the next order."""
        return len(self.dataset.train.labels) // self.batch_size

    @property
    def scalars(self) -> Scalars:
        """What runs that are trained together may differ in."""
        optimizer = self.config['optimizer']
        return Scalars(
            seed=self.seed,
            learning_rate=float(optimizer['learning_rate']),
            weight_decay=float(optimizer.get('weight_decay', 0.0)),
            penalty_weight=float(self.penalty_weight),
        )

    def having(self, scalars: Scalars) -> 'Experiment':
        """Returns the run with other scalars, which may be traced."""
        decay = scalars.weight_decay if self.scalars.weight_decay else 0.0
        return self._replace(
            seed=scalars.seed,
            penalty_weight=scalars.penalty_weight,
            optimizer=self.optimizers(scalars.learning_rate, decay),
        )

    @property
    def num_steps(self) -> int:
        """Steps of the whole run."""
        return self.steps_per_epoch * self.num_epochs


def stream(seed: int | jax.Array, name: str) -> jax.Array:
    """Returns the random key of one purpose, independent of the others'.

    Args:
      seed: of the run.
      name: one of `STREAMS`.
    """
    return jax.random.fold_in(jax.random.key(seed), STREAMS.index(name))


def init_state(experiment: Experiment) -> TrainState:
    """Returns the state before the first step, a function of the seed alone.

    It is the same on all devices of the run, and there: what does not fit is an error
    here, not a wait for what never comes.
    """
    shape = (experiment.batch_size, *experiment.dataset.train.images.shape[1:])
    example = jax.eval_shape(
        experiment.preprocess, jax.ShapeDtypeStruct(shape, jnp.uint8)
    )

    def make(key: jax.Array) -> TrainState:
        x = jnp.zeros(example.shape, example.dtype)
        params = experiment.system.init(key, x)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            opt_state=experiment.optimizer.init(params),
        )

    run = jax.jit(make, out_shardings=mesh.everywhere(experiment.mesh))
    return jax.block_until_ready(run(stream(experiment.seed, 'init')))
