"""Jacobian, homeostasis and alignment against dense matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo

import eqprop_jax as ep

RNG = jax.random.key(11)
ANIMALS = ['tied', 'free', 'loop', 'feedforward', 'primitive', 'energy', 'drive']


def at_equilibrium(animal):
    system, params, batch = zoo.setting(animal)
    free = jax.jit(lambda p, x: ep.relax(system, p, x, zoo.solver(animal)))(
        params, batch.x
    )
    return system, params, batch, free


def flat(tree):
    return jax.vmap(lambda leaf: jax.flatten_util.ravel_pytree(leaf)[0])(tree)


@pytest.mark.parametrize('animal', ANIMALS)
def test_dense_jacobian_is_that_of_central_differences(animal):
    system, params, batch, free = at_equilibrium(animal)
    J = ep.jacobian.dense(system, params, batch.x, free.rates)
    injection, h = system.inject(params, batch.x), 1e-6
    direction = ep.tree.random_normal(RNG, free.rates)
    up, down = (
        system.drive(
            params,
            injection,
            jax.tree.map(lambda s, v, h=h: s + h * v, free.rates, direction),
        )
        for h in (h, -h)
    )
    slope = (flat(up) - flat(down)) / (2 * h)
    np.testing.assert_allclose(
        jnp.einsum('bij,bj->bi', J, flat(direction)), slope, atol=1e-8
    )


@pytest.mark.parametrize('animal', ANIMALS)
def test_products_are_those_of_the_dense_matrix(animal):
    system, params, batch, free = at_equilibrium(animal)
    J = ep.jacobian.dense(system, params, batch.x, free.rates)
    linear = ep.jacobian.linearize(
        system, params, system.inject(params, batch.x), free.rates
    )
    re, im = (ep.tree.random_normal(key, free.rates) for key in jax.random.split(RNG))
    for v in (re, ep.tree.combine(re, im)):
        forward = jnp.einsum('bij,bj->bi', J, flat(v))
        backward = jnp.einsum('bji,bj->bi', J, flat(v))
        np.testing.assert_allclose(flat(linear.apply(v)), forward, atol=1e-12)
        np.testing.assert_allclose(flat(linear.transpose(v)), backward, atol=1e-12)


@pytest.mark.parametrize('animal', ANIMALS)
def test_spectral_radius_is_that_of_the_dense_matrix(animal):
    system, params, batch, free = at_equilibrium(animal)
    J = np.asarray(ep.jacobian.dense(system, params, batch.x, free.rates))
    slopes = np.asarray(flat(ep.dynamics.slopes(system, free.state)))
    exact = np.abs(np.linalg.eigvals(J * slopes[:, None, :])).max(axis=1)
    found = jax.jit(
        lambda: ep.jacobian.spectral_radius(
            system, params, batch.x, free, RNG, num_steps=240
        )
    )()
    np.testing.assert_allclose(found, exact, rtol=3e-2, atol=1e-6)


@pytest.mark.parametrize('animal', ANIMALS)
def test_symmetric_share(animal):
    system, params, batch, free = at_equilibrium(animal)
    J = ep.jacobian.dense(system, params, batch.x, free.rates)
    S, A = (np.asarray(J + sign * J.swapaxes(1, 2)) / 2 for sign in (1, -1))
    exact = np.linalg.norm(S) / (np.linalg.norm(S) + np.linalg.norm(A))
    found = ep.jacobian.symmetric_share(
        system, params, batch.x, free.rates, RNG, num_probes=4000
    )
    assert found == pytest.approx(exact, abs=5e-3)
    single = ep.jacobian.share(J)
    norms = [np.linalg.norm(part, axis=(1, 2)) for part in (S, A)]
    np.testing.assert_allclose(single, norms[0] / (norms[0] + norms[1]), rtol=1e-12)


@pytest.mark.parametrize('form', ['difference', 'published'])
@pytest.mark.parametrize('animal', ['free', 'loop', 'drive'])
def test_penalty_and_its_gradient_are_unbiased(animal, form):
    """The mean over many probes is ‖J − Jᵀ‖²/2n and its gradient, within the noise."""
    system, params, batch, free = at_equilibrium(animal)

    def dense_penalty(params):
        J = ep.jacobian.dense(system, params, batch.x, free.rates)
        asymmetry = J - J.swapaxes(1, 2)
        return jnp.mean(jnp.sum(asymmetry**2, axis=(1, 2))) / (2 * J.shape[-1])

    penalty = ep.homeostasis.penalty(system, num_probes=50, form=form)
    draw = jax.jit(
        jax.vmap(
            jax.value_and_grad(lambda p, key: penalty(p, batch, free, key)), (None, 0)
        )
    )
    values, grads = draw(params, jax.random.split(RNG, 200))
    standard_error = values.std() / np.sqrt(len(values))
    assert abs(values.mean() - dense_penalty(params)) < 4 * standard_error
    exact = jax.grad(dense_penalty)(params)
    for sample, expected in zip(
        jax.tree.leaves(grads), jax.tree.leaves(exact), strict=True
    ):
        noise = np.asarray(sample).std(axis=0) / np.sqrt(len(sample))
        assert (abs(sample.mean(axis=0) - expected) <= 5 * noise + 1e-12).all()


def test_forms_of_the_penalty_at_symmetry():
    """Both vanish with every draw; the gradient of the published one does not."""
    system, params, batch = zoo.setting('free')
    params = ep.alignment.rotate_feedback(system, params, RNG, 0.0)
    free = ep.relax(system, params, batch.x, zoo.solver('free'))
    for form in ('difference', 'published'):
        penalty = ep.homeostasis.penalty(system, num_probes=1, form=form)
        value, grads = jax.jit(jax.value_and_grad(penalty))(params, batch, free, RNG)
        assert abs(value) < 1e-12
        noise = ep.tree.norm(grads)
        assert (noise < 1e-6) if form == 'difference' else (noise > 1e-2)
    with pytest.raises(ValueError, match='difference, published'):
        ep.homeostasis.penalty(system, form='trace')
    with pytest.raises(ValueError, match='num_probes'):
        ep.homeostasis.penalty(system, num_probes=0)


def test_homeostasis_draws_feedback_to_the_transpose():
    """Gradient descent on the penalty alone ends at symmetry: angle zero."""
    system, params, batch, free = at_equilibrium('free')
    penalty = ep.homeostasis.penalty(system)
    gradient = jax.jit(jax.grad(lambda p, key: penalty(p, batch, free, key)))
    before = ep.alignment.angles(system, params)['layer_1/feedback']
    for key in jax.random.split(RNG, 200):
        params = jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient(params, key))
    after = ep.alignment.angles(system, params)['layer_1/feedback']
    assert before > 60
    assert after < 1e-3


def test_rotation_of_a_whole_system():
    system, params, _ = zoo.setting('free_deep')
    turned = ep.alignment.rotate_feedback(system, params, RNG, 25.0)
    for angle in ep.alignment.angles(system, turned).values():
        assert angle == pytest.approx(25.0)
    assert jnp.array_equal(turned['layer_2']['kernel'], params['layer_2']['kernel'])
    system, params, _ = zoo.setting('tied')
    with pytest.raises(ValueError, match='feedback="free"'):
        ep.alignment.rotate_feedback(system, params, RNG, 25.0)
