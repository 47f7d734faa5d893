"""How a network does on every example of a split, and a summary of that.

`evaluate` relaxes each example once and keeps its numbers apart; `summarize` takes
their means and percentiles. A run's network can be settled more tightly, or by another
solver, than it was trained with.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from eqprop_jax import dynamics
from eqprop_jax.data import _pipeline as pipeline
from eqprop_jax.data._splits import Split
from eqprop_jax.training import metrics
from eqprop_jax.training.state import Experiment
from eqprop_jax.types import Params, Solver

TOP = 5  # guesses of the top-5 error


class Examples(NamedTuple):
    """The numbers of each example, in the order of the split."""

    label: Shaped[np.ndarray, 'n ...']
    """Its class, or continuous target."""
    loss: Float[np.ndarray, ' n']
    """C at the free equilibrium."""
    error: Float[np.ndarray, ' n']
    """As in `metrics.of_equilibrium`."""
    rank: Int[np.ndarray, ' n']
    """Classes scored before the true one; 0: recognized, or there are no classes."""
    residual: Float[np.ndarray, ' n']
    """As in `Equilibrium`."""
    num_steps: Int[np.ndarray, ' n']
    """Sweeps used."""
    converged: Bool[np.ndarray, ' n']
    """residual <= tol."""


class Summary(NamedTuple):
    """Plain numbers; those that the records of a run have, too, by the same names.

    The p-th percentile is the smallest value that p % of the examples do not exceed;
    NaN counts as the largest.
    """

    num_examples: int
    """n."""
    error: float
    """Mean: the fraction that is not recognized; 1 − R² of continuous targets."""
    standard_error: float
    """Of that mean, over the examples."""
    top_5_error: float | None
    """Fraction whose class is not among the five first; None: there are no more."""
    loss: float
    """Mean."""
    median_residual: float
    residual_99: float
    """99th percentile."""
    max_residual: float
    free_steps: float
    """Mean number of sweeps."""
    free_steps_99: int
    """99th percentile."""
    max_free_steps: int
    converged: float
    """Fraction of the examples that settled to the solver's tol."""
    class_errors: tuple[float | None, ...]
    """The error by class; None for a class without examples; () without classes."""


def evaluate(
    experiment: Experiment,
    params: Params,
    split: Split,
    solve: Solver | None = None,
    *,
    batch_size: int = 500,
) -> Examples:
    """Relaxes every example of a split, each counted once.

    The last batch is filled up and the filling dropped, so that one program does for
    all of them. Images go to the device batch by batch.

    Args:
      experiment: a run, built.
      params: θ.
      split: examples of its data set; at least one.
      solve: relaxes the free phase; None: the run's own solver.
      batch_size: examples relaxed at a time; positive. Results do not depend on it.

    Raises:
      ValueError: if the split is empty, or the batch size is not positive.
    """
    size = len(split.labels)
    if not size:
        raise ValueError('a split without examples cannot be evaluated')
    if batch_size < 1:
        raise ValueError(f'batch_size has to be a positive integer, not {batch_size}')
    system, dataset = experiment.system, experiment.dataset
    relax_by = experiment.solve if solve is None else solve

    @jax.jit
    def numbers(params: Params, images: Array, labels: Array) -> tuple[Array, ...]:
        raw = pipeline.DeviceSplit(images, labels)
        batch = pipeline.batch(raw, experiment.preprocess, dataset.num_classes)
        free = dynamics.relax(system, params, batch.x, relax_by)
        loss = system.cost(params, free.rates, batch.y)
        scores = system.predict(params, free.rates)
        error = metrics.errors(scores, batch.y, dataset.variance)
        rank = jnp.zeros_like(free.num_steps)
        if dataset.num_classes is not None:
            rank = metrics.ranks(scores, labels)
        phase = (free.residual, free.num_steps, free.converged)
        return labels, loss, error, rank, *phase

    rows = min(batch_size, size)
    batches = []
    for start in range(0, size, rows):
        positions = np.minimum(start + np.arange(rows), size - 1)
        found = numbers(params, split.images[positions], split.labels[positions])
        batches.append(jax.device_get(found))
    columns = zip(*batches, strict=True)
    return Examples(*(np.concatenate(column)[:size] for column in columns))


def summarize(examples: Examples, num_classes: int | None) -> Summary:
    """Returns the summary of the examples of a split; None: there are no classes."""
    error, size = examples.error, len(examples.error)
    beyond, classes = float(np.mean(examples.rank >= TOP)), num_classes or 0
    by_class = (error[examples.label == label] for label in range(classes))
    return Summary(
        num_examples=size,
        error=float(np.mean(error)),
        standard_error=float(np.std(error)) / math.sqrt(size),
        top_5_error=beyond if classes > TOP else None,
        loss=float(np.mean(examples.loss)),
        median_residual=_percentile(examples.residual, 50),
        residual_99=_percentile(examples.residual, 99),
        max_residual=_percentile(examples.residual, 100),
        free_steps=float(np.mean(examples.num_steps)),
        free_steps_99=_percentile(examples.num_steps, 99),
        max_free_steps=_percentile(examples.num_steps, 100),
        converged=float(np.mean(examples.converged)),
        class_errors=tuple(
            float(np.mean(those)) if those.size else None for those in by_class
        ),
    )


def _percentile(values: np.ndarray, percent: int) -> Any:
    """Returns the smallest value that these percent do not exceed, as Python has it."""
    return np.sort(values)[-(-percent * len(values) // 100) - 1].item()
