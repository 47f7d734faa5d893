"""What a training step reads and writes, and what a run consists of."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from eqprop_jax.data import _splits as splits
from eqprop_jax.data._augment import Augment
from eqprop_jax.data._pipeline import Preprocess
from eqprop_jax.data._splits import Dataset
from eqprop_jax.homeostasis import Penalty
from eqprop_jax.training import mesh
from eqprop_jax.types import Estimator, Params, Solver, System

# Positions are keys: append to it, and stored runs stay what they are.
STREAMS = ('init', 'order', 'estimate', 'diagnose', 'augment')

# Of JAX, which its environment sets: what is random, and in what precision.
SETTINGS = (
    *('jax_threefry_partitionable', 'jax_random_seed_offset'),
    *('jax_enable_x64', 'jax_default_matmul_precision'),
)
DATA, PLUGINS = 'data_sha256', 'plugins_sha256'
KIND = 'threefry2x32'  # of all keys

REFERENCE_TOL = 1e-5
"""Relative residual to which `Experiment.exact` is solved for."""


class TrainState(struct.PyTreeNode):
    """Everything that a step changes."""

    step: Any
    """Steps taken, int32 []."""
    seed: Any
    """Of all that is random in the run, int32 []."""
    penalty_weight: Any
    """λ of the homeostatic term, []."""
    params: Params
    """θ."""
    opt_state: optax.OptState
    """The optimizer's memory, its learning rate and weight decay among it."""


class Diagnostics(NamedTuple):
    """Expensive measurements on a schedule."""

    every_evals: int
    """Run at every so many-th evaluation; 0: never."""
    num_examples: int
    """Training examples to measure on."""
    num_probes: int
    """Random probes of the symmetric share."""


class Experiment(NamedTuple):
    """A run, built: `eqprop_jax.config` makes one from a configuration."""

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
    """λ of the homeostatic term at the start."""
    penalty_fraction: float
    """Fraction of the steps that it is applied on."""
    kolen_pollack: bool
    """Whether paired weights share their gradients of the cost."""
    skip_unconverged: bool
    """Whether examples that do not settle are to be left out, all of a batch even."""
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
    """The plain values that it was built from, to write down: training reads none."""
    defaults: Mapping[str, Any]
    """What the keys stand for that it may leave out, by dotted name."""
    sources: str | None = None
    """Digest of the files that parts of one's own are registered in."""

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch; what is left over waits for the next order."""
        return len(self.dataset.train.labels) // self.batch_size

    @property
    def num_steps(self) -> int:
        """Steps of the whole run."""
        return self.steps_per_epoch * self.num_epochs


def rests_on(experiment: Experiment) -> dict[str, Any]:
    """Returns what the numbers of a run depend on beside its configuration, by name."""
    settings = {name: getattr(jax.config, name) for name in SETTINGS}
    own = {PLUGINS: experiment.sources} if experiment.sources else {}
    return {DATA: splits.digest(experiment.dataset), **settings, **own}


def stream(seed: int | jax.Array, name: str) -> jax.Array:
    """Returns the random key of one purpose, independent of the others'.

    Its kind is fixed: what 'rbg' draws depends on the number of devices.

    Args:
      seed: of the run.
      name: one of `STREAMS`.
    """
    return jax.random.fold_in(jax.random.key(seed, impl=KIND), STREAMS.index(name))


def shapes_of(system: System, dataset: Dataset) -> Params:
    """Returns θ of a system for a data set, as shapes and types.

    Raises:
      ValueError: if it scores other than what the targets of the data are.
    """

    def scores(x: jax.Array) -> tuple[Params, jax.Array]:
        params = system.init(jax.random.key(0), x)
        state = system.rest(system.inject(params, x))
        return params, system.predict(params, system.rates(state))

    x = jax.ShapeDtypeStruct((1, *dataset.train.images.shape[1:]), jnp.float32)
    params, found = jax.eval_shape(scores, x)
    continuous = dataset.num_classes is None
    if continuous and 'readout' in params:
        raise ValueError(
            f'the targets of {dataset.name!r} are no classes, of which '
            'cost="cross_entropy" is: take "squared_error", or integers as targets'
        )
    if found.shape[-1] != dataset.num_outputs:
        raise ValueError(
            f'it scores {found.shape[-1]} {"numbers" if continuous else "classes"} but '
            f'{dataset.name!r} has {dataset.num_outputs}: set '
            f'{"" if continuous else "classes, or "}the last of sizes'
        )
    return params


def init_state(experiment: Experiment) -> TrainState:
    """Returns the state before the first step, a function of the seed alone.

    It is the same on all devices of the run, and there: what does not fit is an error
    here, not a wait for what never comes.
    """
    images = experiment.dataset.train.images
    shape = (experiment.batch_size, *images.shape[1:])
    example = jax.eval_shape(
        experiment.preprocess, jax.ShapeDtypeStruct(shape, images.dtype)
    )

    def make(seed: jax.Array) -> TrainState:
        x = jnp.zeros(example.shape, example.dtype)
        params = experiment.system.init(stream(seed, 'init'), x)
        like = jnp.result_type(*jax.tree.leaves(params))
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            seed=seed,
            penalty_weight=jnp.asarray(experiment.penalty_weight, like),
            params=params,
            opt_state=experiment.optimizer.init(params),
        )

    run = jax.jit(make, out_shardings=mesh.everywhere(experiment.mesh))
    return jax.block_until_ready(run(jnp.int32(experiment.seed)))
