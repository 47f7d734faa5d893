"""The functional Jacobian and its spectrum against dense matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import zoo
from tiers import quick

import eqprop_jax as ep

RNG = jax.random.key(11)
ANIMALS = ['tied', 'free', 'loop', 'feedforward', 'primitive', 'energy', 'drive']
SOME = ['tied', 'loop', 'drive']


def at_equilibrium(animal):
    return oracle.of(animal)[:4]


def flat(tree):
    return jax.vmap(lambda leaf: jax.flatten_util.ravel_pytree(leaf)[0])(tree)


@pytest.mark.parametrize('animal', quick(ANIMALS, SOME))
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


@pytest.mark.parametrize('animal', quick(ANIMALS, SOME))
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


@pytest.mark.parametrize('animal', quick(ANIMALS, SOME))
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


def test_no_synapse_is_a_symmetric_one():
    """J = 0 = Jᵀ, in a network of one layer and in matrices beside others."""
    system, params, batch = zoo.setting('one_layer')
    rates = system.rates(system.rest(system.inject(params, batch.x)))
    assert not ep.jacobian.dense(system, params, batch.x, rates).any()
    assert ep.jacobian.symmetric_share(system, params, batch.x, rates, RNG) == 1
    J = jnp.array([[[0.0, 0.0], [0.0, 0.0]], [[0.0, 2.0], [2.0, 1.0]]])
    J = jnp.concatenate([J, jnp.array([[[0, 1.0], [-1, 0]], [[0, jnp.nan], [0, 0]]])])
    np.testing.assert_array_equal(ep.jacobian.share(J), [1, 1, 0, jnp.nan])


@pytest.mark.typed
@pytest.mark.parametrize('animal', quick(ANIMALS, SOME))
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


@pytest.mark.parametrize('name', ['tied', 'free', 'loop', 'feedforward'])
def test_dense_jacobian_of_networks_is_made_of_their_weights(name):
    """Row block l has W_lᵀ in column l − 1 and B_lᵀ in that of where B_l comes from."""
    system, params, batch, free = at_equilibrium(name)
    sizes = [leaf.shape[1] for leaf in free.rates.values()]
    ends = np.cumsum([0, *sizes])
    J = np.zeros((sum(sizes), sum(sizes)))

    def put(to, source, weights):
        rows, columns = (slice(ends[i], ends[i + 1]) for i in (to, source))
        J[rows, columns] = np.asarray(weights).T

    for index in range(1, len(sizes)):
        kernel = params[f'layer_{index + 1}']['kernel']
        put(index, index - 1, kernel)
        if name == 'tied':
            put(index - 1, index, kernel.T)
        elif name == 'free':
            put(index - 1, index, params[f'layer_{index}']['feedback'])
    if name == 'loop':
        put(0, len(sizes) - 1, params['layer_1']['feedback'])
    found = ep.jacobian.dense(system, params, batch.x, free.rates)
    np.testing.assert_allclose(found, np.stack([J] * zoo.BATCH), atol=1e-15)


@pytest.mark.typed
@pytest.mark.parametrize('animal', quick(ANIMALS, SOME))
def test_ritz_values_are_those_of_the_dense_matrix(animal):
    """Of a Krylov space by QR, and once it is all of space every eigenvalue, and zeros.

    Feed-forward J is nilpotent: one product more than there are layers leaves nothing.
    """
    known = oracle.of(animal)
    M = known.J * known.slopes[:, None, :]

    def ritz(num_steps):
        found = jax.jit(
            lambda: ep.analysis.stability.hessenberg(
                *known[:2], known.batch.x, known.free, RNG, num_steps=num_steps
            )
        )()
        assert found.shape == (zoo.BATCH, num_steps, num_steps)
        np.testing.assert_array_equal(found, np.triu(found, -1))
        return np.linalg.eigvals(np.asarray(found))

    k = 2 if animal == 'feedforward' else 4
    for matrix, start, values in zip(
        M, flat(ep.tree.random_normal(RNG, known.free.state)), ritz(k), strict=True
    ):
        krylov = [np.linalg.matrix_power(matrix, power) @ start for power in range(k)]
        Q = np.linalg.qr(np.stack(krylov, axis=1))[0]
        exact = np.linalg.eigvals(Q.T @ matrix @ Q)
        apart = np.abs(values[:, None] - exact[None])
        assert max(apart.min(axis=0).max(), apart.min(axis=1).max()) < 1e-7
    # a multiple zero without eigenvectors of its own is found to √ε and no better
    near = 1e-7 if animal in ('loop', 'feedforward') else 1e-12
    for exact, values in zip(np.linalg.eigvals(M), ritz(40), strict=True):
        apart = np.abs(values[:, None] - exact[None])
        assert apart.min(axis=0).max() < near
        assert np.minimum(apart.min(axis=1), np.abs(values)).max() < near
    if animal == 'feedforward':
        np.testing.assert_array_equal(M @ M, 0)


def test_leading_ritz_values_come_first():
    """Of a symmetric matrix the largest of 30, in 12 products, to many digits."""
    rng = np.random.default_rng(0)
    vectors = np.linalg.qr(rng.normal(size=(30, 30)))[0]
    values = np.concatenate([[0.9, -0.8, 0.6], np.linspace(-0.2, 0.2, 27)])
    J = jnp.asarray(vectors * values @ vectors.T)
    system = ep.systems.from_drive(
        lambda params, injection, rates: {'u': injection + rates['u'] @ J},
        init=lambda rng, x: {},
        rest=lambda injection: {'u': injection},
        activation='identity',
    )
    x = jnp.zeros((1, 30))
    free = ep.relax(system, {}, x, ep.solvers.relaxation())
    (found,) = ep.analysis.stability.hessenberg(system, {}, x, free, RNG, num_steps=12)
    ritz = np.sort(np.linalg.eigvals(found).real)
    np.testing.assert_allclose([ritz[-1], ritz[0], ritz[-2]], values[:3], rtol=1e-6)
