"""Leaky integrators against loops in numpy: Euler steps, rates and the rule of 2018."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import zoo

import eqprop_jax as ep

SIZES = (7, 6, 5, 3)
EPSILON = 0.4


@functools.cache
def network(scale=1.0, angle=None):
    """A network with biases and a batch; names in the order of its layers."""
    system = ep.systems.leaky(SIZES, angle=angle)
    keys = jax.random.split(jax.random.key(5), 3)
    x = jax.random.uniform(keys[0], (4, SIZES[0]))
    batch = ep.Batch(x, jax.nn.one_hot(jnp.arange(4) % 3, 3, dtype=x.dtype))
    params = system.init(keys[1], x)
    noise = ep.tree.random_normal(keys[2], params)
    params = jax.tree.map(
        lambda w, v: scale * w if w.ndim > 1 else 0.2 * v, params, noise
    )
    return system, params, batch


def received(params, x, s):
    """What each layer gets from below and from above."""
    weights = [{k: np.asarray(v) for k, v in own.items()} for own in params.values()]
    below = [x, *s[:-1]]
    drive = [
        b @ own['kernel'] + own['bias'] for b, own in zip(below, weights, strict=True)
    ]
    for index in range(len(s) - 1):
        drive[index] = drive[index] + s[index + 1] @ weights[index]['feedback']
    return drive


def euler(params, batch, start, num_steps, beta=0.0):
    """Clipped steps, all layers at once; the last is pulled towards its target."""
    x, y, u = np.asarray(batch.x), np.asarray(batch.y), [np.asarray(v) for v in start]
    for _ in range(num_steps):
        s = [np.clip(v, 0, 1) for v in u]
        drive = received(params, x, s)
        drive[-1] = drive[-1] - beta * (s[-1] - y)
        u = [
            np.clip(v + EPSILON * (d - v), 0, 1) for v, d in zip(u, drive, strict=True)
        ]
    return u


def solver(num_steps, *, clip=(0.0, 1.0), order='synchronous', tol=1e-300):
    return ep.solvers.relaxation(
        order=order, step_size=EPSILON, clip=clip, tol=tol, max_steps=num_steps
    )


@pytest.mark.parametrize('num_steps', [1, 7, 200])
def test_relaxation_is_clipped_euler(num_steps):
    system, params, batch = network(scale=1.5)
    free = ep.relax(system, params, batch.x, solver(num_steps))
    rest = [np.zeros((4, n)) for n in SIZES[1:]]
    expected = euler(params, batch, rest, num_steps)
    for found, u in zip(free.state.values(), expected, strict=True):
        np.testing.assert_allclose(found, u, atol=1e-12)
    bounded = np.mean([np.mean((u == 0) | (u == 1)) for u in expected])
    assert 0.05 < bounded < 0.95


def test_clipping_changes_no_rate():
    system, params, batch = network(scale=1.5)
    clipped, loose = (
        ep.relax(
            system,
            params,
            batch.x,
            solver(3000, clip=clip, order='alternating', tol=1e-14),
        )
        for clip in ((0.0, 1.0), None)
    )
    outside = [jnp.any((u < 0) | (u > 1)) for u in loose.state.values()]
    assert any(outside)
    for name, rates in clipped.rates.items():
        assert clipped.state[name].min() >= 0
        assert clipped.state[name].max() <= 1
        np.testing.assert_allclose(rates, loose.rates[name], atol=1e-12)


def test_the_update_is_the_rule_of_2018():
    """Δu/β outer ρ(u*), both phases by numpy; the exact sign too."""
    system, params, batch = network()
    beta, steps = 0.3, 2000
    free = ep.relax(system, params, batch.x, solver(steps))
    estimate = ep.estimators.contour(
        system, solver(steps), contour=ep.nudges.one_sided(beta)
    )
    grads = jax.jit(estimate)(params, batch, free, None).grads
    rest = [np.zeros((4, n)) for n in SIZES[1:]]
    u = euler(params, batch, rest, steps)
    moved = euler(params, batch, u, steps, beta)
    s = [np.asarray(batch.x), *u]
    for index, own in enumerate(grads.values()):
        rise = (moved[index] - u[index]) / beta
        update = {
            'kernel': s[index].T @ rise / 4,
            'bias': rise.mean(axis=0),
            'feedback': None if index == 2 else s[index + 2].T @ rise / 4,
        }
        for name, gradient in own.items():
            np.testing.assert_allclose(-gradient, update[name], atol=1e-11)
            assert np.abs(update[name]).max() > 1e-3


def test_weights_are_those_of_glorot():
    """Uniform within ±√(6 / (m + n)), forward and backward drawn independently."""
    system = ep.systems.leaky((80, 60, 50, 30))
    params = system.init(jax.random.key(2), jnp.ones((1, 80)))
    for own in params.values():
        for name in set(own) - {'bias'}:
            w = np.asarray(own[name])
            bound = np.sqrt(6 / sum(w.shape))
            assert np.abs(w).max() <= bound
            assert np.abs(w).max() > 0.98 * bound
            assert w.std() == pytest.approx(bound / np.sqrt(3), rel=0.03)
        np.testing.assert_array_equal(own['bias'], 0)
    assert params['layer_1']['feedback'].shape == (50, 60)
    for _, angle in ep.alignment.angles(system, params).items():
        assert angle == pytest.approx(90, abs=5)
    turned = ep.systems.leaky((8, 60, 50, 3), angle=30.0)
    params = turned.init(jax.random.key(2), jnp.ones((1, 8)))
    W, B = params['layer_2']['kernel'], params['layer_1']['feedback']
    cosine = np.sum(np.asarray(W).T * B) / np.linalg.norm(W) / np.linalg.norm(B)
    assert cosine == pytest.approx(np.cos(np.pi / 6), abs=1e-9)


@pytest.mark.parametrize('angle', [None, 40.0])
def test_the_scale_of_forward_weights_leaves_the_others(angle):
    x = jnp.ones((1, SIZES[0]))
    whole, scaled = (
        ep.systems.leaky(SIZES, angle=angle, forward_scale=scale).init(
            jax.random.key(0), x
        )
        for scale in (1.0, 0.25)
    )
    for name in ('layer_2', 'layer_3'):
        whole[name]['kernel'] *= 0.25
    chex.assert_trees_all_equal(scaled, whole)
    for scale in (0.0, -1.0, float('nan')):
        with pytest.raises(ValueError, match='forward_scale has to be positive'):
            ep.systems.leaky(SIZES, forward_scale=scale)


def test_corrected_gradients_are_those_of_central_differences():
    """Away from the kinks: no unit comes near a bound on the way."""
    known = oracle.settle(*network(), step_size=0.5)
    near = [jnp.minimum(abs(u), abs(u - 1)).min() for u in known.free.state.values()]
    assert min(near) > 1e-3
    solve = ep.solvers.relaxation(step_size=0.5, tol=1e-14, max_steps=5000)

    @jax.jit
    def cost(t, direction):
        params = jax.tree.map(lambda w, d: w + t * d, known.params, direction)
        free = ep.relax(known.system, params, known.batch.x, solve)
        return jnp.mean(known.system.cost(params, free.rates, known.batch.y))

    nudge = ep.nudges.symmetric(1e-3)
    errors = {}
    for correction in (None, 'antisymmetric', 'adjoint'):
        estimate = ep.estimators.contour(
            known.system, solve, contour=nudge, correction=correction
        )
        grads = jax.jit(estimate)(known.params, known.batch, known.free, None).grads
        errors[correction] = []
        for key in jax.random.split(jax.random.key(1), 3):
            direction = ep.tree.random_normal(key, known.params)
            slope = (cost(1e-5, direction) - cost(-1e-5, direction)) / 2e-5
            off = abs(ep.tree.vdot(direction, grads) / slope - 1)
            errors[correction].append(float(off))
    assert max(errors['antisymmetric']) < 1e-5
    assert max(errors['adjoint']) < 1e-5
    assert max(errors[None]) > 1e-2


def test_the_outputs_are_the_classes():
    system, params, batch = zoo.setting('leaky')
    free = ep.relax(system, params, batch.x, zoo.solver('leaky'))
    scores = system.predict(params, free.rates)
    np.testing.assert_array_equal(scores, free.rates['layer_3'])
    half = np.sum((np.asarray(scores) - np.asarray(batch.y)) ** 2, axis=1) / 2
    np.testing.assert_allclose(system.cost(params, free.rates, batch.y), half)
    assert 'readout' not in params


def test_complex_nudges_are_refused():
    system, solve = ep.systems.leaky(SIZES), ep.solvers.relaxation()
    with pytest.raises(ValueError, match='not holomorphic.*symmetric'):
        ep.estimators.contour(system, solve, contour=ep.nudges.complex_step())
    with pytest.raises(ValueError, match='180'):
        ep.systems.leaky(SIZES, angle=200.0)
    with pytest.raises(ValueError, match='no layer that settles'):
        ep.systems.leaky((7,))
    with pytest.raises(ValueError, match='positive integers'):
        ep.systems.leaky((7, 0, 3))
