"""What a report counts: evaluations and calls; and the methods that it is about."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import zoo

import eqprop_jax as ep
from eqprop_jax.analysis import methods
from eqprop_jax.analysis.methods import Method, contour_method, online_method
from eqprop_jax.estimators._contour import corrected_field

TIGHT = ep.solvers.relaxation(tol=1e-12, max_steps=3000)


def products(jaxpr, moving=None):
    """Matrix products that depend on the arguments, of real numbers and one batch.

    The others are done once, before a loop in which the arguments change.
    """
    moving = set(jaxpr.invars) if moving is None else set(moving)
    total = 0
    for equation in jaxpr.eqns:
        depends = [var for var in equation.invars if is_in(var, moving)]
        if not depends:
            continue
        moving |= set(equation.outvars)
        if equation.primitive.name in ('dot_general', 'multiply', 'convolve'):
            kinds = [var.aval.dtype for var in equation.invars]
            kind = 1 + any(jnp.issubdtype(k, jnp.complexfloating) for k in kinds)
            rows = math.prod(equation.outvars[0].aval.shape[:-1])
            total += kind * rows // zoo.BATCH
        for value in equation.params.values():
            inner = getattr(value, 'jaxpr', value)
            if hasattr(inner, 'eqns'):
                taken = [
                    var
                    for var, outer in zip(inner.invars, equation.invars, strict=True)
                    if is_in(outer, moving)
                ]
                total += products(inner, taken)
    return total


def is_in(var, variables):
    return not hasattr(var, 'val') and var in variables


@pytest.mark.parametrize('is_complex', [False, True])
@pytest.mark.parametrize('correction', [None, 'antisymmetric', 'adjoint'])
@pytest.mark.parametrize('animal', ['tied', 'free', 'loop', 'drive'])
def test_the_cost_of_a_sweep_is_its_matrix_products(animal, correction, is_complex):
    """Corrections are free, but for the antisymmetric one of a drive not affine."""
    system, params, batch = zoo.setting(animal)
    injection = system.inject(params, batch.x)
    rates = system.rates(system.rest(injection))
    field = ep.dynamics.free_field(system, params, injection)
    plain = products(jax.make_jaxpr(field.drive)(rates).jaxpr)
    assert plain == {'tied': 2, 'free': 2, 'loop': 3, 'drive': 3}[animal]
    if correction:
        field = corrected_field(system, params, injection, rates, correction)
    if is_complex:
        rates = ep.tree.to_complex(rates)
    counted = products(jax.make_jaxpr(field.drive)(rates).jaxpr)
    cost = methods.sweep_cost(system, correction, is_complex=is_complex)
    assert counted == cost * plain
    general = correction == 'antisymmetric' and animal == 'drive'
    wanted = (3 if general else 1) * (2 if is_complex else 1)
    assert cost == wanted


@pytest.mark.whole
def test_evaluations_are_sweeps_times_their_cost():
    """Of seven sweeps each: two real points and a complex one; all visits online."""
    system, params, batch = oracle.linear()
    seven = ep.solvers.unrolled(num_steps=7)
    circle = ep.nudges.circle(0.05, 4)
    corrected = {'correction': 'antisymmetric'}
    made = {
        'one-sided': contour_method(system, seven, contour=ep.nudges.one_sided(0.1)),
        'circle': contour_method(system, seven, contour=circle),
        'corrected': contour_method(system, seven, contour=circle, **corrected),
        'affine': contour_method(
            system._replace(affine=True), seven, contour=circle, **corrected
        ),
        'online': online_method(
            system, radius=0.05, num_points=4, steps_per_point=5, periods=2
        ),
        'uncounted': Method(ep.estimators.bptt(system, num_steps=7), True),
    }
    found = ep.analysis.bias(system, params, batch, seven, methods=made).methods
    counts = {name: said.evaluations for name, said in found.items()}
    assert counts == {
        'one-sided': 7,
        'circle': 7 * (1 + 1 + 2),
        'corrected': 7 * 3 * (1 + 1 + 2),
        'affine': 7 * (1 + 1 + 2),
        'online': 3 * 4 * 5 * 2,
        'uncounted': None,
    }
    assert all(said.seconds is None for said in found.values())


@pytest.mark.whole
def test_evaluations_are_a_mean_over_the_batch():
    """Of phases that stop by themselves, by the steps that `info` has."""
    known = oracle.of('free')
    solve = ep.solvers.relaxation(tol=1e-6)
    circle = ep.nudges.circle(0.3, 4)
    method = contour_method(known.system, solve, contour=circle)
    found = ep.analysis.bias(*known[:3], solve, methods={'it': method}).methods['it']
    free = ep.relax(known.system, known.params, known.batch.x, solve)
    run = ep.estimators.contour(known.system, solve, contour=circle)
    steps = np.asarray(jax.jit(run)(*known[1:3], free, None).info.num_steps)
    assert steps.shape == (3, zoo.BATCH)
    assert len(set(steps.ravel().tolist())) > 1
    # rows: r and −r, then ir, which stands for −ir, too
    wanted = np.mean(steps[0] + steps[1] + 2 * steps[2])
    assert found.evaluations == pytest.approx(wanted, rel=1e-6)


def test_evaluations_of_a_corrected_online_estimate():
    """A turn without the correction, then two with it: (1 + 3 + 3) turns of real D."""
    system, params, batch = oracle.linear()
    method = online_method(
        system, radius=0.1, num_points=2, steps_per_point=5, correction='antisymmetric'
    )
    found = ep.analysis.bias(system, params, batch, TIGHT, methods={'it': method})
    assert found.methods['it'].evaluations == (1 + 3 + 3) * 2 * 5


def test_timed_calls_are_compiled_once():
    system, params, batch = oracle.linear()
    exact, traces = ep.estimators.recurrent_backprop(system, tol=1e-8), []

    def counted(*args):
        traces.append(1)
        return exact(*args)

    found = ep.analysis.bias(
        system, params, batch, TIGHT, methods={'it': Method(counted, True)}, repeats=3
    )
    assert len(traces) == 1
    assert 0 < found.methods['it'].seconds < 1


def test_methods_of_a_report():
    """What each tends to, and by what it is off, in closed form of a linear network.

    With A = I − J and C = ½ |s − y|² the nudged state is s(β) = (A + β)⁻¹ (x + βy). The
    corrected one has Aᵀ for A and x + (J − Jᵀ) c for x; c is s*, or online the mean of
    s over a turn.
    """
    system, params, batch = oracle.linear()
    found = ep.analysis.bias(system, params, batch, TIGHT)
    J, x, y = (np.asarray(a) for a in (params['J'], batch.x[0], batch.y[0]))
    A = np.eye(2) - J
    free = np.linalg.solve(A, x)
    turn = 0.1 * np.array([1, 1j, -1, -1j])
    points = {
        'one-sided': turn[:1],
        'symmetric': turn[::2],
        'circle N = 4': turn,
        'online N = 4': turn,
    }
    assert set(found.methods) == {
        *points,
        *(f'{name}, corrected' for name in list(points)[1:]),
        'tangent',
        'recurrent backprop',
    }
    exact = -np.linalg.solve(A.T, free - y)

    def states(betas, matrix, x):
        return [np.linalg.solve(matrix + b * np.eye(2), x + b * y) for b in betas]

    for name, said in found.methods.items():
        plain = name.removesuffix(', corrected')
        matrix = A.T if plain != name or name == 'recurrent backprop' else A
        limit = -np.linalg.solve(matrix, free - y)
        size, away = np.linalg.norm(exact), np.linalg.norm(limit - exact)
        assert said.asymmetry['total'] == pytest.approx(away / size, abs=1e-9)
        if plain not in points:
            assert said.error['total'] == pytest.approx(away / size, abs=1e-4)
            continue
        betas = points[plain]
        center = free
        if plain.startswith('online'):
            center = np.mean(np.real(states(betas, A, x)), axis=0)
        driven = x + (J - J.T) @ center if plain != name else x
        reference = 0 if plain.startswith('online') else free
        slopes = [
            (s - reference) / b
            for s, b in zip(states(betas, matrix, driven), betas, strict=True)
        ]
        off = np.linalg.norm(np.mean(np.real(slopes), axis=0) - limit)
        assert said.nudge['total'] == pytest.approx(off / size, abs=1e-8)


def test_methods_of_what_is_not_analytic():
    system = zoo.ZOO['free_hard_sigmoid'].make()
    names = methods.default_methods(system, TIGHT)
    assert {'symmetric', 'online N = 2', 'online N = 2, corrected'} < set(names)
    assert not any('4' in name for name in names)
