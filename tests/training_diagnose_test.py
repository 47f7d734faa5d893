"""What a run measures of its gradient beside the training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs

from eqprop_jax import dynamics, tree
from eqprop_jax.training.diagnose import first_examples
from eqprop_jax.training.programs import make_diagnose
from eqprop_jax.training.state import init_state


@pytest.fixture(scope='module')
def run():
    """A run without correction, whose gradient is biased, its weights and a batch."""
    experiment = runs.experiment({'estimator.correction': None})
    return experiment, init_state(experiment).params, first_examples(experiment, 12)


def failing(experiment, lost):
    """Returns the run with a reference that leaves some examples unsolved."""

    def exact(params, batch, free, rng):
        estimate = experiment.exact(params, batch, free, rng)
        wrong = tree.scale(1e9, estimate.error)
        wrong['layer_1'] = wrong['layer_1'].at[0].set(jnp.nan)
        info = estimate.info._replace(
            residual=jnp.where(lost, 1.0, estimate.info.residual),
            converged=jnp.mean(~lost),
        )
        grads = tree.scale(jnp.nan, estimate.grads)
        return estimate._replace(
            grads=grads, error=tree.select(lost, wrong, estimate.error), info=info
        )

    return experiment._replace(exact=exact)


@pytest.mark.whole
def test_examples_whose_reference_is_not_solved_count_on_neither_side(run):
    experiment, params, batch = run
    lost = np.isin(np.arange(12), (0, 5, 11))
    key = jax.random.key(3)
    found = make_diagnose(failing(experiment, lost))(params, key, batch)
    others = batch._replace(x=batch.x[~lost], y=batch.y[~lost])
    wanted = make_diagnose(experiment)(params, key, others)
    whole = make_diagnose(experiment)(params, key, batch)
    compared = [
        name
        for name in wanted
        if name.startswith(('gradient', 'cosine', 'norm_ratio', 'error/', 'worst'))
    ]
    assert {'gradient_cosine', 'norm_ratio/layer_1', 'worst_error'} < set(compared)
    for name in compared:
        np.testing.assert_allclose(found[name], wanted[name], rtol=2e-4)
    assert abs(whole['gradient_cosine'] - wanted['gradient_cosine']) > 1e-3
    np.testing.assert_allclose(found['reference_converged'], 9 / 12, rtol=1e-6)
    assert wanted['reference_converged'] == 1


def test_without_any_reference_there_is_no_cosine(run):
    experiment, params, batch = run
    lost = np.ones(12, bool)
    found = make_diagnose(failing(experiment, lost))(params, jax.random.key(3), batch)
    for name in (
        'gradient_cosine',
        'gradient_cosine_without_readout',
        'norm_ratio/layer_1',
        'error/layer_2',
        'worst_error',
    ):
        assert np.isnan(found[name])
    assert found['reference_converged'] == 0


@pytest.fixture(scope='module')
def read_out():
    """A run with a softmax readout, its weights and a batch."""
    changes = {'estimator.correction': None, 'system.cost': 'cross_entropy'}
    experiment = runs.experiment(changes)
    return experiment, init_state(experiment).params, first_examples(experiment, 12)


def planted(experiment, change, factors):
    """Returns the run with the exact estimate, but for one layer's δ and gradient."""

    def estimate(params, batch, free, rng):
        found = experiment.exact(params, batch, free, rng)
        error = found.error | {'layer_1': change(found.error['layer_1'])}
        grads = {
            name: jax.tree.map(lambda g, name=name: factors.get(name, 1.0) * g, part)
            for name, part in found.grads.items()
        }
        return found._replace(error=error, grads=grads)

    return experiment._replace(estimate=estimate)


def test_a_deaf_layer_is_seen(read_out):
    """Zero, it is off by all of its length; turned round, by twice that."""
    experiment, params, batch = read_out
    key = jax.random.key(3)
    for change, size in ((jnp.zeros_like, 1.0), (jnp.negative, 2.0)):
        made = planted(experiment, change, {'layer_1': 0.0})
        found = make_diagnose(made)(params, key, batch)
        np.testing.assert_allclose(found['error/layer_1'], size, rtol=1e-6)
        np.testing.assert_allclose(found['worst_error'], size, rtol=1e-6)
        assert found['error/layer_2'] == 0


@pytest.mark.whole
def test_the_readout_hides_it_in_the_whole_gradient(read_out):
    """Cosines by hand, of a gradient that lacks its first layer."""
    experiment, params, batch = read_out
    made = planted(experiment, jnp.zeros_like, {'layer_1': 0.0})
    found = make_diagnose(made)(params, jax.random.key(3), batch)
    free = dynamics.relax(experiment.system, params, batch.x, experiment.solve)
    grads = experiment.exact(params, batch, free, None).grads
    squares = {
        name: sum(float(np.sum(np.square(leaf))) for leaf in jax.tree.leaves(part))
        for name, part in grads.items()
    }
    assert 'readout' in squares
    whole = sum(squares.values())
    for name, total in (
        ('gradient_cosine', whole),
        ('gradient_cosine_without_readout', whole - squares['readout']),
    ):
        wanted = np.sqrt(1 - squares['layer_1'] / total)
        np.testing.assert_allclose(found[name], wanted, rtol=1e-4)
    assert found['gradient_cosine'] > found['gradient_cosine_without_readout']
