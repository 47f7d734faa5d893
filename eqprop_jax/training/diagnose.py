"""What is wrong with a gradient: expensive measurements beside the training."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from eqprop_jax import alignment, dynamics, jacobian, tree
from eqprop_jax.data import pipeline
from eqprop_jax.data.pipeline import DeviceSplit
from eqprop_jax.training.state import Experiment
from eqprop_jax.training.step import Metrics
from eqprop_jax.types import Batch, Params


def make_diagnose(
    experiment: Experiment,
) -> Callable[[Params, DeviceSplit, jax.Array], Metrics]:
    """Returns the jitted (params, split, rng) -> what is wrong with the gradient.

    On the first examples of the split: per layer cosine and norm ratio of δ against
    exact recurrent backprop, the same of the whole gradient, symmetric share of the
    Jacobian, angle of every pair of weights, and the largest spectral radius.
    """
    system, options = experiment.system, experiment.diagnostics

    def diagnose(params: Params, split: DeviceSplit, rng: jax.Array) -> Metrics:
        batch = _first(experiment, split, options.num_examples)
        estimate_rng, share_rng, radius_rng = jax.random.split(rng, 3)
        free = dynamics.relax(system, params, batch.x, experiment.solve)
        estimate = experiment.estimate(params, batch, free, estimate_rng)
        reference = experiment.exact(params, batch, free, rng)
        metrics = {
            'gradient_cosine': tree.cosine(estimate.grads, reference.grads),
            'gradient_norm_ratio': tree.norm(estimate.grads)
            / tree.norm(reference.grads),
            'reference_converged': reference.info.converged,
            'symmetric_share': jacobian.symmetric_share(
                system,
                params,
                batch.x,
                free.rates,
                share_rng,
                num_probes=options.num_probes,
            ),
            'spectral_radius': jnp.max(
                jacobian.spectral_radius(system, params, batch.x, free, radius_rng)
            ),
        }
        if estimate.error is not None and reference.error is not None:
            for name, error in estimate.error.items():
                wanted = reference.error[name]
                metrics[f'cosine/{name}'] = tree.cosine(error, wanted)
                metrics[f'norm_ratio/{name}'] = tree.norm(error) / tree.norm(wanted)
        for name, angle in alignment.angles(system, params).items():
            metrics[f'angle/{name}'] = angle
        if system.pairs:
            metrics['overall_angle'] = alignment.overall_angle(system, params)
        return metrics

    return jax.jit(diagnose)


def first_examples(experiment: Experiment, count: int) -> Batch:
    """Returns the first training examples of a run, or all where they are fewer.

    Args:
      experiment: a run, built.
      count: how many; positive.
    """
    return _first(experiment, pipeline.to_device(experiment.dataset.train), count)


def _first(experiment: Experiment, split: DeviceSplit, count: int) -> Batch:
    positions = jnp.arange(min(count, split.size))
    return pipeline.take(
        split, positions, experiment.preprocess, experiment.dataset.num_classes
    )
