"""What a run measures of its gradient beside the training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs

from eqprop_jax import tree
from eqprop_jax.training.diagnose import first_examples, make_diagnose
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


def test_examples_whose_reference_is_not_solved_count_on_neither_side(run):
    experiment, params, batch = run
    lost = np.isin(np.arange(12), (0, 5, 11))
    key = jax.random.key(3)
    found = make_diagnose(failing(experiment, lost))(params, batch, key)
    others = batch._replace(x=batch.x[~lost], y=batch.y[~lost])
    wanted = make_diagnose(experiment)(params, others, key)
    whole = make_diagnose(experiment)(params, batch, key)
    compared = [
        name for name in wanted if name.startswith(('gradient', 'cosine', 'norm_ratio'))
    ]
    assert {'gradient_cosine', 'norm_ratio/layer_1'} < set(compared)
    for name in compared:
        np.testing.assert_allclose(found[name], wanted[name], rtol=2e-4)
    assert abs(whole['gradient_cosine'] - wanted['gradient_cosine']) > 1e-3
    np.testing.assert_allclose(found['reference_converged'], 9 / 12, rtol=1e-6)
    assert wanted['reference_converged'] == 1


def test_without_any_reference_there_is_no_cosine(run):
    experiment, params, batch = run
    lost = np.ones(12, bool)
    found = make_diagnose(failing(experiment, lost))(params, batch, jax.random.key(3))
    for name in ('gradient_cosine', 'norm_ratio/layer_1'):
        assert np.isnan(found[name])
    assert found['reference_converged'] == 0
