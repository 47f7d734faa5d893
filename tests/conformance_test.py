"""Every estimator on every kind of system in the zoo keeps the contract.

A new estimator is covered by one line in `ESTIMATORS`. Systems that are cousins of
another meet one estimator of each kind, `OF_EACH_KIND`. `make test` takes of these
pairs what `covering` chooses, `make test-all` all of them.
"""

import collections
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from tiers import quick

import eqprop_jax as ep


class Method(NamedTuple):
    """How to build an estimator, and what is claimed of it."""

    make: object  # (system, solve, step size) -> estimator
    unbiased: bool  # equal to recurrent backprop on any system
    is_complex: bool = False
    float64_error: float = 1e-7  # where the claim holds
    needs_primitive: bool = False
    needs_contraction: bool = False  # of undamped synchronous sweeps


def contour(nudge, **options):
    return lambda system, solve, _: ep.estimators.contour(
        system, solve, contour=nudge, **options
    )


def oscillation(radius, num_points, **options):
    return lambda system, solve, _: ep.estimators.oscillation(
        system,
        radius=radius,
        num_points=num_points,
        steps_per_point=600,
        burn_in=0,
        step_size=0.5,
        tol=1e-12,
        **options,
    )


CORRECTED = {'correction': 'antisymmetric'}
ESTIMATORS = {
    'one_sided': Method(contour(ep.nudges.one_sided(1e-6)), False, float64_error=1e-4),
    'random_sign': Method(
        contour(ep.nudges.random_sign(1e-6)), False, float64_error=1e-4
    ),
    'symmetric': Method(contour(ep.nudges.symmetric(1e-3)), False, float64_error=1e-4),
    'circle': Method(contour(ep.nudges.circle(0.01, 8)), False, is_complex=True),
    'complex_step': Method(
        contour(ep.nudges.complex_step(1e-5)), False, is_complex=True
    ),
    'corrected_symmetric': Method(
        contour(ep.nudges.symmetric(1e-3), **CORRECTED), True, float64_error=1e-4
    ),
    'corrected_circle': Method(
        contour(ep.nudges.circle(0.01, 8), **CORRECTED), True, is_complex=True
    ),
    'corrected_half_step': Method(
        contour(ep.nudges.circle(0.01, 8, half_step=True), batched=False, **CORRECTED),
        True,
        is_complex=True,
    ),
    'corrected_complex_step': Method(
        contour(ep.nudges.complex_step(1e-5), **CORRECTED), True, is_complex=True
    ),
    'corrected_adjoint': Method(
        contour(ep.nudges.complex_step(1e-5), correction='adjoint'),
        True,
        is_complex=True,
    ),
    'contrastive': Method(
        lambda system, solve, _: ep.estimators.contrastive(
            system, solve, contour=ep.nudges.circle(0.01, 8, half_step=True)
        ),
        False,
        is_complex=True,
        needs_primitive=True,
    ),
    'contrastive_real': Method(
        lambda system, solve, _: ep.estimators.contrastive(
            system, solve, contour=ep.nudges.symmetric(1e-3)
        ),
        False,
        float64_error=1e-3,
        needs_primitive=True,
    ),
    'oscillation': Method(oscillation(0.01, 8), False, is_complex=True),
    'corrected_oscillation': Method(
        oscillation(0.01, 8, **CORRECTED), True, is_complex=True
    ),
    'corrected_oscillation_real': Method(
        oscillation(1e-3, 2, **CORRECTED), True, float64_error=1e-4
    ),
    'bptt': Method(
        lambda system, *_: ep.estimators.bptt(system, num_steps=1000, step_size=0.5),
        True,
    ),
    'tangent': Method(
        lambda system, solve, step_size: ep.estimators.tangent(
            system, tol=1e-12, max_steps=5000, step_size=step_size
        ),
        False,
    ),
    'recurrent_backprop': Method(
        lambda system, solve, step_size: ep.estimators.recurrent_backprop(
            system, tol=1e-12, max_steps=5000, step_size=step_size
        ),
        True,
    ),
    'recurrent_backprop_neumann': Method(
        lambda system, *_: ep.estimators.recurrent_backprop(
            system, tol=1e-12, method='neumann', max_steps=5000
        ),
        True,
        needs_contraction=True,
    ),
    'recurrent_backprop_krylov': Method(
        lambda system, *_: ep.estimators.recurrent_backprop(
            system, tol=1e-12, method='krylov'
        ),
        True,
    ),
}
OF_EACH_KIND = {
    'symmetric',
    'corrected_circle',
    'corrected_adjoint',
    'contrastive_real',
    'corrected_oscillation_real',
    'recurrent_backprop',
}


