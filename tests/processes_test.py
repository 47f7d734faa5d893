"""Theorems 3 and 4 of Scellier et al. 2018, and GDU of Ernoult et al. 2019.

Every process is held against powers of dense matrices, and every partial update against
loops written out here: backprop through a Python loop, and the contrast of Φ between
the steps of a nudged one.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import scipy.linalg
from jax.flatten_util import ravel_pytree
from oracle import off
from tiers import quick

import eqprop_jax as ep

SYMMETRIC = ['tied', 'primitive', 'energy']
ASYMMETRIC = ['free', 'loop', 'drive']
FOUR = ['tied', 'free', 'loop', 'primitive']
NUM_STEPS = 5


@functools.cache
def found(animal, **options):
    """Both processes [T, B, n], and both series of updates [T, p]."""
    known = oracle.of(animal)
    run = jax.jit(
        lambda p, b, f: ep.analysis.processes(known.system, p, b, f, **options)
    )
    both = run(known.params, known.batch, known.free)
    processes = (jax.vmap(per_example)(side) for side in (both.error, both.temporal))
    updates = (jax.vmap(flat)(side) for side in (both.bptt, both.ep))
    return tuple(np.asarray(side) for side in (*processes, *updates))


def flat(tree):
    return ravel_pytree(tree)[0]


per_example = jax.vmap(flat)


def powers(matrix, num_steps, start):
    """matrix^t start for t = 0 ... T − 1, [T, B, n]."""
    images = [
        np.einsum('bij,bj->bi', np.linalg.matrix_power(matrix, t), start)
        for t in range(num_steps)
    ]
    return np.stack(images)


@pytest.mark.parametrize(
    ('animal', 'step_size'),
    [
        *((animal, 1.0) for animal in SYMMETRIC + ASYMMETRIC),
        *((animal, 0.3) for animal in FOUR),
    ],
)
def test_both_processes_are_powers_of_dense_matrices(animal, step_size):
    """With K = du_{t+1}/du_t: S̄_t = (Kᵀ)^t σ′g, and S_t = σ′ K^t g."""
    known = oracle.of(animal)
    error, temporal, bptt, updates = found(
        animal, num_steps=NUM_STEPS, step_size=step_size
    )
    K = known.step_matrix(step_size)
    start = known.slopes * known.g
    backward = powers(K.swapaxes(1, 2), NUM_STEPS, start)
    forward = known.slopes * powers(K, NUM_STEPS, known.g)
    for t in range(NUM_STEPS):
        assert off(error[t], backward[t]) < 1e-10
        assert off(temporal[t], forward[t]) < 1e-10
        assert off(bptt[t], step_size * known.pull(backward[t])) < 1e-10
        assert off(updates[t], step_size * known.pull(forward[t])) < 1e-10
    assert off(temporal[0], start) < 1e-10
    apart = [off(temporal[t], error[t]) for t in range(1, NUM_STEPS)]
    if animal in SYMMETRIC:
        assert max(apart) < 1e-9
        assert off(updates, bptt) < 1e-9
    else:
        assert min(apart) > 0.05
        assert off(updates, bptt) > 0.02
    named = ({'all': jnp.asarray(side)} for side in (temporal, error))
    np.testing.assert_allclose(
        ep.analysis.distances(*named)[1:], apart, rtol=1e-12, atol=1e-15
    )


@pytest.mark.parametrize('animal', FOUR)
def test_small_steps_tend_to_the_flow_of_the_theorems(animal):
    """dS̄/dt = (∂F/∂s)ᵀ S̄ over unit time, to first order in ε = 1/n.

    (I + A/n)ⁿ = e^A (I − A²/2n + O(1/n²)), the exponential by scipy. Over very long
    times the updates add up to recurrent backprop and to the tangent.
    """
    known, n = oracle.of(animal), 100
    *sides, bptt, updates = found(animal, num_steps=120 * n, step_size=1 / n)
    start = known.slopes * known.g
    for side, J in zip(sides, (known.J.swapaxes(1, 2), known.J), strict=True):
        A = known.slopes[:, :, None] * J - np.eye(J.shape[-1])
        exact = np.einsum('bij,bj->bi', scipy.linalg.expm(A), start)
        first = -np.einsum('bij,bjk,bk->bi', A, A, exact) / (2 * n)
        assert off(side[n], exact) < 0.02
        assert off(side[n] - exact, first) < 0.02
    for series, adjoint in ((bptt, True), (updates, False)):
        total = known.direct + series.sum(axis=0)
        assert off(total, known.gradient(known.error(adjoint=adjoint))) < 1e-9


def test_a_finite_nudge_is_off_by_first_order():
    limit = found('free', num_steps=NUM_STEPS)[1]
    errors = [
        off(found('free', num_steps=NUM_STEPS, beta=beta)[1], limit)
        for beta in (2e-3, 1e-3)
    ]
    assert 1e-6 < errors[1] < 0.05
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.02)


def nudged_states(known, beta, step_size):
    """u_0 ... u_T of the nudged phase, by a loop on Φ alone."""
    system, params, x, y = known.system, known.params, known.batch.x, known.batch.y
    if jnp.iscomplexobj(beta):
        state = jax.tree.map(lambda u: u + 0j, known.free.state)
    else:
        state = known.free.state

    def slope(fn, at):
        value, pullback = jax.vjp(fn, at)
        return pullback(jnp.ones_like(value))[0]

    states = [state]
    for _ in range(NUM_STEPS):
        s = system.rates(state)
        phi = slope(lambda s: system.primitive(params, x, s), s)
        cost = slope(lambda s: system.cost(params, s, y), s)
        state = jax.tree.map(
            lambda u, f, c: u + step_size * (f - beta * c - u), state, phi, cost
        )
        states.append(state)
    return states


def contrasts(known, beta, step_size):
    """−(∂Φ/∂θ(s_{t+1}) − ∂Φ/∂θ(s_t)) / β of every step, mean over the batch, [T, p]."""
    system, batch = known.system, known.batch

    def slopes(params, states):
        def phi(params):
            return [
                jnp.mean(system.primitive(params, batch.x, system.rates(state)))
                for state in states
            ]

        return jax.jacfwd(phi)(params)

    states = nudged_states(known, beta, step_size)
    rows = jnp.stack([flat(row) for row in slopes(known.params, states)])
    return -jnp.diff(rows, axis=0) / beta


def truncated(known, step_size):
    """Gradients of the cost after t steps of a Python loop, [T + 1, p]."""
    system, x, y = known.system, known.batch.x, known.batch.y

    def costs(params):
        state, values = known.free.state, []
        for t in range(NUM_STEPS + 1):
            rates = system.rates(state)
            values.append(jnp.mean(system.cost(params, rates, y)))
            if t < NUM_STEPS:
                phi, pullback = jax.vjp(lambda s: system.primitive(params, x, s), rates)
                (drive,) = pullback(jnp.ones_like(phi))
                state = jax.tree.map(lambda u, d: u + step_size * (d - u), state, drive)
        return values

    return jnp.stack([flat(row) for row in jax.jacrev(costs)(known.params)])


@pytest.mark.parametrize('animal', quick(SYMMETRIC, ['primitive']))
def test_gdu_by_the_contrastive_rule(animal):
    """Step by step what EP's nudged phase adds is what BPTT adds, as β → 0.

    By a complex step, β = ih, whose error is h²; a real β is off by first order.
    """
    known = oracle.of(animal)
    updates = jax.jit(lambda beta, step_size: contrasts(known, beta, step_size))
    sums = jax.jit(lambda step_size: truncated(known, step_size))
    for step_size in (1.0, 0.3):
        bptt = np.diff(sums(step_size), axis=0)
        limit = np.real(updates(1e-12j, step_size))
        *_, theirs, ours = found(animal, num_steps=NUM_STEPS, step_size=step_size)
        for t in range(NUM_STEPS):
            assert off(theirs[t], bptt[t]) < 1e-10
            assert off(limit[t], bptt[t]) < 1e-9
            assert off(ours[t], limit[t]) < 1e-9
        fine, coarse = (updates(beta, step_size) for beta in (1e-3, 2e-3))
        assert off(coarse, bptt) / off(fine, bptt) == pytest.approx(2, rel=0.05)
        assert off(2 * fine - coarse, bptt) < 0.05 * off(fine, bptt)


@pytest.mark.parametrize(
    'animal', quick(['tied', 'primitive', 'free', 'loop', 'drive'], ['tied', 'loop'])
)
def test_sums_of_the_updates_are_truncated_bptt(animal):
    """Up to every t on every system; EP's are the same at symmetry, and only there."""
    known = oracle.of(animal)
    *_, bptt, updates = found(animal, num_steps=NUM_STEPS)
    sums = known.direct + np.cumsum(bptt, axis=0)

    @jax.jit
    def truncated(params, batch, free):
        return [
            flat(
                ep.estimators.bptt(known.system, num_steps=t)(
                    params, batch, free, None
                ).grads
            )
            for t in range(1, NUM_STEPS + 1)
        ]

    exact = np.stack(truncated(known.params, known.batch, known.free))
    assert off(exact, sums) < 1e-10
    ours = known.direct + np.cumsum(updates, axis=0)
    if animal in SYMMETRIC:
        assert off(ours, exact) < 1e-9
    else:
        assert off(ours[1:], exact[1:]) > 0.01


