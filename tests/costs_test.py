"""Costs by name and of one's own, continuous targets, an activation for each layer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest

import eqprop_jax as ep
from eqprop_jax.systems import _costs as costs

X = jax.random.uniform(jax.random.key(0), (4, 7))
LINEAR = ('sigmoid', 'tanh', 'identity')
TIGHT = {'tol': 1e-12, 'max_steps': 3000}


def below_and_above(params, rates, y):
    """A cost of two layers, and of a weight."""
    scores = rates['layer_3'] + 0.5 * rates['layer_1'][:, :3]
    decay = 0.1 * jnp.sum(params['layer_2']['kernel'] ** 2)
    return jnp.sum((scores - y) ** 4, axis=1) + decay


def network(cost, activation=LINEAR, feedback='free'):
    system = ep.systems.mlp(
        (7, 6, 5, 3), feedback=feedback, cost=cost, activation=activation
    )
    return system, system.init(jax.random.key(1), X)


Y = jax.random.normal(jax.random.key(2), (4, 3))
ONE_HOT = jnp.eye(3)[jnp.array([0, 2, 1, 0])]


@pytest.mark.parametrize(
    ('cost', 'y'),
    [
        ('squared_error', Y),
        ('absolute_error', Y),
        ('hinge', ONE_HOT),
        (below_and_above, Y),
    ],
)
def test_the_exact_gradient_is_that_of_finite_differences(cost, y):
    system, params = network(cost)
    known = oracle.settle(system, params, ep.Batch(X, y))
    exact = ep.estimators.recurrent_backprop(system, **TIGHT)
    grads = jax.jit(exact)(params, known.batch, known.free, None).grads
    solve = ep.solvers.relaxation(**TIGHT)

    @jax.jit
    def value(params):
        rates = ep.relax(system, params, X, solve).rates
        return jnp.mean(system.cost(params, rates, y))

    for layer, leaves in params.items():
        for name, leaf in leaves.items():
            dot = jax.random.normal(jax.random.key(len(name)), leaf.shape)
            ahead, behind = (
                value(params | {layer: leaves | {name: leaf + h * dot}})
                for h in (1e-6, -1e-6)
            )
            found = float(jnp.sum(grads[layer][name] * dot))
            wanted = float((ahead - behind) / 2e-6)
            assert found == pytest.approx(wanted, rel=1e-5, abs=1e-8), (layer, name)


@pytest.mark.parametrize('cost', ['squared_error', below_and_above])
def test_complex_nudges_take_analytic_costs(cost):
    system, params = network(cost)
    known = oracle.settle(system, params, ep.Batch(X, Y))
    solve = ep.solvers.relaxation(**TIGHT)
    estimate = ep.estimators.contour(
        system, solve, contour=ep.nudges.complex_step(1e-5), correction='antisymmetric'
    )
    exact = ep.estimators.recurrent_backprop(system, **TIGHT)
    for name, leaf in jax.jit(estimate)(
        params, known.batch, known.free, None
    ).error.items():
        wanted = exact(params, known.batch, known.free, None).error[name]
        np.testing.assert_allclose(leaf, wanted, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(('cost', 'y'), [('absolute_error', Y), ('hinge', ONE_HOT)])
def test_costs_with_kinks_take_real_nudges(cost, y):
    """Units stay on their side of the kink at this nudge."""
    system, params = network(cost)
    assert not system.holomorphic
    known = oracle.settle(system, params, ep.Batch(X, y))
    solve = ep.solvers.relaxation(**TIGHT)
    with pytest.raises(ValueError, match='not holomorphic'):
        ep.estimators.contour(system, solve, contour=ep.nudges.complex_step())
    estimate = ep.estimators.contour(
        system, solve, contour=ep.nudges.symmetric(1e-4), correction='adjoint'
    )
    found = jax.jit(estimate)(params, known.batch, known.free, None)
    np.testing.assert_allclose(
        oracle.flat(found.error), known.error(adjoint=True), rtol=1e-5, atol=1e-8
    )


def test_a_function_that_is_not_analytic_is_named_under_a_complex_nudge():
    system, params = network(lambda params, s, y: jnp.sum(jnp.abs(s['layer_3']), 1))
    batch, solve = ep.Batch(X, Y), ep.solvers.relaxation()
    free = ep.relax(system, params, X, solve)
    estimate = ep.estimators.contour(system, solve, contour=ep.nudges.complex_step())
    with pytest.raises(TypeError, match='cost takes "abs" of a complex number'):
        estimate(params, batch, free, None)


def test_a_function_of_the_whole_batch_is_refused():
    system, params = network(lambda params, s, y: jnp.sum(s['layer_3']))
    free = ep.relax(system, params, X, ep.solvers.relaxation())
    with pytest.raises(ValueError, match='one value for each example'):
        system.cost(params, free.rates, Y)


def test_the_costs_in_numbers():
    output = jnp.array([[0.5, 2.0, -1.0]])
    y = jnp.array([[1.0, 0.0, 0.0]])
    assert float(costs.absolute_error(output, y)[0]) == 0.5 + 2 + 1
    assert float(costs.hinge(output, y)[0]) == 2.5  # 1 + 2 − 0.5, and 1 − 1 − 0.5 < 0
    assert float(costs.squared_error(output, y)[0]) == (0.25 + 4 + 1) / 2


@pytest.mark.parametrize('shape', [(4, 6), (4, 2, 3), (4, 6, 1)])
def test_continuous_targets_of_any_shape(shape):
    scores = jnp.arange(24.0).reshape(4, 6)
    np.testing.assert_array_equal(costs.targets(scores, scores.reshape(shape)), scores)


def test_one_number_for_each_example():
    scores = jnp.arange(4.0)[:, None]
    np.testing.assert_array_equal(costs.targets(scores, scores[:, 0]), scores)


@pytest.mark.parametrize('y', [jnp.zeros((4, 5)), jnp.zeros(4), jnp.zeros((2, 12))])
def test_targets_that_do_not_fit_are_refused(y):
    with pytest.raises(ValueError, match='targets have shape'):
        costs.targets(jnp.zeros((4, 6)), y)


def test_labels_that_are_no_classes():
    found = costs.targets(jnp.zeros((4, 3)), jnp.array([2, -1, -2, 3]))
    np.testing.assert_array_equal(found[0], [0, 0, 1])
    assert np.isnan(found[1:]).all()


def test_every_layer_has_its_own_activation():
    system, params = network('squared_error')
    free = ep.relax(system, params, X, ep.solvers.relaxation(tol=1e-10))
    u, s = free.state, free.rates
    np.testing.assert_allclose(s['layer_1'], 1 / (1 + np.exp(2 - 4 * u['layer_1'])))
    np.testing.assert_allclose(s['layer_2'], np.tanh(u['layer_2']))
    np.testing.assert_array_equal(s['layer_3'], u['layer_3'])
    assert system.holomorphic
    assert not network('squared_error', ('sigmoid', 'relu', 'identity'))[0].holomorphic


def test_a_list_of_another_length_is_refused():
    with pytest.raises(ValueError, match='2 entries for 3 layers'):
        network('squared_error', ('tanh', 'identity'))


def test_conv_nets_take_them_too():
    system = ep.systems.conv(
        (4, 4, 2),
        (3,),
        hidden=(5,),
        classes=2,
        cost='absolute_error',
        activation=('tanh', 'tanh', 'identity'),
    )
    x = jax.random.uniform(jax.random.key(0), (3, 4, 4, 2))
    params = system.init(jax.random.key(1), x)
    free = ep.relax(system, params, x, ep.solvers.relaxation())
    y = jnp.array([[0.3, -2.0]] * 3)
    np.testing.assert_allclose(
        system.cost(params, free.rates, y),
        np.abs(free.state['layer_3'] - y).sum(axis=1),
    )


def test_a_regression_is_learned():
    """Two continuous targets by linear units, far below their variance."""
    system = ep.systems.mlp(
        (7, 24, 24, 2),
        cost='squared_error',
        activation=('sigmoid', 'sigmoid', 'identity'),
    )
    x = jax.random.normal(jax.random.key(3), (64, 7))
    y = jnp.stack([jnp.sin(x[:, 0]), x[:, 1] * x[:, 2]], axis=1)
    solve = ep.solvers.relaxation(tol=1e-4, max_steps=200)
    estimate = ep.estimators.contour(
        system, solve, contour=ep.nudges.complex_step(1e-3)
    )
    gradient = ep.value_and_grad(system, solve, estimate)

    @jax.jit
    def step(params, memory):
        (value, _), grads = gradient(params, ep.Batch(x, y))
        updates, memory = adam.update(grads, memory)
        return optax.apply_updates(params, updates), memory, value

    params, adam = system.init(jax.random.key(4), x), optax.adam(0.01)
    memory = adam.init(params)
    for _ in range(200):
        params, memory, value = step(params, memory)
    assert float(value) < 0.05 * float(0.5 * jnp.sum(jnp.var(y, axis=0)))
