"""A nudge that hardly moves anything: its response counts beside the others."""

import jax
import jax.numpy as jnp
import pytest
from tiers import quick

import eqprop_jax as ep
from eqprop_jax.analysis import layers

TOL = 1e-2


def network():
    """Returns a network whose output units are off, but for a trace of one.

    Pushed up by one nudge, the unit of the target turns on. Pushed down by the other it
    stays off, and only that trace moves, by less than rounds off in the layers below.
    """
    system = ep.systems.mlp(
        (6, 40, 30, 3), feedback='tied', activation='hard_sigmoid', cost='squared_error'
    )
    x = jnp.tile(jax.random.uniform(jax.random.key(1), (1, 6)), (3, 1))
    params = system.init(jax.random.key(0), x)
    for name, scale, bias in (
        ('layer_1', 0.3, 0.5),
        ('layer_2', 0.3, 0.5),
        ('layer_3', 0.1, -0.2),
    ):
        own = params[name]
        params[name] = {'kernel': scale * own['kernel'], 'bias': own['bias'] + bias}
    solve = ep.solvers.relaxation(tol=1e-6, max_steps=100)
    free = ep.relax(system, params, x, solve)
    top = params['layer_3']
    assert jnp.all(free.state['layer_3'] < 0)
    lift = 1e-5 - free.state['layer_3'][0, 0]
    params['layer_3'] = top | {'bias': top['bias'].at[0].add(lift)}
    y = jnp.tile(jnp.array([[0.0, 1.0, 0.0]]), (3, 1))
    return system, params, ep.Batch(x, y)


def estimate(dtype, tol, batched):
    system, *given = network()
    params, batch = jax.tree.map(lambda leaf: leaf.astype(dtype), given)
    solve = ep.solvers.relaxation(tol=tol, max_steps=60)
    contour = ep.estimators.contour(
        system, solve, contour=ep.nudges.symmetric(0.25), batched=batched
    )
    tight = ep.solvers.relaxation(tol=min(tol, 1e-6), max_steps=100)
    free = ep.relax(system, params, batch.x, tight)
    return jax.jit(lambda: contour(params, batch, free, None))()


@pytest.mark.parametrize('batched', quick([False, True], [True]))
def test_its_response_counts_beside_the_others(batched):
    found = estimate(jnp.float32, TOL, batched)
    exact = estimate(jnp.float64, 1e-12, batched)
    assert found.info.converged == 1
    assert found.info.skipped == 0
    errors = layers.errors(found.error, exact.error)
    assert layers.largest(errors) < TOL


@pytest.mark.parametrize('rule', ['contour', 'contrastive'])
@pytest.mark.parametrize('radius', [1e-6, 1e-8])
def test_an_answer_that_rounding_has_swallowed_is_left_out(rule, radius):
    """As before it was called unfinished: noise is no error signal of some sweeps."""
    system = ep.systems.mlp((6, 20, 20, 3), feedback='tied')
    x = jax.random.uniform(jax.random.key(1), (8, 6), jnp.float32)
    params = system.init(jax.random.key(0), x)
    solve = ep.solvers.relaxation(tol=1e-2, max_steps=30)
    free = ep.relax(system, params, x, ep.solvers.relaxation(tol=1e-6, max_steps=200))
    make = getattr(ep.estimators, rule)
    learn = make(system, solve, contour=ep.nudges.symmetric(radius))
    batch = ep.Batch(x, jax.nn.one_hot(jnp.arange(8) % 3, 3))
    found = jax.jit(learn)(params, batch, free, None)
    assert found.info.skipped >= (1 if radius < 1e-7 else 0.5)
