"""Paired weights: angles in numpy, and the laws by which Kolen–Pollack aligns them."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from tiers import quick

import eqprop_jax as ep
from eqprop_jax.training import optimizers

RNG = jax.random.key(11)
RATE, DECAY, MOMENTUM = 0.1, 0.3, 0.7
PAIRS = [('layer_2', 'layer_1'), ('layer_3', 'layer_2'), ('layer_4', 'layer_3')]


def differences(params, pairs=PAIRS):
    """W − Bᵀ of every pair that a chain of untied layers has."""
    return [
        np.asarray(params[above]['kernel']) - np.asarray(params[below]['feedback']).T
        for above, below in pairs
    ]


@functools.cache
def trained(
    name,
    num_steps,
    *,
    animal='free_deep',
    shared=True,
    momentum=0.0,
    decay=DECAY,
    rate=RATE,
):
    """W − Bᵀ before and after every step of EP on one batch, [T + 1] lists."""
    system, params, batch = zoo.setting(animal)
    solve = zoo.solver(animal, tol=1e-6)
    estimate = ep.estimators.contour(system, solve, contour=ep.nudges.symmetric(0.5))
    optimizer = optimizers.make(
        name,
        learning_rate=rate,
        num_steps=num_steps,
        weight_decay=decay,
        momentum=momentum,
    )

    @jax.jit
    def step(params, memory):
        free = ep.relax(system, params, batch.x, solve)
        grads = estimate(params, batch, free, None).grads
        if shared:
            grads = ep.alignment.kolen_pollack(system, grads)
        updates, memory = optimizer.update(grads, memory, params)
        return jax.tree.map(jnp.add, params, updates), memory

    memory, ends = optimizer.init(params), [params]
    for _ in range(num_steps):
        params, memory = step(params, memory)
        ends.append(params)
    return system, ends


def worst(ends, law, pairs=PAIRS):
    """The largest |W − Bᵀ − law_t (W − Bᵀ)₀| over steps and pairs, relative."""
    first = differences(ends[0], pairs)
    return max(
        np.abs(now - law[t] * then).max() / np.abs(then).max()
        for t, params in enumerate(ends)
        for now, then in zip(differences(params, pairs), first, strict=True)
    )


@pytest.mark.parametrize('name', quick(['sgd', 'adamw'], ['sgd']))
def test_the_closed_law(name):
    """W − Bᵀ after t steps is (1 − ηλ)^t of what it was, whatever the gradients."""
    _, ends = trained(name, 12)
    law = (1 - RATE * DECAY) ** np.arange(13)
    assert worst(ends, law) < 1e-12
    moved = [
        np.abs(ends[-1][above]['kernel'] - law[-1] * ends[0][above]['kernel']).max()
        for above, _ in PAIRS
    ]
    assert min(moved) > 1e-3  # the weights themselves have learned


def test_the_law_with_momentum():
    """D_{t+1} = (1 + μ − ηλ) D_t − μ D_{t−1}, from rest."""
    _, ends = trained('sgd', 12, momentum=MOMENTUM)
    law = [1.0, 1.0]
    for _ in range(12):
        law.append((1 + MOMENTUM - RATE * DECAY) * law[-1] - MOMENTUM * law[-2])
    assert worst(ends, law[1:]) < 1e-12


@pytest.mark.whole
def test_what_breaks_the_law():
    """Gradients of their own, or a decay that Adam rescales unit by unit."""
    law = (1 - RATE * DECAY) ** np.arange(13)
    assert worst(trained('sgd', 12, shared=False)[1], law) > 1e-3
    assert worst(trained('adam', 12)[1], law) > 1e-3
    assert worst(trained('sgd', 12, decay=0.0)[1], np.ones(13)) < 1e-12


def test_the_angle_dies_out():
    """Where the gradients keep the weights themselves alive."""
    system, ends = trained('sgd', 500, animal='free', rate=2.0, decay=0.005)
    first, last = (ep.alignment.overall_angle(system, ends[at]) for at in (0, -1))
    assert first > 60
    assert last < 2
    assert worst(ends, 0.99 ** np.arange(501), PAIRS[:1]) < 1e-12


@pytest.mark.parametrize('transpose', [True, False])
def test_shared_gradients_are_sums_of_both(transpose):
    """Whichever way the feedback is stored; what has no partner stays as it is."""
    pair = (('up', 'w'), ('down', 'w'), transpose)
    system = zoo.ZOO['free'].make()._replace(pairs=(pair,))
    shape = (3, 5) if transpose else (5, 3)
    grads = {
        'up': {'w': jnp.arange(15.0).reshape(5, 3), 'b': jnp.ones(3)},
        'down': {'w': jax.random.normal(RNG, shape)},
    }
    kept = jax.tree.map(np.array, grads)
    up, down = kept['up']['w'], kept['down']['w']
    total = up + (down.T if transpose else down)
    found = ep.alignment.kolen_pollack(system, grads)
    np.testing.assert_array_equal(found['up']['w'], total)
    np.testing.assert_array_equal(found['down']['w'], total.T if transpose else total)
    np.testing.assert_array_equal(found['up']['b'], 1)
    jax.tree.map(np.testing.assert_array_equal, grads, kept)


def test_angles_are_those_of_numpy():
    system, params, _ = zoo.setting('free_deep')
    sides = [
        (np.asarray(params[above]['kernel']).T, np.asarray(params[below]['feedback']))
        for above, below in PAIRS
    ]

    def degrees(a, b):
        cosine = np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)
        return np.degrees(np.arccos(cosine))

    exact = {
        f'{below}/feedback': degrees(*side)
        for (_, below), side in zip(PAIRS, sides, strict=True)
    }
    assert ep.alignment.angles(system, params) == pytest.approx(exact, rel=1e-9)
    forward, feedback = (
        np.concatenate([np.ravel(side[index]) for side in sides]) for index in (0, 1)
    )
    overall = degrees(forward, feedback)
    assert ep.alignment.overall_angle(system, params) == pytest.approx(overall)
    params['layer_1']['feedback'] = 5 * params['layer_1']['feedback']
    weighed = degrees(
        forward, np.where(np.arange(feedback.size) < sides[0][0].size, 5, 1) * feedback
    )
    assert ep.alignment.overall_angle(system, params) == pytest.approx(weighed)
    assert abs(weighed - overall) > 0.1


def test_rotation_of_a_whole_system():
    system, params, _ = zoo.setting('free_deep')
    turned = ep.alignment.rotate_feedback(system, params, RNG, 25.0)
    for angle in ep.alignment.angles(system, turned).values():
        assert angle == pytest.approx(25.0)
    assert ep.alignment.overall_angle(system, turned) == pytest.approx(25.0)
    assert jnp.array_equal(turned['layer_2']['kernel'], params['layer_2']['kernel'])


@pytest.mark.parametrize('animal', ['tied', 'loop', 'feedforward', 'one_layer'])
def test_refused_without_pairs(animal):
    system, params, _ = zoo.setting(animal)
    for action in (
        lambda: ep.alignment.kolen_pollack(system, params),
        lambda: ep.alignment.overall_angle(system, params),
        lambda: ep.alignment.rotate_feedback(system, params, RNG, 25.0),
    ):
        with pytest.raises(ValueError, match='no paired weights.*feedback="free"'):
            action()
    assert ep.alignment.angles(system, params) == {}


class Two(NamedTuple):
    forward: jax.Array
    back: jax.Array


@pytest.mark.parametrize(
    ('make', 'names'),
    [
        (lambda a, b: [a, b], (0, 1)),
        (lambda a, b: (a, b), (0, -1)),
        (Two, ('forward', 'back')),
        (Two, (0, 1)),
        (lambda a, b: {'one': (a,), 'two': Two(a, b)}, (('one', 0), ('two', 'back'))),
    ],
)
def test_params_may_be_any_tree(make, names):
    w, b = jnp.arange(6.0).reshape(2, 3), jnp.ones((3, 2))
    paths = [name if isinstance(name, tuple) else (name,) for name in names]
    pairs = ((*paths, True),)
    system = zoo.ZOO['free'].make()._replace(pairs=pairs)
    shared = ep.alignment.kolen_pollack(system, make(w, b))
    assert jax.tree.structure(shared) == jax.tree.structure(make(w, b))
    for path, wanted in zip(paths, (w + b.T, w.T + b), strict=True):
        np.testing.assert_array_equal(ep.tree.get(shared, path), wanted)
    (found,) = ep.alignment.angles(system, make(w, b)).values()
    cosine = np.sum(w * b.T) / np.linalg.norm(w) / np.linalg.norm(b)
    np.testing.assert_allclose(found, np.degrees(np.arccos(cosine)))
    turned = ep.alignment.rotate_feedback(system, make(w, b), jax.random.key(0), 0.0)
    np.testing.assert_allclose(ep.tree.get(turned, paths[1]), w.T)