def fits(name, animal):
    method, system = ESTIMATORS[name], zoo.ZOO[animal].make()
    if zoo.ZOO[animal].cousin and name not in OF_EACH_KIND:
        return False
    if method.needs_primitive and system.primitive is None:
        return False
    if method.needs_contraction and not zoo.ZOO[animal].contraction:
        return False
    return system.holomorphic or not method.is_complex


def build(method, animal, system, solve):
    return ESTIMATORS[method].make(system, solve, zoo.ZOO[animal].step_size)


def covering(pairs, times=3):
    """Returns some of the pairs, with each method and each system so many times.

    What tells most comes first: methods without bias on systems without symmetry, and
    the others where symmetry makes them exact. Then what was taken least.
    """
    taken, counts = [], collections.Counter()

    def worth(pair):
        method, animal = pair
        needed = sum(counts[name] < times for name in pair)
        telling = ESTIMATORS[method].unbiased != zoo.ZOO[animal].symmetric
        return needed, telling, -counts[method] - counts[animal]

    while any(counts[name] < times for pair in pairs for name in pair):
        pair = max((pair for pair in pairs if pair not in taken), key=worth)
        taken.append(pair)
        counts.update(pair)
    return taken


FITTING = [
    (method, animal)
    for method in ESTIMATORS
    for animal in zoo.ZOO
    if fits(method, animal)
]
PAIRS = quick(FITTING, covering(FITTING))
RNG = jax.random.key(3)


@functools.cache
def reference(animal):
    """Free equilibrium and exact gradient by a dense solve of the adjoint."""
    system, params, batch = zoo.setting(animal)
    free = jax.jit(lambda p, x: ep.relax(system, p, x, zoo.solver(animal)))(
        params, batch.x
    )
    assert free.converged.all()
    exact = jax.jit(functools.partial(dense_adjoint, system))(params, batch, free)
    return system, params, batch, free, exact


def dense_adjoint(system, params, batch, free):
    """Implicit differentiation with a dense matrix, written without the package."""
    flatten = jax.flatten_util.ravel_pytree

    def one(x, y, rates, state):
        x, y = x[None], y[None]
        flat_rates, unravel = flatten(rates)

        def batched(flat):
            return jax.tree.map(lambda leaf: leaf[None], unravel(flat))

        def drive(params, flat):
            return flatten(
                system.drive(params, system.inject(params, x), batched(flat))
            )[0]

        def cost(params, flat):
            return system.cost(params, batched(flat), y)[0]

        slope = jax.grad(lambda u: sum(map(jnp.sum, jax.tree.leaves(system.rates(u)))))
        sigma_prime = flatten(slope(state))[0]
        J = jax.jacrev(drive, argnums=1)(params, flat_rates)
        g = jax.grad(cost, argnums=1)(params, flat_rates)
        v = jnp.linalg.solve(jnp.eye(g.size) - J.T * sigma_prime[None], g)
        _, pullback = jax.vjp(lambda p: drive(p, flat_rates), params)
        implicit = pullback(sigma_prime * v)[0]
        direct = jax.grad(cost)(params, flat_rates)
        return jax.tree.map(jnp.add, direct, implicit)

    per_example = jax.vmap(one)(batch.x, batch.y, free.rates, free.state)
    return jax.tree.map(lambda g: jnp.mean(g, axis=0), per_example)


def relative_error(a, b):
    """|a − b| / |b| in numpy, which compiles nothing for each shape."""
    a, b = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)]) for t in (a, b))
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize(('method', 'animal'), PAIRS)
def test_contract(method, animal):
    system, params, batch, free, exact = reference(animal)
    claims = ESTIMATORS[method]
    traces = []

    @jax.jit
    def estimate(params, batch, free, rng):
        traces.append(1)
        estimator = build(method, animal, system, zoo.solver(animal))
        return estimator(params, batch, free, rng)

    grads, error, info = estimate(params, batch, free, RNG)
    shapes = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), grads) == shapes
    assert jax.tree.map(jnp.shape, error) == jax.tree.map(jnp.shape, free.rates)
    assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(error))
    assert info.residual.shape == info.num_steps.shape
    assert info.residual.shape[1] == zoo.BATCH
    assert info.num_steps.dtype == jnp.int32
    assert info.skipped == 0
    assert info.converged == jnp.all(info.residual <= 1e-12, axis=0).mean()
    if claims.unbiased or zoo.ZOO[animal].symmetric:
        assert relative_error(grads, exact) < claims.float64_error
    estimate(params, batch, free, jax.random.key(4))
    assert len(traces) == 1


