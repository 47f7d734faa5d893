"""Gradients against central differences and closed forms; orders of convergence."""

import chex
import jax
import jax.numpy as jnp
import lineax
import numpy as np
import pytest
import zoo
from tiers import quick, whole

import eqprop_jax as ep
from eqprop_jax.estimators._local_rule import Outcome, account

RNG = jax.random.key(0)
TOL = 1e-14


def free_phase(system, params, x, solve):
    return jax.jit(lambda params, x: ep.relax(system, params, x, solve))(params, x)


def settings(cost):
    """An untied network, its batch, and a solver as tight as float64 allows."""
    system = ep.systems.mlp((6, 7, 5, 4, 3), feedback='free', cost=cost)
    x_key, init_key = jax.random.split(jax.random.key(7))
    x = jax.random.uniform(x_key, (5, 6))
    y = jax.nn.one_hot(jnp.arange(5) % 3, 3, dtype=x.dtype)
    solve = ep.solvers.relaxation(tol=TOL, max_steps=1000)
    return system, system.init(init_key, x), ep.Batch(x, y), solve


def central_differences(system, params, batch, solve, directions, step=1e-4):
    """Fourth-order central differences of the mean cost at the equilibrium."""

    @jax.jit
    def cost(t, direction):
        moved = jax.tree.map(lambda w, d: w + t * d, params, direction)
        free = ep.relax(system, moved, batch.x, solve)
        return jnp.mean(system.cost(moved, free.rates, batch.y))

    for v in directions:
        one = cost(step, v) - cost(-step, v)
        two = cost(2 * step, v) - cost(-2 * step, v)
        yield (8 * one - two) / (12 * step)


def gradient_errors(cost, estimators, num_directions=4):
    """Relative errors of <grads, direction> to central differences, the largest."""
    system, params, batch, solve = settings(cost)
    free = free_phase(system, params, batch.x, solve)
    grads = {
        name: jax.jit(make(system, solve))(params, batch, free, RNG).grads
        for name, make in estimators.items()
    }
    errors = dict.fromkeys(estimators, 0.0)
    keys = jax.random.split(jax.random.key(1), num_directions)
    directions = [ep.tree.random_normal(key, params) for key in keys]
    slopes = central_differences(system, params, batch, solve, directions)
    for direction, exact in zip(directions, slopes, strict=True):
        for name, gradient in grads.items():
            off = abs(ep.tree.vdot(gradient, direction) - exact) / abs(exact)
            errors[name] = max(errors[name], float(off))
    return errors


def corrected(nudge):
    return lambda system, solve: ep.estimators.contour(
        system, solve, contour=nudge, correction='antisymmetric'
    )


def plain(nudge):
    return lambda system, solve: ep.estimators.contour(system, solve, contour=nudge)


@pytest.mark.parametrize(
    'cost', quick(['cross_entropy', 'squared_error'], ['cross_entropy'])
)
def test_gradients_are_those_of_central_differences(cost):
    errors = gradient_errors(
        cost,
        {
            'rbp': lambda system, _: ep.estimators.recurrent_backprop(
                system, tol=TOL, max_steps=1000
            ),
            'circle': corrected(ep.nudges.circle(0.1, 8)),
            'complex_step': corrected(ep.nudges.complex_step(1e-5)),
            'plain': plain(ep.nudges.circle(0.1, 8)),
        },
    )
    assert errors['rbp'] < 1e-8
    assert errors['circle'] < 1e-4
    assert errors['complex_step'] < 1e-7
    assert errors['plain'] > 0.05


def error_against_radius(system, params, batch, solve, make, radii, **options):
    """Relative distance of δ to that of recurrent backprop, for every radius."""
    free = free_phase(system, params, batch.x, solve)
    exact = ep.estimators.recurrent_backprop(system, tol=TOL, max_steps=1000)
    delta = jax.jit(exact)(params, batch, free, RNG).error
    errors = []
    for radius in radii:
        estimate = ep.estimators.contour(system, solve, contour=make(radius), **options)
        found = jax.jit(estimate)(params, batch, free, RNG).error
        errors.append(ep.tree.norm(ep.tree.sub(found, delta)) / ep.tree.norm(delta))
    return np.array(errors)