@pytest.mark.typed
@pytest.mark.parametrize('animal', FOUR)
def test_truncated_bptt_is_off_by_a_power(animal):
    """What T steps leave is −(Kᵀ)^T δ: the ratio of errors tends to ρ(K)."""
    known = oracle.of(animal)
    K, exact = known.step_matrix(0.5), known.error(adjoint=True)
    lengths = (40, 42) if animal in SYMMETRIC else (30,)
    errors = []
    for num_steps in lengths:
        run = ep.estimators.bptt(known.system, num_steps=num_steps, step_size=0.5)
        left = oracle.estimate(run, known)[1] - exact
        assert off(left, -powers(K.swapaxes(1, 2), num_steps + 1, exact)[-1]) < 1e-6
        errors.append(np.linalg.norm(left, axis=1))
    if animal in SYMMETRIC:  # real eigenvalues, of which one leads
        radius = np.abs(np.linalg.eigvals(K)).max(axis=1)
        np.testing.assert_allclose(np.sqrt(errors[1] / errors[0]), radius, rtol=1e-3)


def test_what_is_refused():
    known = oracle.of('tied')
    settled = (known.system, known.params, known.batch, known.free)
    with pytest.raises(ValueError, match='num_steps'):
        ep.analysis.processes(*settled, num_steps=0)
    with pytest.raises(ValueError, match='step_size'):
        ep.analysis.processes(*settled, step_size=0.0)
    tilted = known.free._replace(state=ep.tree.to_complex(known.free.state))
    with pytest.raises(TypeError, match='processes takes a real state'):
        ep.analysis.processes(*settled[:3], tilted)
