"""A batch may be divided: its parts, filled up, have the gradient of the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs
import zoo
from conformance_test import CORRECTED, contour

import eqprop_jax as ep

pytestmark = pytest.mark.whole

NOISE = {'radius': 0.01, 'num_points': 4, 'steps_per_point': 20, 'noise': 0.1}
SKIP = {'skip_unconverged': True}
ESTIMATORS = {
    'contour': contour(ep.nudges.circle(0.01, 4), **CORRECTED),
    'random_sign': contour(ep.nudges.random_sign(1e-3), **SKIP),
    'contrastive': lambda system, solve, _: ep.estimators.contrastive(
        system, solve, contour=ep.nudges.circle(0.01, 4)
    ),
    'oscillation': lambda system, *_: ep.estimators.oscillation(system, **NOISE),
    'oscillation_real': lambda system, *_: ep.estimators.oscillation(
        system, **NOISE | {'num_points': 2}
    ),
    'bptt': lambda system, *_: ep.estimators.bptt(system, num_steps=5),
    'tangent': lambda system, *_: ep.estimators.tangent(system),
    'recurrent_backprop': lambda system, *_: ep.estimators.recurrent_backprop(
        system, **SKIP
    ),
}
# The second part is one example and two copies of it; the third holds none.
PARTS = ((0, 1, 2), (3, 3, 3), (1, 2, 3))
ROWS = ((0, 1, 2), (3, -1, -1), (-1, -1, -1))


def parts(batch):
    """Yields the parts of a batch of four, and which examples are in them."""
    for positions, rows in zip(PARTS, ROWS, strict=True):
        which = jnp.array(positions)
        part = ep.Batch(batch.x[which], batch.y[which], jnp.array(rows))
        yield part, which


def together(estimates, batch):
    """Returns the mean gradient, each part with the share of what it counts."""
    counts = [
        float(jnp.sum(part.counted)) * (1 - float(estimate.info.skipped))
        for estimate, (part, _) in zip(estimates, parts(batch), strict=True)
    ]
    scaled = [
        ep.tree.scale(count / sum(counts), estimate.grads)
        for count, estimate in zip(counts, estimates, strict=True)
    ]
    return jax.tree.map(lambda *leaves: sum(leaves), *scaled)


def assert_close(actual, wanted, rtol=1e-9):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-12),
        actual,
        wanted,
    )


@pytest.mark.parametrize('name', ESTIMATORS)
def test_parts_have_the_gradient_of_the_whole(name):
    animal = 'tied' if name == 'contrastive' else 'free'
    system, params, batch = zoo.setting(animal)
    solve, rng = zoo.solver(animal), jax.random.key(3)
    free = ep.relax(system, params, batch.x, solve)
    if name in ('random_sign', 'recurrent_backprop'):  # they leave examples out
        free = free._replace(converged=jnp.array([True, False, True, True]))
    estimate = ESTIMATORS[name](system, solve, 1.0)
    whole = estimate(params, batch, free, rng)
    found = [
        estimate(params, part, ep.tree.take(free, which), rng)
        for part, which in parts(batch)
    ]
    assert_close(together(found, batch), whole.grads)
    for (part, which), one in zip(parts(batch), found, strict=True):
        counted = part.counted
        own = ep.tree.select(counted, one.error, ep.tree.zeros_like(one.error))
        wanted = ep.tree.take(whole.error, which)
        wanted = ep.tree.select(counted, wanted, ep.tree.zeros_like(wanted))
        assert_close(own, wanted)
    shares = [float(jnp.sum(part.counted)) / 4 for part, _ in parts(batch)]
    for fraction in ('converged', 'skipped'):
        pieces = [float(getattr(one.info, fraction)) for one in found]
        np.testing.assert_allclose(
            np.dot(shares, pieces), getattr(whole.info, fraction), rtol=1e-12
        )


def test_what_fillers_hold_has_no_influence():
    system, params, batch = zoo.setting('free')
    solve, rng = zoo.solver('free'), jax.random.key(3)
    x = jnp.concatenate([batch.x, jnp.full_like(batch.x[:1], jnp.nan)])
    y = jnp.concatenate([batch.y, batch.y[:1]])
    filled = ep.Batch(x, y, jnp.array([0, 1, 2, 3, -1]))
    penalty = jax.grad(ep.homeostasis.penalty(system))
    for make in (ESTIMATORS['contour'], ESTIMATORS['recurrent_backprop']):
        estimate = make(system, solve, 1.0)
        found, wanted = (
            estimate(params, one, ep.relax(system, params, one.x, solve), rng).grads
            for one in (filled, batch)
        )
        assert_close(found, wanted)
    found, wanted = (
        penalty(params, one, ep.relax(system, params, one.x, solve), rng)
        for one in (filled, batch)
    )
    assert_close(found, wanted)


def test_dropout_and_noise_know_an_example_by_its_number():
    system = ep.systems.conv((4, 4, 2), (3,), classes=3, dropout=0.5)
    key = jax.random.key(0)
    scores = []
    for numbers in ([0, 1, 2, 3], [2, 3]):
        numbers = jnp.array(numbers)
        thin = system.thin(key, numbers)
        x = jax.random.uniform(jax.random.key(1), (4, 4, 4, 2))[numbers]
        params = system.init(jax.random.key(2), x)
        free = ep.relax(system, params, x, ep.solvers.relaxation(tol=1e-10))
        scores.append(thin.predict(params, free.rates))
    np.testing.assert_allclose(scores[0][2:], scores[1], rtol=1e-9)


def test_augmentation_knows_an_image_by_its_number():
    augment = ep.data.augmentation(pad=2, flip=True)
    images = jax.random.randint(jax.random.key(1), (6, 8, 8, 1), 0, 255)
    images = images.astype(jnp.uint8)
    which = jnp.array([4, 1])
    whole = augment(jax.random.key(0), images)
    part = augment(jax.random.key(0), images[which], which)
    runs.assert_equal(part, whole[which])