@pytest.mark.parametrize(
    ('order', 'make', 'radii'),
    [
        (1, ep.nudges.one_sided, (0.02, 0.01)),
        (2, ep.nudges.symmetric, (0.02, 0.01)),
        (4, lambda r: ep.nudges.circle(r, 4), (0.1, 0.05)),
        whole((4, lambda r: ep.nudges.circle(r, 4, half_step=True), (0.1, 0.05))),
        whole((6, lambda r: ep.nudges.circle(r, 6), (0.2, 0.1))),
        whole((3, lambda r: ep.nudges.circle(r, 3), (0.1, 0.05))),
        whole((2, ep.nudges.complex_step, (0.02, 0.01))),
    ],
)
def test_order_of_the_finite_nudge(order, make, radii):
    setting = settings('squared_error')
    errors = error_against_radius(*setting, make, radii, correction='antisymmetric')
    slope = np.log(errors[0] / errors[1]) / np.log(radii[0] / radii[1])
    assert abs(slope - order) < 0.1


def test_random_signs_average_to_the_symmetric_estimate():
    system, params, batch, solve = settings('cross_entropy')
    free = free_phase(system, params, batch.x, solve)
    draw = jax.jit(plain(ep.nudges.random_sign(0.3))(system, solve))
    symmetric = jax.jit(plain(ep.nudges.symmetric(0.3))(system, solve))
    found = {}
    for seed in range(12):
        grads = draw(params, batch, free, jax.random.key(seed)).grads
        found[float(ep.tree.norm(grads))] = grads
    assert len(found) == 2  # the two signs, and nothing else
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *found.values())
    target = symmetric(params, batch, free, RNG).grads
    assert ep.tree.norm(ep.tree.sub(mean, target)) < 1e-12


@pytest.mark.parametrize('num_points', quick([1, 2, 3, 4, 8], [1, 3, 4]))
@pytest.mark.parametrize('half_step', [False, True])
def test_closed_form_of_a_linear_system(num_points, half_step):
    """F = −a u + x and C = ½ (u − y)²: u(β) = (x + βy)/(a + β).

    The derivative at 0 is (y − x/a)/a, and the N-point contour's mean of it is that
    divided by 1 − (−r/a)^N, or by 1 + (−r/a)^N for the points turned by half a step.
    """
    a, radius = 1.7, 0.9

    def drive(params, injection, rates):
        return {'u': injection + (1 - params['a']) * rates['u']}

    system = ep.systems.from_drive(
        drive,
        init=lambda rng, x: {'a': jnp.asarray(a)},
        rest=lambda injection: {'u': jnp.zeros_like(injection)},
        activation='identity',
    )
    x = jnp.array([[0.3, -1.2], [2.0, 0.7]])
    y = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    params, batch = {'a': jnp.asarray(a)}, ep.Batch(x, y)
    solve = ep.solvers.relaxation(step_size=0.5, tol=1e-15, max_steps=500)
    free = free_phase(system, params, x, solve)
    np.testing.assert_allclose(free.state['u'], x / a, rtol=1e-13)
    nudge = ep.nudges.circle(radius, num_points, half_step=half_step)
    for correction in (None, 'antisymmetric'):
        estimate = ep.estimators.contour(
            system, solve, contour=nudge, correction=correction
        )
        grads, error, info = jax.jit(estimate)(params, batch, free, RNG)
        sign = -1 if half_step else 1
        factor = 1 / (1 - sign * (-radius / a) ** num_points)
        exact = (y - x / a) / a
        np.testing.assert_allclose(error['u'], exact * factor, rtol=1e-12)
        # dC/da of ½ |x/a − y|², the mean over the batch
        derivative = jnp.mean(jnp.sum((x / a - y) * -x / a**2, axis=1))
        np.testing.assert_allclose(grads['a'], derivative * factor, rtol=1e-12)
        assert info.residual.max() < 1e-12


@pytest.mark.parametrize('order', quick([2, 4], [2]))
def test_order_of_the_contrastive_rule(order):
    system, params, batch = zoo.setting('energy')
    solve = zoo.solver('energy', tol=TOL)
    free = free_phase(system, params, batch.x, solve)
    exact = ep.estimators.recurrent_backprop(system, tol=TOL, max_steps=5000)
    target = jax.jit(exact)(params, batch, free, RNG).grads
    errors = []
    for radius in (0.04, 0.02):
        nudge = ep.nudges.circle(radius, order, half_step=order > 2)
        estimate = ep.estimators.contrastive(system, solve, contour=nudge)
        grads = jax.jit(estimate)(params, batch, free, RNG).grads
        errors.append(float(ep.tree.norm(ep.tree.sub(grads, target))))
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.15


