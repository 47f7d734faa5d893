"""What is wrong with a gradient: expensive measurements beside the training."""

import jax
import jax.numpy as jnp

from eqprop_jax import alignment, dynamics, jacobian, tree
from eqprop_jax.analysis import layers
from eqprop_jax.data import _pipeline as pipeline
from eqprop_jax.data._sources import Split
from eqprop_jax.estimators import _local_rule as local_rule
from eqprop_jax.training.metrics import Values
from eqprop_jax.training.state import REFERENCE_TOL, Experiment
from eqprop_jax.types import Batch, Params


def diagnosis(run: Experiment, params: Params, rng: jax.Array, batch: Batch) -> Values:
    """Returns what is wrong with the gradient of a run, by the names of its records.

    Near the loss of its equilibrium an example's exact δ has no bound, and what an
    unfinished solve leaves of it outweighs all other examples. Those whose reference is
    not solved for are therefore left out of both sides; `reference_converged` is the
    fraction of the others. Of none, errors, cosines and norm ratios are NaN.

    Args:
      run: whose estimator it is.
      params: θ.
      rng: key of the estimate and of random probes.
      batch: inputs and targets.

    Returns:
      Scalars, which `eqprop_jax.records` lists: of δ by layer and of the gradient,
      against exact recurrent backprop; of the Jacobian, and of pairs of weights.
    """
    system, x = run.system, batch.x
    estimate_rng, share_rng, radius_rng = jax.random.split(rng, 3)
    free = dynamics.relax(system, params, x, run.solve)
    reference = run.exact(params, batch, free, rng)
    solved = free.converged & (reference.info.residual[0] <= REFERENCE_TOL)
    compared = batch._replace(rows=jnp.where(solved, batch.numbers, -1))
    estimate = run.estimate(params, compared, free, estimate_rng)
    exact = local_rule.local_gradient(
        system, params, compared, free.rates, reference.error
    )
    lower, exact_lower = map(layers.without_readout, (estimate.grads, exact))
    share = jacobian.symmetric_share(
        system, params, x, free.rates, share_rng, num_probes=run.diagnostics.num_probes
    )
    radius = jacobian.spectral_radius(system, params, x, free, radius_rng)
    metrics = {
        'gradient_cosine': tree.cosine(estimate.grads, exact),
        'gradient_cosine_without_readout': tree.cosine(lower, exact_lower),
        'gradient_norm_ratio': tree.norm(estimate.grads) / tree.norm(exact),
        'reference_converged': reference.info.converged,
        'symmetric_share': share,
        'spectral_radius': jnp.max(radius),
    }
    if estimate.error is not None:
        errors, wanted = (
            tree.select(solved, error, tree.zeros_like(error))
            for error in (estimate.error, reference.error)
        )
        relative = layers.errors(errors, wanted)
        metrics['worst_error'] = layers.largest(relative)
        for name, error in errors.items():
            ratio = tree.norm(error) / tree.norm(wanted[name])
            metrics[f'error/{name}'] = relative[name]
            metrics[f'cosine/{name}'] = tree.cosine(error, wanted[name])
            metrics[f'norm_ratio/{name}'] = ratio
    for name, angle in alignment.angles(system, params).items():
        metrics[f'angle/{name}'] = angle
    if system.pairs:
        metrics['overall_angle'] = alignment.overall_angle(system, params)
    return metrics


def first_examples(experiment: Experiment, count: int) -> Batch:
    """Returns the first training examples of a run, or all where they are fewer."""
    train = experiment.dataset.train
    first = pipeline.to_device(Split(train.images[:count], train.labels[:count]))
    classes = experiment.dataset.num_classes
    return pipeline.batch(first, experiment.preprocess, classes)
