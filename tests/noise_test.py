"""Phases with noise against the covariance of a linear network, in closed form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from tiers import quick

import eqprop_jax as ep

SIGMA, SWEEPS, BATCH = 0.04, 40, 2000
RNG = jax.random.key(7)
INPUT, TARGET = np.array([0.3, -0.2, 0.5, 0.1]), np.array([0.0, 1.0])


@functools.cache
def network():
    """A linear network of four units, the last two of which are read."""
    A = 0.35 * np.random.default_rng(0).normal(size=(4, 4))

    def drive(params, injection, rates):
        s = jnp.concatenate([rates['hidden'], rates['output']], axis=1)
        moved = s @ params['weights'].T + injection
        return {'hidden': moved[:, :2], 'output': moved[:, 2:]}

    system = ep.systems.from_drive(
        drive,
        activation='identity',
        cost='squared_error',
        init=lambda rng, x: {'weights': jnp.asarray(A)},
        inject=lambda params, x: x,
        rest=lambda h: {'hidden': jnp.zeros_like(h[:, :2]), 'output': h[:, 2:] * 0},
    )
    return system, A


def batch_of(count):
    return ep.Batch(*(jnp.tile(v, (count, 1)) for v in (INPUT, TARGET)))


def sweeping(**options):
    return ep.solvers.unrolled(num_steps=SWEEPS, **options)


def estimate(contour, count=BATCH, batch=None, **options):
    """δ of every example, [B, 4]."""
    system, A = network()
    batch = batch or batch_of(count)
    params = {'weights': jnp.asarray(A)}
    free = ep.relax(system, params, batch.x, ep.solvers.relaxation(tol=1e-12))
    run = ep.estimators.contour(
        system, sweeping(), contour=contour, **{'noise': SIGMA} | options
    )
    error = jax.jit(run)(params, batch, free, RNG).error
    return np.concatenate([error['hidden'], error['output']], axis=1)


def phase(beta):
    """Equilibrium under a nudge, and the covariance of what fluctuates about it."""
    read, A = np.diag([0, 0, 1, 1]), network()[1]
    M = A - beta * read
    target = np.concatenate([np.zeros(2), TARGET])
    mean = np.linalg.solve(np.eye(4) - M, INPUT + beta * read @ target)
    powers = [np.linalg.matrix_power(M, k) for k in range(SWEEPS)]
    return mean, SIGMA**2 * sum(power @ power.conj().T for power in powers)


def test_the_covariance_of_one_nudge_is_that_of_both_its_phases():
    for beta in (0.1, 0.4):
        (nudged, K), (free, K0) = phase(beta), phase(0)
        found = estimate(ep.nudges.one_sided(beta))
        covariance = (K + K0) / beta**2
        noise = np.sqrt(np.diag(covariance) / BATCH)
        assert np.all(abs(found.mean(0) - (nudged - free) / beta) < 4 * noise)
        error = np.linalg.norm(np.cov(found.T) - covariance)
        assert error < 0.12 * np.linalg.norm(covariance)


@pytest.mark.parametrize('half_step', quick([False, True], [True]))
def test_every_nudge_of_a_circle_has_noise_of_its_own(half_step):
    contour = ep.nudges.circle(0.4, 4, half_step=half_step)
    covariance, mean = np.zeros((4, 4)), np.zeros(4)
    for beta, weight in zip(contour.points, contour.weights, strict=True):
        nudged, K = phase(beta)
        covariance += abs(weight) ** 2 * K.real
        mean += (weight * nudged).real
    found = estimate(contour)
    noise = np.sqrt(np.diag(covariance) / BATCH)
    assert np.all(abs(found.mean(0) - mean) < 4 * noise)
    error = np.linalg.norm(np.cov(found.T) - covariance)
    assert error < 0.12 * np.linalg.norm(covariance)


@pytest.mark.whole
def test_the_gradient_has_no_bias():
    """With alternating sweeps the noise of neighbours is correlated."""
    system, A = network()
    batch, params = batch_of(BATCH), {'weights': jnp.asarray(A)}
    free = ep.relax(system, params, batch.x, ep.solvers.relaxation(tol=1e-12))

    def gradient(noise, rng=None):
        run = ep.estimators.contour(
            system,
            sweeping(order='alternating'),
            contour=ep.nudges.one_sided(0.1),
            noise=noise,
        )
        return run(params, batch, free, rng).grads['weights']

    keys = jax.random.split(RNG, 8)
    found = np.asarray(jax.lax.map(lambda key: gradient(1.0, key), keys))
    noise = found.std(0, ddof=1) / np.sqrt(len(keys))
    assert np.all(abs(found.mean(0) - gradient(0.0)) < 5 * noise)


def test_draws_belong_to_an_examples_number():
    contour = ep.nudges.symmetric(0.2)
    whole, again = (estimate(contour, 6) for _ in range(2))
    np.testing.assert_array_equal(whole, again)
    rows = jnp.array([4, 1])
    part = estimate(contour, batch=batch_of(2)._replace(rows=rows))
    np.testing.assert_allclose(part, whole[np.array(rows)], rtol=1e-9)
    assert abs(whole - whole[0])[1:].min() > 0
    still = estimate(contour, 6, noise=0.0)
    np.testing.assert_allclose(still, np.tile(still[0], (6, 1)), rtol=1e-9)


@pytest.mark.whole
@pytest.mark.parametrize('half_step', [False, True])
def test_nudges_that_devices_divide_have_the_same_noise(half_step):
    system, A = network()
    batch, params = batch_of(3), {'weights': jnp.asarray(A)}
    free = ep.relax(system, params, batch.x, ep.solvers.relaxation(tol=1e-12))
    contour = ep.nudges.circle(0.3, 6, half_step=half_step)
    make = functools.partial(
        ep.estimators.contour, system, sweeping(), contour=contour, noise=SIGMA
    )
    run = jax.shard_map(
        lambda: make(axis_name='contour')(params, batch, free, RNG).error,
        mesh=jax.make_mesh((2,), ('contour',)),
        in_specs=(),
        out_specs=P(),
        check_vma=False,
    )
    found, wanted = jax.jit(run)(), make()(params, batch, free, RNG).error
    for name, error in wanted.items():
        np.testing.assert_allclose(found[name], error, rtol=1e-9)


@pytest.mark.parametrize(
    'solve', [ep.solvers.relaxation(), ep.solvers.anderson()], ids=['plain', 'mixing']
)
def test_what_ends_at_a_tolerance_is_refused(solve):
    system, A = network()
    batch, params = batch_of(2), {'weights': jnp.asarray(A)}
    free = ep.relax(system, params, batch.x, solve)
    run = ep.estimators.contour(
        system, solve, contour=ep.nudges.symmetric(0.1), noise=0.1
    )
    with pytest.raises(ValueError, match='nothing settles to a tolerance'):
        run(params, batch, free, RNG)
    with pytest.raises(ValueError, match='needs a key'):
        run(params, batch, free, None)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'noise': -0.1}, 'negative'),
        ({'noise': float('inf')}, 'finite'),
        ({'noise': 0.1, 'skip_unconverged': True}, 'skip_unconverged'),
    ],
)
def test_noise_that_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ep.estimators.contour(
            network()[0], sweeping(), contour=ep.nudges.symmetric(0.1), **options
        )