@pytest.mark.whole
def test_first_order_in_the_asymmetry():
    """δ_EP − δ_RBP ≈ −2 (S − Λ)⁻¹ A δ for nearly tied weights."""
    system, params, batch, solve = settings('squared_error')
    key = jax.random.key(2)
    remainders = []
    for degrees in (2.0, 1.0):
        turned = ep.alignment.rotate_feedback(system, params, key, degrees)
        free = free_phase(system, turned, batch.x, solve)
        J = ep.jacobian.dense(system, turned, batch.x, free.rates)
        S, A = (J + J.swapaxes(1, 2)) / 2, (J - J.swapaxes(1, 2)) / 2
        slopes = jax.vmap(lambda u: jax.flatten_util.ravel_pytree(u)[0])(
            ep.dynamics.slopes(system, free.state)
        )
        inverse = jnp.linalg.inv(S - jax.vmap(jnp.diag)(1 / slopes))
        tangent, exact = (
            jax.vmap(lambda e: jax.flatten_util.ravel_pytree(e)[0])(
                jax.jit(make(system, tol=TOL))(turned, batch, free, RNG).error
            )
            for make in (ep.estimators.tangent, ep.estimators.recurrent_backprop)
        )
        predicted = -2 * jnp.einsum('bij,bjk,bk->bi', inverse, A, exact)
        remainders.append(float(jnp.linalg.norm(tangent - exact - predicted)))
    assert 1.8 < np.log2(remainders[0] / remainders[1]) < 2.2


def test_complex_step_in_single_precision_has_no_rounding_floor():
    system, params, batch, _ = settings('cross_entropy')
    free = free_phase(system, params, batch.x, ep.solvers.relaxation(tol=TOL))
    exact = jax.jit(ep.estimators.recurrent_backprop(system, tol=TOL))(
        params, batch, free, RNG
    ).error
    single = jax.tree.map(lambda a: a.astype(jnp.float32), (params, batch))
    solve = ep.solvers.relaxation(tol=1e-6, max_steps=60)
    free = free_phase(system, single[0], single[1].x, solve)
    errors = {}
    for name, nudge in {
        'complex_step': ep.nudges.complex_step(1e-4),
        'symmetric': ep.nudges.symmetric(1e-4),
    }.items():
        found = jax.jit(corrected(nudge)(system, solve))(*single, free, RNG).error
        off = ep.tree.norm(ep.tree.sub(found, exact)) / ep.tree.norm(exact)
        errors[name] = float(off)
    assert errors['complex_step'] < 1e-5
    assert errors['symmetric'] > 3e-4


@pytest.mark.parametrize(
    'make',
    [
        lambda system, solve: ep.estimators.contour(
            system, solve, contour=ep.nudges.symmetric(0.1), skip_unconverged=True
        ),
        lambda system, solve: ep.estimators.recurrent_backprop(
            system, tol=1e-12, skip_unconverged=True
        ),
        lambda system, solve: ep.estimators.tangent(
            system, tol=1e-12, skip_unconverged=True
        ),
    ],
)
def test_unconverged_examples_are_left_out_of_the_mean(make):
    """One example's input is NaN: the mean is that over the others."""
    system, params, batch, _ = settings('cross_entropy')
    loose = ep.solvers.relaxation(tol=1e-12)
    estimate = make(system, loose)
    broken = batch._replace(x=batch.x.at[2].set(jnp.nan))
    free = free_phase(system, params, broken.x, loose)
    assert free.converged.tolist() == [True, True, False, True, True]
    grads, _, info = jax.jit(estimate)(params, broken, free, RNG)
    keep = jnp.array([0, 1, 3, 4])
    rest = ep.Batch(batch.x[keep], batch.y[keep])
    free = free_phase(system, params, rest.x, loose)
    expected = jax.jit(estimate)(params, rest, free, RNG).grads
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-14)
    assert info.skipped == pytest.approx(0.2)
    assert info.converged == pytest.approx(0.8)