@pytest.mark.typed
@pytest.mark.parametrize(
    ('method', 'animal'), quick(FITTING, covering(FITTING, times=1))
)
def test_single_precision_is_kept(method, animal):
    system, params, batch = zoo.setting(animal, jnp.float32)
    solve = zoo.solver(animal, tol=1e-5, max_steps=300)

    def run(params, batch, rng):
        free = ep.relax(system, params, batch.x, solve)
        estimator = build(method, animal, system, solve)
        return free, estimator(params, batch, free, rng)

    free, estimate = jax.eval_shape(run, params, batch, RNG)
    floats = [
        leaf.dtype
        for leaf in jax.tree.leaves((free, estimate.grads, estimate.error))
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    assert set(floats) == {jnp.dtype('float32')}
    assert estimate.info.residual.dtype == jnp.float32


@pytest.mark.parametrize(
    'animal',
    quick(
        [
            'free',
            'free_deep',
            'loop',
            'feedforward',
            'drive',
            'conv_free',
            'conv_dense',
            'coding_free',
        ],
        ['loop', 'conv_free'],
    ),
)
def test_asymmetry_biases_what_is_not_corrected(animal):
    system, params, batch, free, exact = reference(animal)
    for method in ('circle', 'tangent'):
        estimate = build(method, animal, system, zoo.solver(animal))
        grads = jax.jit(estimate)(params, batch, free, RNG).grads
        assert relative_error(grads, exact) > 1e-2


@pytest.mark.parametrize('animal', ['free', 'drive', 'conv_free'])
def test_plain_nudging_tends_to_the_tangent(animal):
    system, params, batch, free, _ = reference(animal)
    circle, tangent = (
        jax.jit(build(method, animal, system, zoo.solver(animal)))(
            params, batch, free, RNG
        ).error
        for method in ('circle', 'tangent')
    )
    assert relative_error(circle, tangent) < 1e-7


@pytest.mark.parametrize('animal', [name for name in zoo.ZOO])
def test_complex_contours_are_refused_where_nothing_is_analytic(animal):
    system = zoo.ZOO[animal].make()
    solve = zoo.solver(animal)
    for nudge in (ep.nudges.circle(0.1, 4), ep.nudges.complex_step()):
        if system.holomorphic:
            ep.estimators.contour(system, solve, contour=nudge)
        else:
            with pytest.raises(ValueError, match='holomorphic.*symmetric'):
                ep.estimators.contour(system, solve, contour=nudge)


@pytest.mark.parametrize(
    'animal', ['free', 'loop', 'feedforward', 'drive', 'conv_free']
)
def test_the_contrastive_rule_is_refused_without_a_primitive(animal):
    with pytest.raises(ValueError, match=r'primitive Φ.*antisymmetric'):
        ep.estimators.contrastive(
            zoo.ZOO[animal].make(),
            zoo.solver(animal),
            contour=ep.nudges.symmetric(0.1),
        )


@pytest.mark.parametrize('animal', ['primitive', 'energy'])
def test_a_neumann_series_that_diverges_says_so(animal):
    system, params, batch, free, _ = reference(animal)
    radius = ep.jacobian.spectral_radius(system, params, batch.x, free, RNG)
    assert jnp.all(radius > 1)
    estimate = build('recurrent_backprop_neumann', animal, system, None)
    assert jax.jit(estimate)(params, batch, free, RNG).info.converged == 0


@pytest.mark.parametrize(
    'name',
    quick(
        ['corrected_adjoint', 'contrastive', 'oscillation', 'recurrent_backprop'],
        ['contrastive', 'recurrent_backprop'],
    ),
)
def test_the_input_is_injected_once(name):
    """By the free phase, and once more where its weights get their gradient."""
    system, params, batch = zoo.setting('tied')
    calls = []

    def inject(params, x):
        calls.append(x.shape)
        return system.inject(params, x)

    counted, solve = system._replace(inject=inject), zoo.solver('tied', tol=1e-6)
    free = ep.relax(counted, params, batch.x, solve)
    assert len(calls) == 1
    found = ESTIMATORS[name].make(counted, solve, 1.0)(params, batch, free, RNG)
    assert len(calls) == (1 if name == 'contrastive' else 2)
    alone = free._replace(injection=None)
    wanted = ESTIMATORS[name].make(system, solve, 1.0)(params, batch, alone, RNG)
    for a, b in zip(
        jax.tree.leaves(found.grads), jax.tree.leaves(wanted.grads), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-12)
