"""The report on gradients against dense solves: on a linear network all is closed form.

Two layers of which the second has a target, D = x W + J s and C = ½ |s_b − y|², so that

    s(β) = (I − J + βG)⁻¹ (x W + βy),    G = diag(0, 0, 1, 1, 1)
"""

import functools

import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import zoo
from oracle import off

import eqprop_jax as ep
from eqprop_jax.analysis.methods import Method, contour_method

SPANS = {'a': slice(0, 2), 'b': slice(2, 5), 'total': slice(0, 5)}
G = np.diag([0.0, 0, 1, 1, 1])
HASTY, EPS = 6, 0.7
RNG = np.random.default_rng(3)
W = RNG.normal(size=(4, 5))
X = RNG.normal(size=(3, 4))
Y = np.eye(3)
ASYMMETRIC = 0.3 * RNG.normal(size=(5, 5))
SYMMETRIC = (ASYMMETRIC + ASYMMETRIC.T) / 2


def linear(J):
    """System, params and batch; with each pair of layers' weights in one matrix."""

    def drive(params, injection, rates):
        s = jnp.concatenate([rates['a'], rates['b']], axis=1)
        total = injection + s @ params['J'].T
        return {'a': total[:, :2], 'b': total[:, 2:]}

    system = ep.systems.from_drive(
        drive,
        init=lambda rng, x: {},
        inject=lambda params, x: x @ params['in'],
        rest=lambda injection: {'a': 0 * injection[:, :2], 'b': 0 * injection[:, 2:]},
        activation='identity',
    )
    params = {'J': jnp.asarray(J), 'in': jnp.asarray(W)}
    return system, params, ep.Batch(jnp.asarray(X), jnp.asarray(Y))


def padded(y):
    return np.concatenate([np.zeros((len(y), 2)), y], axis=1)


def solved(matrix, rows):
    return np.linalg.solve(matrix, rows.T).T


def sweeps(J, u, beta, count, anchor=None):
    """Synchronous sweeps of the free network, or of the nudged one that rests at u*."""
    for _ in range(count):
        drive = X @ W + u @ J.T if anchor is None else anchor + (u - anchor) @ J.T
        drive = drive - beta * (u @ G - padded(Y))
        u = u + EPS * (drive - u)
    return u


def response(J, points, count, free, *, corrected):
    """Σ_k Re s(β_k)/β_k over N, or (s(β) − s*)/β, after so many sweeps."""
    J = J.T if corrected else J
    shifts = [
        (sweeps(J, free + 0 * beta, beta, count, free) - free) / beta for beta in points
    ]
    return np.mean(np.real(shifts), axis=0)


NUDGES = {
    'one-sided': (ep.nudges.one_sided(0.4), [0.4]),
    'symmetric': (ep.nudges.symmetric(0.3), [0.3, -0.3]),
    'circle': (ep.nudges.circle(0.5, 4), [0.5, 0.5j, -0.5, -0.5j]),
}


CASES = [  # symmetric J, nudge, corrected
    (False, 'one-sided', False),
    (False, 'symmetric', False),
    (False, 'circle', True),
    (True, 'one-sided', False),
    (True, 'circle', True),
]


@functools.cache
def report(symmetric):
    """The report with a solver that stops after a few sweeps."""
    system, params, batch = linear(SYMMETRIC if symmetric else ASYMMETRIC)
    few, many = (
        ep.solvers.unrolled(num_steps=count, step_size=EPS, tol=1e-10)
        for count in (HASTY, 600)
    )
    made = {
        name + (', corrected' if corrected else ''): contour_method(
            system,
            few,
            many,
            contour=NUDGES[name][0],
            correction='antisymmetric' if corrected else None,
        )
        for symmetry, name, corrected in CASES
        if symmetry == symmetric
    }
    return ep.analysis.bias(
        system, params, batch, few, settled=many, methods=made, tol=1e-13
    )


def test_the_matrices_settle():
    for J in (ASYMMETRIC, SYMMETRIC):
        assert np.abs(np.linalg.eigvals(J)).max() < 0.9


@pytest.mark.parametrize(('symmetric', 'name', 'corrected'), CASES)
def test_all_that_is_said_of_a_method(symmetric, name, corrected):
    """Every number by dense solves and loops in numpy: settled, limit and exact."""
    J = SYMMETRIC if symmetric else ASYMMETRIC
    found = report(symmetric).methods[name + (', corrected' if corrected else '')]
    hasty = sweeps(J, np.zeros((3, 5)), 0.0, HASTY)
    free = solved(np.eye(5) - J, X @ W)
    points = NUDGES[name][1]
    estimate = response(J, points, HASTY, hasty, corrected=corrected)
    ideal = response(J, points, 600, free, corrected=corrected)
    g = free @ G - padded(Y)
    tangent, exact = (solved(M - np.eye(5), g) for M in (J, J.T))
    limit = exact if corrected else tangent
    for part, span in SPANS.items():
        size = np.linalg.norm(exact[:, span])

        def distance(a, b, span=span, size=size):
            return np.linalg.norm(a[:, span] - b[:, span]) / size

        def close(value, wanted):
            assert value == pytest.approx(wanted, rel=1e-9, abs=1e-11)

        close(found.error[part], distance(estimate, exact))
        close(found.settling[part], distance(estimate, ideal))
        close(found.nudge[part], distance(ideal, limit))
        close(found.asymmetry[part], distance(limit, exact))
        length = np.linalg.norm(estimate[:, span])
        close(found.norm_ratio[part], length / size)
        dot = np.vdot(estimate[:, span], exact[:, span])
        close(found.cosine[part], dot / length / size)
    if corrected or symmetric:
        assert found.asymmetry['total'] < 1e-12
    else:
        assert found.asymmetry['total'] > 0.05
    # dC/dJ = −δ sᵀ and dC/dW = −xᵀ δ, means over the batch
    grads, target = (
        {'J': -delta.T @ s / 3, 'in': -X.T @ delta / 3}
        for delta, s in ((estimate, hasty), (exact, free))
    )
    for key in ('J', 'in'):
        a, b = grads[key], target[key]
        ratio = np.linalg.norm(a) / np.linalg.norm(b)
        cosine = np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)
        assert found.gradient_norm_ratio[key] == pytest.approx(ratio, rel=1e-9)
        assert found.gradient_cosine[key] == pytest.approx(cosine, rel=1e-9)