def amplifier(gain):
    """Returns u = a u + w of each example, C = u²/2, at its equilibrium."""
    gain = jnp.array(gain)[:, None]
    system = ep.systems.from_drive(
        lambda params, gain, rates: {'u': gain * rates['u'] + params['w'][None]},
        init=lambda rng, x: {'w': jnp.ones(1)},
        rest=lambda gain: {'u': jnp.zeros_like(gain)},
        activation='identity',
    )
    state, count = {'u': 1 / (1 - gain)}, len(gain)
    free = ep.types.Equilibrium(
        state,
        state,
        residual=jnp.zeros(count),
        num_steps=jnp.zeros(count, jnp.int32),
        converged=jnp.ones(count, bool),
    )
    return system, {'w': jnp.ones(1)}, ep.Batch(gain, jnp.zeros_like(gain)), free


@pytest.mark.parametrize('skip', [True, False])
@pytest.mark.parametrize('gain', [1.5, 1.001, -1.5])
def test_an_example_without_a_response_is_left_out_of_the_mean(gain, skip):
    """Its solve runs away, slowly or fast."""
    gains = [0.3, 0.5, gain]
    system, params, batch, free = amplifier(gains)
    exact = ep.estimators.recurrent_backprop(
        system, tol=1e-13, max_steps=300, skip_unconverged=skip
    )
    grads, _, info = jax.jit(exact)(params, batch, free, RNG)
    wanted = np.mean([1 / (1 - a) ** 2 for a in gains[:2]])  # u = w/(1 − a)
    assert info.converged == pytest.approx(2 / 3)
    assert abs(grads['w'][0] - wanted) < 1e-10
    assert info.skipped == pytest.approx(1 / 3)


@pytest.mark.parametrize('skip', [True, False])
def test_which_responses_are_left_out(skip):
    """Free phases that run away, lost responses, unsettled ones of over ten pushes."""
    _, _, batch, free = amplifier([0.5] * 8)
    free = free._replace(residual=jnp.array([0, 0, 0, 0, 0, 1.1, jnp.nan, 0.5]))
    residual = jnp.array([[0.5, 1.0, 1.1, jnp.inf, 1.1, 0.1, 0.1, jnp.nan]])
    error = {'u': jnp.array([1.0, 99.0, 20.0, -20.0, 20.1, 1.0, 1.0, 1.0])}
    settled = jnp.arange(8) == 0
    push = {'u': jnp.full(8, -2.0)}
    sweeps = jnp.full((1, 8), 7)
    batch = batch._replace(rows=jnp.array([0, 1, 2, -1, 3, 4, 5, 6]))  # a filler
    outcome = (batch, free, Outcome(error, residual, sweeps, settled))
    keep, info = account(*outcome, push, skip_unconverged=skip)
    unfinished = not skip
    assert keep.tolist() == [True, *[unfinished] * 3, *[False] * 4]
    count = 3 if unfinished else 1
    assert (info.num_kept, info.converged) == (count, pytest.approx(1 / 7))
    assert info.skipped == pytest.approx(1 - count / 7)
    keep, info = account(*outcome, None, skip_unconverged=False)
    assert keep.all()
    assert info.num_kept == 7


@pytest.mark.parametrize('skip', [True, False])
def test_a_solve_broken_off_gives_the_error_of_that_many_sweeps(skip):
    """Even where it grows: three sweeps at a gain of 1.5 have 1 + 1.5 + 2.25 pushes."""
    system, params, batch, free = amplifier([0.3, 1.5])
    exact = ep.estimators.recurrent_backprop(
        system, tol=1e-13, max_steps=3, skip_unconverged=skip
    )
    grads, _, info = exact(params, batch, free, RNG)
    assert info.residual[0, 1] > 1
    assert info.skipped == (1.0 if skip else 0)
    u = 1 / (1 - np.array([0.3, 1.5]))
    wanted = np.mean(u * [1 + 0.3 + 0.09, 1 + 1.5 + 2.25])
    assert abs(grads['w'][0] - (0 if skip else wanted)) < 1e-10


def test_half_a_response_counts_unless_it_has_to_be_whole():
    """50 sweeps find 1 − 0.97^50 = 78 % of δ."""
    gains = [0.3, 0.97]
    system, params, batch, free = amplifier(gains)
    for skip in (True, False):
        exact = ep.estimators.recurrent_backprop(
            system, tol=1e-13, max_steps=50, skip_unconverged=skip
        )
        info = exact(params, batch, free, RNG).info
        assert info.skipped == (0.5 if skip else 0)
        np.testing.assert_allclose(info.residual[0, 1], 0.97**50, rtol=0.05)


