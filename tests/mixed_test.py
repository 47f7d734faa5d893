"""Mixed precision: most of a relaxation in bfloat16, the rest in full precision."""

import jax
import jax.numpy as jnp
import pytest

import eqprop_jax as ep

pytestmark = pytest.mark.whole

TOL = 1e-5
ROUGH = ep.solvers.relaxation(tol=4e-3, max_steps=100)
FINE = ep.solvers.relaxation(tol=TOL, max_steps=100)
POLISHED = ep.solvers.polished(FINE, ROUGH)
STEP = ep.nudges.complex_step(1e-3)


def convolutional(**options):
    return ep.systems.conv(
        (8, 8, 2),
        (6, 8),
        hidden=(12,),
        classes=3,
        feedback='free',
        angle=60.0,
        **options,
    )


def dense(**options):
    return ep.systems.mlp((40, 32, 24, 3), feedback='free', angle=60.0, **options)


def setting(system, shape):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (4, *shape), jnp.float32)
    y = jax.nn.one_hot(jax.random.randint(keys[1], (4,), 0, 3), 3, dtype=jnp.float32)
    return system.init(keys[2], x), ep.Batch(x, y)


CASES = [(convolutional, (8, 8, 2)), (dense, (40,))]


def off(a, b):
    return float(ep.tree.norm(ep.tree.sub(a, b)) / ep.tree.norm(b))


@pytest.mark.parametrize(('make', 'shape'), CASES)
def test_the_tolerance_is_that_of_full_precision(make, shape):
    system = make()
    params, batch = setting(system, shape)
    twin = ep.systems.mixed(system)
    free = ep.relax(twin, params, batch.x, POLISHED)
    assert free.state['layer_1'].dtype == jnp.float32
    assert free.converged.all()
    field = ep.dynamics.free_field(system, params, system.inject(params, batch.x))
    gap = ep.tree.per_example_norm(field(free.state))
    assert jnp.all(gap <= 1.01 * TOL * ep.tree.per_example_norm(free.state))
    exact = ep.relax(system, params, batch.x, FINE)
    assert off(free.rates, exact.rates) < 10 * TOL
    injection = system.inject(params, batch.x)
    rough = ROUGH(
        ep.dynamics.free_field(twin, params, injection).rough, twin.rest(injection)
    )
    assert 1e-5 < off(rough.rates, exact.rates) < 1e-2
    assert jnp.all(free.num_steps > rough.num_steps)


@pytest.mark.parametrize('correction', [None, 'antisymmetric', 'adjoint'])
@pytest.mark.parametrize(('make', 'shape'), CASES)
def test_a_gradient_by_complex_nudges_keeps_its_error(make, shape, correction):
    system = make()
    params, batch = setting(system, shape)

    def gradient(system, solve):
        free = ep.relax(system, params, batch.x, solve)
        estimate = ep.estimators.contour(
            system, solve, contour=STEP, correction=correction
        )
        return estimate(params, batch, free, None)

    exact = gradient(system, ep.solvers.relaxation(tol=1e-6, max_steps=200))
    mixed = gradient(ep.systems.mixed(system), POLISHED)
    assert mixed.info.converged == 1
    assert off(mixed.grads, exact.grads) < 20 * TOL
    only_rough = gradient(
        ep.systems.mixed(system), lambda field, state: ROUGH(field.rough, state)
    )
    assert 1e-4 < off(only_rough.grads, exact.grads) < 3e-2


def test_products_of_the_twin_are_taken_in_half_precision():
    system = ep.systems.mixed(convolutional())
    params, batch = setting(system, (8, 8, 2))
    injection = system.inject(params, batch.x)
    rates = system.rates(system.rest(injection))
    text = str(jax.make_jaxpr(system.rough.drive)(params, injection, rates))
    kernels = [params[name]['kernel'].shape for name in ('layer_2', 'layer_3')]
    for shape in kernels:
        assert f'bf16[{",".join(map(str, shape))}]' in text
    assert 'bf16' not in str(jax.make_jaxpr(system.drive)(params, injection, rates))


def test_what_diverges_roughly_starts_anew():
    field = ep.types.Field(lambda s: {'u': 0.5 * s['u'] + 1}, lambda u: u)
    bad = field._replace(drive=lambda s: {'u': s['u'] * jnp.array([[jnp.nan], [0.0]])})
    solve = ep.solvers.polished(ep.solvers.relaxation(tol=1e-10, max_steps=100), ROUGH)
    found = solve(field._replace(rough=bad), {'u': jnp.ones((2, 1))})
    assert found.converged.all()
    assert jnp.allclose(found.state['u'], 2.0)


def test_a_field_without_a_twin_is_refused():
    params, batch = setting(dense(), (40,))
    with pytest.raises(ValueError, match=r'rough twin.*systems\.mixed'):
        ep.relax(dense(), params, batch.x, POLISHED)


def test_dropout_keeps_the_twin():
    system = ep.systems.mixed(convolutional(dropout=0.5))
    params, batch = setting(system, (8, 8, 2))
    free = ep.relax(system, params, batch.x, POLISHED)
    estimate = ep.estimators.dropout(
        system, lambda s: ep.estimators.contour(s, POLISHED, contour=STEP)
    )
    assert estimate(params, batch, free, jax.random.key(0)).info.converged == 1