@pytest.mark.typed
@pytest.mark.parametrize('symmetric', [False, True])
def test_all_that_is_said_of_the_system(symmetric):
    J = SYMMETRIC if symmetric else ASYMMETRIC
    found = report(symmetric)
    assert found.unsettled == 1.0  # six sweeps do not reach 1e-10
    values = np.linalg.eigvals(J)
    assert found.margin == pytest.approx(1 - values.real.max(), abs=1e-10)
    assert found.spectral_radius == pytest.approx(np.abs(values).max(), rel=0.03)
    assert found.angles == {}
    blocks = (J - J.T) ** 2 / 10
    for a in ('a', 'b'):
        for b in ('a', 'b'):
            wanted = blocks[SPANS[a], SPANS[b]].sum()
            assert found.asymmetry[a][b] == pytest.approx(wanted, rel=0.8, abs=1e-12)
    S, A = (np.linalg.norm(J + sign * J.T) for sign in (1, -1))
    assert found.symmetric_share == pytest.approx(S / (S + A), abs=0.06)
    hasty = sweeps(J, np.zeros((3, 5)), 0.0, HASTY)
    free = solved(np.eye(5) - J, X @ W)
    grads = []
    for s in (hasty, free):
        delta = solved(J.T - np.eye(5), s @ G - padded(Y))
        grads.append(np.concatenate([np.ravel(delta.T @ s), np.ravel(X.T @ delta)]))
    assert found.free_phase == pytest.approx(off(grads[0], grads[1]), rel=1e-8)
    assert found.free_phase > 0.01


@pytest.mark.whole
def test_margin_and_radius_of_a_nonlinear_network():
    """Of J diag(σ′), the worst example of the batch."""
    known = oracle.of('free')
    solve = zoo.solver('free', tol=1e-12)
    found = ep.analysis.bias(known.system, known.params, known.batch, solve, methods={})
    values = np.linalg.eigvals(known.J * known.slopes[:, None, :])
    assert found.margin == pytest.approx(1 - values.real.max(), abs=1e-10)
    assert found.spectral_radius == pytest.approx(np.abs(values).max(), rel=0.03)
    assert found.unsettled == 0
    assert found.free_phase == 0
    angle = float(ep.alignment.angles(known.system, known.params)['layer_1/feedback'])
    assert found.angles == {'layer_1/feedback': angle, 'overall': pytest.approx(angle)}


def test_margin_of_a_network_of_negative_eigenvalues():
    """J = −k, of which the least negative eigenvalue is −1/4: the margin is 5/4."""
    J = -np.diag([0.25, 0.3, 0.4, 0.5, 0.6])
    system, params, batch = linear(J)
    solve = ep.solvers.relaxation(step_size=0.5, tol=1e-10)
    found = ep.analysis.bias(system, params, batch, solve, methods={})
    assert found.margin == pytest.approx(1.25, abs=1e-10)


@pytest.mark.whole
def test_unsettled_examples_are_counted():
    """Those of which a loop in numpy finds more left than the tolerance."""
    system, params, batch = linear(ASYMMETRIC)
    u, largest = np.zeros((3, 5)), [np.zeros(3)] * 2
    for _ in range(12):
        move = EPS * (X @ W + u @ ASYMMETRIC.T - u)
        u = u + move
        lengths, sizes = (
            np.array([np.linalg.norm(v[:, SPANS[name]], axis=1) for name in 'ab'])
            for v in (move, u)
        )
        largest.append(np.max(lengths / sizes, axis=0))
    rate = np.maximum(largest[-1] / largest[-2], np.sqrt(largest[-1] / largest[-3]))
    _, middle, last = np.sort(largest[-1] * np.maximum(1, rate / (1 - rate)))
    few = ep.solvers.relaxation(
        order='synchronous',
        step_size=EPS,
        tol=float(np.sqrt(middle * last)),
        max_steps=12,
    )
    exact = Method(ep.estimators.recurrent_backprop(system, tol=1e-8), True)
    found = ep.analysis.bias(system, params, batch, few, methods={'it': exact})
    assert found.unsettled == pytest.approx(1 / 3)
    assert found.methods['it'].unsettled == pytest.approx(1 / 3)
