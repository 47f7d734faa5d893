"""Predictive coding against backpropagation by hand, and dense matrices with signs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax.flatten_util import ravel_pytree
from tiers import quick

import eqprop_jax as ep
from eqprop_jax.analysis import methods

RNG = jax.random.key(11)
SIZES = (6, 5, 4, 4, 3)


@functools.cache
def settled(feedback='tied', angle=None, cost='cross_entropy', scale=0.6):
    """A network with biases, its batch and equilibrium, and its dense matrices."""
    system = ep.systems.predictive_coding(
        SIZES, feedback=feedback, angle=angle, cost=cost
    )
    keys = jax.random.split(jax.random.key(5), 3)
    x = jax.random.normal(keys[0], (4, SIZES[0]))
    batch = ep.Batch(x, jax.nn.one_hot(jnp.arange(4) % 3, 3, dtype=x.dtype))
    params = system.init(keys[1], x)
    noise = ep.tree.random_normal(keys[2], params)
    params = jax.tree.map(
        lambda w, v: scale * w if w.ndim > 1 else 0.3 * v, params, noise
    )
    return oracle.settle(system, params, batch, step_size=0.4)


def backprop(known, cost):
    """Loss of the feed-forward network and its gradient, by hand."""
    x, y = known.batch.x, known.batch.y

    def loss(params):
        activity = x
        layers = [own for name, own in params.items() if name != 'readout']
        for own in layers:
            z = activity @ own['kernel'] + own['bias'][None]
            activity = jnp.tanh(z)
        if cost == 'squared_error':
            return jnp.mean(jnp.sum((z - y) ** 2, axis=1)) / 2
        own = params['readout']
        scores = activity @ own['kernel'] + own['bias'][None]
        return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(scores), axis=1))

    value, grads = jax.jit(jax.value_and_grad(loss))(known.params)
    return value, np.asarray(ravel_pytree(grads)[0])


def solver(tol=1e-13):
    return ep.solvers.relaxation(step_size=0.4, tol=tol, max_steps=5000)


def nudged(system, correction=None):
    return ep.estimators.contour(
        system, solver(), contour=ep.nudges.complex_step(1e-5), correction=correction
    )


def signs(system, rates):
    """1 for values and −1 for errors, unit by unit."""
    del system
    return oracle.flat(
        {
            name: jnp.full(s.shape, 1.0 if name.startswith('value') else -1.0)
            for name, s in rates.items()
        }
    )[0]


@pytest.mark.parametrize(
    'cost', quick(['cross_entropy', 'squared_error'], ['cross_entropy'])
)
def test_gradients_are_those_of_backpropagation(cost):
    known = settled(cost=cost)
    loss, exact = backprop(known, cost)
    found = jnp.mean(known.system.cost(known.params, known.free.rates, known.batch.y))
    assert found == pytest.approx(float(loss), rel=1e-12)
    linear = {'tol': 1e-13, 'step_size': 0.4, 'max_steps': 5000}
    for estimate in (
        nudged(known.system),
        ep.estimators.tangent(known.system, **linear),
        ep.estimators.recurrent_backprop(known.system, **linear),
    ):
        assert oracle.off(oracle.estimate(estimate, known)[0], exact) < 1e-8


def test_without_the_signs_the_gradient_is_wrong():
    known = settled()
    exact = backprop(known, 'cross_entropy')[1]
    unsigned = known.system._replace(signature=None)
    assert oracle.off(oracle.estimate(nudged(unsigned), known)[0], exact) > 1e-2
    # where the response is that of the adjoint there is nothing to turn around
    for correction in ('antisymmetric', 'adjoint'):
        estimate = nudged(known.system, correction)
        assert oracle.off(oracle.estimate(estimate, known)[0], exact) < 1e-8


def test_a_turning_nudge_has_the_signs():
    known = settled()
    estimate = ep.estimators.oscillation(
        known.system, radius=0.01, num_points=4, steps_per_point=150, step_size=0.4
    )
    exact = backprop(known, 'cross_entropy')[1]
    assert oracle.off(oracle.estimate(estimate, known)[0], exact) < 1e-6


@pytest.mark.parametrize(
    ('feedback', 'angle', 'symmetric'), [('tied', None, 1), ('free', 25.0, 0)]
)
def test_the_jacobian_is_symmetric_up_to_signs(feedback, angle, symmetric):
    known = settled(feedback, angle)
    sJ = signs(known.system, known.free.rates)[None, :, None] * known.J
    apart = np.linalg.norm(sJ - sJ.swapaxes(1, 2)) / np.linalg.norm(sJ)
    assert apart < 1e-13 if symmetric else apart > 0.01
    plain = np.linalg.norm(known.J - known.J.swapaxes(1, 2)) / np.linalg.norm(known.J)
    assert plain > 0.5
    share = ep.jacobian.symmetric_share(
        *known[:2], known.batch.x, known.free.rates, RNG, num_probes=400
    )
    if symmetric:
        assert share == pytest.approx(1, abs=1e-12)


def test_signed_products_are_those_of_the_dense_matrix():
    known = settled()
    system, params, batch, free = known[:4]
    J = ep.jacobian.signed(
        system,
        ep.jacobian.linearize(
            system, params, system.inject(params, batch.x), free.rates
        ),
    )
    sJ = signs(system, free.rates)[None, :, None] * known.J
    v = ep.tree.random_normal(RNG, free.rates)
    for product, matrix in ((J.apply, sJ), (J.transpose, sJ.swapaxes(1, 2))):
        expected = np.einsum('bij,bj->bi', matrix, oracle.flat(v))
        np.testing.assert_allclose(oracle.flat(product(v)), expected, atol=1e-12)


@pytest.mark.parametrize('form', quick(['difference', 'published'], ['difference']))
def test_homeostasis_is_that_of_the_signed_jacobian(form):
    def penalties(known):
        penalty = ep.homeostasis.penalty(known.system, num_probes=5, form=form)
        keys = jax.random.split(RNG, 2000)
        draw = jax.jit(jax.vmap(lambda key: penalty(*known[1:4], key)))
        return np.asarray(draw(keys))

    assert np.abs(penalties(settled())).max() < 1e-13
    known = settled('free', 25.0)
    sJ = signs(known.system, known.free.rates)[None, :, None] * known.J
    asymmetry = sJ - sJ.swapaxes(1, 2)
    exact = np.mean(np.sum(asymmetry**2, axis=(1, 2))) / (2 * sJ.shape[-1])
    values = penalties(known)
    noise = values.std() / np.sqrt(len(values))
    assert abs(values.mean() - exact) < 4 * noise
    assert noise < 0.1 * exact


@pytest.mark.parametrize(('feedback', 'angle'), [('tied', None), ('free', 25.0)])
def test_the_free_phase_starts_where_it_ends(feedback, angle):
    """No error is left, and the values are those of the feed-forward network."""
    known = settled(feedback, angle)
    free = ep.relax(
        known.system, known.params, known.batch.x, ep.solvers.relaxation(tol=1e-12)
    )
    assert free.num_steps.tolist() == [1] * 4
    assert free.converged.all()
    activity = np.asarray(known.batch.x)
    for index in range(1, len(SIZES) - 1):
        own = known.params[f'layer_{index}']
        z = activity @ np.asarray(own['kernel']) + np.asarray(own['bias'])
        np.testing.assert_allclose(free.state[f'value_{index}'], z, atol=1e-13)
        np.testing.assert_allclose(free.state[f'error_{index}'], 0, atol=1e-13)
        activity = np.tanh(z)


@pytest.mark.whole
def test_free_feedback_that_is_transposed_is_that_of_the_tied_network():
    known = settled('free', 25.0)
    params = dict(known.params)
    for name in ('layer_2', 'layer_3'):
        params[name] = params[name] | {'feedback': params[name]['kernel']}
    known = oracle.settle(known.system, params, known.batch, step_size=0.4)
    exact = backprop(known, 'cross_entropy')[1]
    linear = {'tol': 1e-13, 'step_size': 0.4, 'max_steps': 5000}
    tangent = ep.estimators.tangent(known.system, **linear)
    for estimate in (nudged(known.system), tangent):
        assert oracle.off(oracle.estimate(estimate, known)[0], exact) < 1e-8
    share = ep.jacobian.symmetric_share(
        *known[:2], known.batch.x, known.free.rates, RNG, num_probes=8
    )
    assert share == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize('feedback', ['tied', 'free'])
def test_the_signs_replace_a_correction_only_if_weights_are_tied(feedback):
    system = settled(feedback).system
    assert methods.finds_adjoint(system, None) == (feedback == 'tied')
    assert methods.finds_adjoint(system, 'adjoint')


@pytest.mark.parametrize('correction', quick(['antisymmetric', 'adjoint'], ['adjoint']))
def test_free_feedback_is_exact_once_corrected(correction):
    known = settled('free', 25.0)
    exact = known.gradient(known.error(adjoint=True))
    found = oracle.estimate(nudged(known.system, correction), known)[0]
    assert oracle.off(found, exact) < 1e-8
    assert oracle.off(exact, backprop(known, 'cross_entropy')[1]) < 1e-8
    assert oracle.off(oracle.estimate(nudged(known.system), known)[0], exact) > 1e-2


@pytest.mark.whole
def test_the_adjoint_needs_the_smaller_steps():
    """Full steps of the linear solve overshoot where those of the phases would."""
    known = settled(scale=1.5)
    exact = backprop(known, 'cross_entropy')[1]
    for make in (ep.estimators.tangent, ep.estimators.recurrent_backprop):
        found = {
            step: jax.jit(
                make(known.system, tol=1e-12, max_steps=3000, step_size=step)
            )(*known[1:4], None)
            for step in (0.2, 1.0)
        }
        assert found[0.2].info.converged == 1
        assert oracle.off(ravel_pytree(found[0.2].grads)[0], exact) < 1e-8
        assert found[1.0].info.converged == 0
        with pytest.raises(ValueError, match='step_size'):
            make(known.system, step_size=0.0)


def test_pairs_are_feedback_and_kernel_of_one_shape():
    known = settled('free', 25.0)
    assert [pair[0][0] for pair in known.system.pairs] == ['layer_2', 'layer_3']
    for to, back, transposed in known.system.pairs:
        W, B = (np.asarray(ep.tree.get(known.params, path)) for path in (to, back))
        cosine = np.sum(W * B) / np.linalg.norm(W) / np.linalg.norm(B)
        assert np.degrees(np.arccos(cosine)) == pytest.approx(25.0, abs=1e-6)
        assert not transposed
    assert settled().system.pairs == ()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'feedback': 'random'}, 'tied, free'),
        ({'angle': 30.0}, 'feedback="free"'),
        ({'feedback': 'free', 'angle': -1.0}, '180'),
        ({'activation': 'softplus'}, 'sigmoid, dsilu'),
        ({'cost': 'huber'}, 'cross_entropy, squared_error'),
        ({'sizes': (6, 3)}, 'no layer that settles'),
        ({'sizes': (6, 0, 3)}, 'positive integers'),
    ],
)
def test_networks_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ep.systems.predictive_coding(**{'sizes': SIZES, **options})


@pytest.mark.whole
@pytest.mark.parametrize('scale', [0.3, 1.0, 3.0])
def test_the_largest_stable_step(scale):
    """ε² a² + 2ε = 4 for the largest singular value a of ∂e/∂x."""
    system = ep.systems.predictive_coding(
        (4, 5, 5, 3), activation='identity', cost='squared_error'
    )
    x = jnp.ones((1, 4))
    params = system.init(jax.random.key(1), x)
    params = jax.tree.map(lambda w: scale * w, params)
    batch = ep.Batch(x, jnp.ones((1, 3)))
    W2, W3 = (np.asarray(params[f'layer_{n}']['kernel']) for n in (2, 3))
    A = np.eye(13)  # e_l = x_l - x_{l-1} W_l
    A[5:10, :5], A[10:, 5:10] = -W2.T, -W3.T
    a2 = np.linalg.norm(A, 2) ** 2
    bound = (np.sqrt(1 + 4 * a2) - 1) / a2
    for factor, settles in ((0.97, True), (1.03, False)):
        solve = ep.solvers.relaxation(
            order='alternating', step_size=factor * bound, tol=1e-9, max_steps=3000
        )
        free = ep.relax(system, params, x, solve)
        nudge = ep.nudges.complex_step(1e-9)
        estimate = ep.estimators.contour(system, solve, contour=nudge)
        residual = estimate(params, batch, free, None).info.residual[0, 0]
        assert (residual < 1e-3) if settles else not residual < 1