@pytest.mark.parametrize('skip', quick([True, False], [True]))
def test_the_contrastive_rule_leaves_out_what_has_no_response(skip):
    system, params, batch = zoo.setting('tied')
    solve = zoo.solver('tied')
    estimate = ep.estimators.contrastive(
        system, solve, contour=ep.nudges.symmetric(0.1), skip_unconverged=skip
    )
    broken = batch._replace(x=batch.x.at[2].set(jnp.nan))
    free = free_phase(system, params, broken.x, solve)
    grads, _, info = jax.jit(estimate)(params, broken, free, RNG)
    none = ep.Batch(broken.x[2:3], broken.y[2:3])
    alone = jax.jit(estimate)(params, none, ep.tree.take(free, jnp.array([2])), RNG)
    assert alone.info.skipped == 1
    assert ep.tree.norm(alone.grads) == 0
    keep = np.array([i for i in range(len(batch.x)) if i != 2])
    rest = ep.Batch(batch.x[keep], batch.y[keep])
    free = free_phase(system, params, rest.x, solve)
    expected = jax.jit(estimate)(params, rest, free, RNG).grads
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-14),
        grads,
        expected,
    )
    assert info.skipped == pytest.approx(1 / len(batch.x))


def test_gradient_is_the_mean_over_the_batch():
    system, params, batch = zoo.setting('free')
    solve = zoo.solver('free')
    estimate = jax.jit(corrected(ep.nudges.symmetric(0.1))(system, solve))

    def grads(batch):
        return estimate(
            params, batch, free_phase(system, params, batch.x, solve), RNG
        ).grads

    singles = [
        grads(ep.Batch(x[None], y[None])) for x, y in zip(batch.x, batch.y, strict=True)
    ]
    mean = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *singles)
    for a, b in zip(jax.tree.leaves(grads(batch)), jax.tree.leaves(mean), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-13)


@pytest.mark.whole
def test_adjoint_is_that_of_lineax():
    """GMRES of another library, on the adjoint of one example in potentials."""
    system, params, batch, solve = settings('squared_error')
    example = ep.Batch(batch.x[:1], batch.y[:1])
    free = free_phase(system, params, example.x, solve)
    J = ep.jacobian.dense(system, params, example.x, free.rates)[0]
    slopes, unravel = jax.flatten_util.ravel_pytree(
        ep.dynamics.slopes(system, free.state)
    )
    g, _ = jax.flatten_util.ravel_pytree(
        ep.dynamics.cost_gradient(system, params, example.y)(free.rates)
    )
    operator = lineax.MatrixLinearOperator(J.T - jnp.diag(1 / slopes))
    solution = lineax.linear_solve(operator, g, lineax.GMRES(rtol=1e-12, atol=1e-14))
    for method in ('iterative', 'krylov'):
        exact = ep.estimators.recurrent_backprop(
            system, tol=1e-13, method=method, max_steps=1000
        )
        error = jax.jit(exact)(params, example, free, RNG).error
        chex.assert_trees_all_close(error, unravel(solution.value), rtol=1e-8)


def test_there_is_no_complex_half_precision():
    system, params, batch = zoo.setting('free', jnp.bfloat16)
    solve = ep.solvers.relaxation(tol=1e-2, max_steps=9)
    free = free_phase(system, params, batch.x, solve)
    estimate = plain(ep.nudges.complex_step())(system, solve)
    with pytest.raises(TypeError, match=r'no complex bfloat16.*symmetric'):
        estimate(params, batch, free, RNG)


def test_random_sign_needs_real_nudges_only():
    system = ep.systems.mlp((4, 5, 5, 2), feedback='free', activation='relu')
    solve = ep.solvers.relaxation()
    ep.estimators.contour(system, solve, contour=ep.nudges.random_sign(0.1))
    with pytest.raises(ValueError, match='antisymmetric'):
        ep.estimators.contour(
            system, solve, contour=ep.nudges.symmetric(0.1), correction='symmetric'
        )
    with pytest.raises(
        ValueError, match='iterative, aitken, anderson, neumann, krylov'
    ):
        ep.estimators.recurrent_backprop(system, method='direct')
