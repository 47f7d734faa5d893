"""The check of a circle's radius, where the radius of analyticity is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqprop_jax as ep
from eqprop_jax.analysis import disc
from eqprop_jax.analysis.methods import contour_method

A = 1.7  # the pole of u(β) = (x + βy)/(a + β) is at −a
X = jnp.array([[0.3, -1.2], [2.0, 0.7]])
Y = jnp.eye(2)
SOLVE = ep.solvers.relaxation(step_size=0.5, tol=1e-13, max_steps=500)


def pole():
    """F = −a u + x and C = ½ |u − y|²: system, params and batch."""
    system = ep.systems.from_drive(
        lambda params, x, rates: {'u': x + (1 - params['a']) * rates['u']},
        init=lambda rng, x: {'a': jnp.asarray(A)},
        rest=lambda x: {'u': jnp.zeros_like(x)},
        activation='identity',
    )
    return system, {'a': jnp.asarray(A)}, ep.Batch(X, Y)


@pytest.mark.typed
@pytest.mark.parametrize('correction', [None, 'antisymmetric'])
@pytest.mark.parametrize('num_points', [4, 6, 8])
def test_of_a_pole(num_points, correction):
    """Sums are the derivative over 1 − (−r/a)^N: d = (r/a)^{N/2}, and the error d²."""
    system, params, batch = pole()
    free = ep.relax(system, params, X, SOLVE)
    radius = 0.9
    found = disc.check(
        system,
        params,
        batch,
        free,
        SOLVE,
        ep.nudges.circle(radius, num_points),
        correction,
    )
    wanted = (radius / A) ** (num_points / 2)
    np.testing.assert_allclose(found.difference, [wanted] * 2, rtol=1e-9)
    np.testing.assert_allclose(found.error, [wanted**2] * 2, rtol=1e-9)


@pytest.mark.parametrize('num_points', [4, 6, 8, 10])
def test_half_a_circle(num_points):
    """All of N/2 powers of β up to the first that the smaller circle mistakes."""
    contour = ep.nudges.circle(0.5, num_points)
    indices, weights = ep.nudges.halved(contour)
    for power in range(num_points // 2 + 2):
        sum_ = np.sum(np.real(weights * contour.points[indices] ** power))
        wanted = {1: 1.0, num_points // 2 + 1: 0.5 ** (num_points // 2)}.get(power, 0)
        assert sum_ == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(
    'contour',
    [
        ep.nudges.one_sided(0.1),
        ep.nudges.symmetric(0.1),
        ep.nudges.complex_step(0.1),
        ep.nudges.circle(0.1, 5),
        ep.nudges.circle(0.1, 4, half_step=True),
    ],
)
def test_others_have_no_half(contour):
    assert ep.nudges.halved(contour) is None
    system, params, batch = pole()
    free = ep.relax(system, params, X, SOLVE)
    with pytest.raises(ValueError, match='only a circle of 4'):
        disc.check(system, params, batch, free, SOLVE, contour)


@pytest.mark.parametrize(('radius', 'beyond'), [(0.1, 0.0), (0.9, 1.0)])
def test_the_report_says_so(radius, beyond):
    system, params, batch = pole()
    made = {
        str(count): contour_method(
            system, SOLVE, contour=ep.nudges.circle(radius, count)
        )
        for count in (2, 4)
    }
    found = ep.analysis.bias(system, params, batch, SOLVE, methods=made).methods
    assert found['2'].disc is None
    d = pytest.approx((radius / A) ** 2, rel=1e-9)
    assert found['4'].disc == {'median': d, 'largest': d, 'beyond': beyond}
    assert ('take a smaller one' in found['4'].sentence) == bool(beyond)


@pytest.mark.whole
def test_a_settled_example_on_another_branch():
    """All phases settle; one example is far off, and twice the points are no help."""
    system = ep.systems.mlp((6, 5, 4, 3), feedback='tied')
    x = jax.random.normal(jax.random.key(0), (64, 6))
    params = system.init(jax.random.key(100), x)
    batch = ep.Batch(x, jax.nn.one_hot(jnp.arange(64) % 3, 3))
    solve = ep.solvers.relaxation(tol=1e-9, max_steps=5000)
    free = ep.relax(system, params, x, solve)
    exact = ep.estimators.recurrent_backprop(system, tol=1e-9, max_steps=5000)
    wanted = exact(params, batch, free, None).error
    for count in (4, 8):
        contour = ep.nudges.circle(0.1, count)
        estimate = ep.estimators.contour(system, solve, contour=contour)
        _, error, info = jax.jit(estimate)(params, batch, free, None)
        assert info.converged == 1
        off = ep.tree.per_example_norm(ep.tree.sub(error, wanted))
        off /= ep.tree.per_example_norm(wanted)
        assert off.max() > 0.15
        found = disc.check(system, params, batch, free, solve, contour)
        worst = int(off.argmax())
        assert found.difference[worst] > disc.CLOSE
        assert jnp.median(found.difference) < 0.01
