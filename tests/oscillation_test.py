"""The online estimator against contours at equilibrium, which it tends to."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import zoo
from oracle import estimate, flat, off
from tiers import quick

import eqprop_jax as ep


@functools.cache
def at_rest(animal):
    """The free equilibrium, and N-point estimates there, by `estimators.contour`."""
    known = oracle.of(animal)
    solve = zoo.solver(animal, tol=1e-13)

    @functools.cache
    def point(num_points, radius, correction=None):
        nudge = ep.nudges.circle(radius, num_points)
        contour = ep.estimators.contour(
            known.system, solve, contour=nudge, correction=correction
        )
        return estimate(contour, known)

    return known, point


def online(system, **options):
    return ep.estimators.oscillation(
        system, **{'radius': 0.3, 'num_points': 4, **options}
    )


@pytest.mark.parametrize('num_points', quick([2, 4, 6], [4]))
def test_slowly_the_estimate_is_that_of_the_contour(num_points):
    """The slowness error falls geometrically in the sweeps per point.

    By ρ² a sweep, ρ the spectral radius of synchronous ones: the blocks alternate.
    """
    known, contour = at_rest('tied')
    target = contour(num_points, 0.02)[1]
    lengths = (20, 24, 60) if num_points == 4 else (60,)
    errors = [
        off(
            estimate(
                online(
                    known.system,
                    radius=0.02,
                    num_points=num_points,
                    steps_per_point=steps,
                ),
                known,
            )[1],
            target,
        )
        for steps in lengths
    ]
    assert errors[-1] < 1e-10
    if len(errors) > 1:
        radius = np.abs(np.linalg.eigvals(known.step_matrix(1.0))).max()
        rate = (errors[1] / errors[0]) ** (1 / 4)
        assert rate == pytest.approx(radius**2, rel=0.01)


@pytest.mark.parametrize(
    'animal', quick(['tied', 'loop', 'drive', 'energy'], ['drive'])
)
def test_slowly_the_estimate_is_that_of_the_contour_anywhere(animal):
    known, contour = at_rest(animal)
    patient = online(
        known.system,
        radius=0.03,
        steps_per_point=700 if animal == 'energy' else 200,
        step_size=zoo.ZOO[animal].step_size,
        correction='antisymmetric',
        burn_in=0,
    )
    target = contour(4, 0.03, 'antisymmetric')[1]
    assert off(estimate(patient, known)[1], target) < 1e-9


def test_in_single_precision():
    known, contour = at_rest('free')
    single = jax.tree.map(
        lambda leaf: (
            leaf.astype(jnp.float32)
            if jnp.issubdtype(leaf.dtype, jnp.floating)
            else leaf
        ),
        (known.params, known.batch, known.free),
    )
    found = jax.jit(online(known.system, steps_per_point=40))(*single, None)
    assert found.error['layer_1'].dtype == jnp.float32
    assert off(flat(found.error), contour(4, 0.3)[1]) < 1e-5


def test_corrected_from_the_free_equilibrium_is_the_corrected_contour():
    """Without burn-in the correction refers to s* itself; with it to s* + O(r^N)."""
    known, contour = at_rest('free')
    exact, errors = known.error(adjoint=True), []
    for radius, burn_in in ((0.15, 0), (0.3, 1), (0.15, 1)):
        slow = online(
            known.system,
            radius=radius,
            steps_per_point=60,
            correction='antisymmetric',
            burn_in=burn_in,
        )
        _, error = estimate(slow, known)
        away = off(error, contour(4, 0.15, 'antisymmetric')[1])
        assert (away > 1e-5) if burn_in else (away < 1e-10)
        errors.append(off(error, exact))
    assert errors[2] < 0.01
    assert np.log2(errors[1] / errors[2]) == pytest.approx(4, abs=0.3)


def test_the_mean_of_the_rates_is_the_free_point():
    """s* + O(r^N)."""
    known, _ = at_rest('free')
    rates = flat(known.free.rates)
    errors = []
    for radius in (0.2, 0.1):
        slow = online(known.system, radius=radius, steps_per_point=60)
        start = slow.start(known.params, known.batch.x, known.free.state)
        _, stream = jax.jit(slow.run)(known.params, known.batch, start, None)
        errors.append(off(flat(stream.free), rates))
    assert errors[1] < 1e-2
    assert np.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.3)


def test_from_rest():
    """The free equilibrium has no part in it."""
    known, contour = at_rest('free')
    nowhere = known.free._replace(
        state=jax.tree.map(lambda u: u * jnp.nan, known.free.state)
    )
    rested = online(known.system, steps_per_point=60, from_rest=True)
    found = jax.jit(rested)(known.params, known.batch, nowhere, None)
    assert off(flat(found.error), contour(4, 0.3)[1]) < 1e-10


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'num_points': 1}, 'num_points has to be at least 2'),
        ({'num_points': 0}, 'num_points'),
        ({'radius': 0.0}, 'radius'),
        ({'radius': -0.1}, 'radius'),
        ({'steps_per_point': 0}, 'steps_per_point'),
        ({'periods': 0}, 'periods'),
        ({'burn_in': -1}, 'burn_in'),
        ({'noise': -0.1}, 'noise'),
        ({'noise': float('nan')}, 'noise'),
        ({'correction': 'symmetric'}, 'antisymmetric'),
        ({'order': 'random'}, 'alternating, synchronous'),
        ({'step_size': 0.0}, 'step_size'),
        ({'tol': 0.0}, 'tol'),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        online(zoo.ZOO['free'].make(), **options)


def test_complex_points_are_refused_where_nothing_is_analytic():
    system = zoo.ZOO['free_hard_sigmoid'].make()
    online(system, num_points=2)
    with pytest.raises(ValueError, match='holomorphic.*symmetric'):
        online(system, num_points=4)


def test_a_second_call_does_not_compile():
    """Of `run` in a stream, too: what it returns is what it takes."""
    known, _ = at_rest('free')
    slow = online(known.system, steps_per_point=2, noise=0.01)
    traces = []

    @jax.jit
    def run(params, batch, stream, rng):
        traces.append(1)
        return slow.run(params, batch, stream, rng)

    stream = slow.start(known.params, known.batch.x, known.free.state)
    for seed in range(3):
        found, stream = run(known.params, known.batch, stream, jax.random.key(seed))
    assert len(traces) == 1
    assert np.isfinite(flat(found.error)).all()
