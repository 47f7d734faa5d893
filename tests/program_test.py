"""A traced drive: the same values, asked for in parts, and around a point."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from tiers import quick

import eqprop_jax as ep
from eqprop_jax import _precision as ways
from eqprop_jax import _program as program
from eqprop_jax import linear

ANIMALS = [name for name in zoo.ZOO if name != 'predictive']
KINDS = [
    (animal, kind)
    for animal in ANIMALS
    for kind in ('real', 'complex')
    if kind == 'real' or zoo.ZOO[animal].make().holomorphic
]
SOME = [KINDS[0], *dict(KINDS).items()]  # of each animal the last kind


def setting(animal, dtype=jnp.float64):
    """Returns a drive of the zoo, and rates that are no equilibrium."""
    system, params, batch = zoo.setting(animal, dtype)
    injection = system.inject(params, batch.x)
    rest = system.rest(injection)
    state = ep.tree.add(rest, ep.tree.random_normal(jax.random.key(9), rest))
    return lambda rates: system.drive(params, injection, rates), system.rates(state)


def operations(fn, *args):
    return [equation.primitive.name for equation in jax.make_jaxpr(fn)(*args).eqns]


@pytest.mark.parametrize(('animal', 'kind'), quick(KINDS, SOME))
def test_a_program_is_the_drive(animal, kind):
    drive, rates = setting(animal)
    if kind == 'complex':
        rates = jax.tree.map(lambda s: s + 0.01j * jnp.cos(s), rates)
    traced = program.of(drive, rates)
    expected, found = drive(rates), traced(rates)
    assert set(found) == set(expected)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-13)
        (alone,) = traced(rates, (name,)).values()
        np.testing.assert_allclose(alone, expected[name], atol=1e-13)


@pytest.mark.parametrize('animal', ['free', 'conv_free', 'coding_tied'])
def test_derivatives_go_through(animal):
    drive, rates = setting(animal)
    move = jax.tree.map(jnp.sin, rates)
    traced = program.of(drive, rates)
    for fn in (
        lambda drive: jax.jvp(drive, (rates,), (move,))[1],
        lambda drive: jax.vjp(drive, rates)[1](move)[0],
    ):
        for a, b in zip(
            jax.tree.leaves(fn(traced)), jax.tree.leaves(fn(drive)), strict=True
        ):
            np.testing.assert_allclose(a, b, atol=1e-12)


def test_parts_do_only_what_they_need():
    """A layer of a chain takes a product from below and one from above."""
    system = ep.systems.mlp((5, 6, 7, 8, 9, 3), feedback='free', angle=90.0)
    x = jnp.ones((2, 5))
    params = system.init(jax.random.key(0), x)
    injection = system.inject(params, x)
    rates = system.rates(system.rest(injection))
    traced = program.of(lambda s: system.drive(params, injection, s), rates)
    count = {
        name: operations(lambda s, name=name: traced(s, (name,)), rates).count(
            'multiply'
        )
        for name in rates
    }
    assert count == {'layer_1': 1, 'layer_2': 2, 'layer_3': 2, 'layer_4': 1}
    assert operations(traced, rates).count('multiply') == 6


def everywhere(jaxpr):
    """Yields all operations of a program, and whether they stand in a loop."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name, False
        loop = equation.primitive.name in ('while', 'scan')
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda v: hasattr(v, 'eqns')
        ):
            inner = getattr(value, 'jaxpr', value)
            if hasattr(inner, 'eqns'):
                yield from ((name, loop or deep) for name, deep in everywhere(inner))


@pytest.mark.parametrize('correction', [None, 'adjoint', 'antisymmetric'])
def test_kernels_are_turned_before_the_loops(correction):
    system, params, batch = zoo.setting('conv_free')
    solve = zoo.solver('conv_free', tol=1e-6, max_steps=50)
    estimate = ep.estimators.contour(
        system, solve, contour=ep.nudges.complex_step(1e-3), correction=correction
    )

    def step(params):
        free = ep.relax(system, params, batch.x, solve)
        return estimate(params, batch, free, None).grads

    found = set(everywhere(jax.make_jaxpr(step)(params).jaxpr))
    assert {('convolve', True), ('rev', False)} <= found
    assert ('rev', True) not in found


def test_the_drive_is_called_once_in_a_relaxation():
    calls = []
    system, params, batch = zoo.setting('conv_free')

    def drive(*args):
        calls.append(None)
        return system.drive(*args)

    solve = zoo.solver('conv_free', tol=1e-6, max_steps=50)
    counted = system._replace(drive=drive)
    found = jax.jit(lambda x: ep.relax(counted, params, x, solve))(batch.x)
    assert found.converged.all()
    assert len(calls) <= 2  # however many blocks there are


def test_programs_inside_are_taken_apart_and_rules_are_kept():
    kernel = jax.random.normal(jax.random.key(0), (3, 3))

    @jax.custom_jvp
    def bent(s):
        return jnp.sin(s)

    bent.defjvp(lambda primals, tangents: (jnp.sin(*primals), 7 * tangents[0]))

    @jax.jit
    def inner(s):
        return linear.dense(s, 2 * kernel)

    def drive(rates):
        return {'a': inner(bent(rates['a'])), 'b': 1 + kernel}

    rates = {'a': jnp.ones((2, 3))}
    traced = program.of(drive, rates)
    names = operations(traced, rates)
    assert 'multiply' in names
    assert not {'jit', 'pjit'} & set(names)
    np.testing.assert_allclose(traced(rates)['a'], drive(rates)['a'])
    assert not operations(lambda s: traced(s, ('b',)), rates)
    slope = jax.jvp(traced, (rates,), (rates,))[1]['a']
    np.testing.assert_allclose(slope, 7 * jnp.ones((2, 3)) @ (2 * kernel))


def test_other_shapes_go_to_the_drive_itself():
    drive = lambda rates: {'u': 2 * rates['u']}  # noqa: E731
    traced = program.of(drive, {'u': jnp.ones((4, 2))})
    more = {'u': jnp.ones((5, 2), complex)}
    np.testing.assert_array_equal(traced(more, ('u',))['u'], 2 * more['u'])


def of_an_energy():
    """A drive whose products come from differentiating a scalar."""
    kernel = jax.random.normal(jax.random.key(0), (5, 5))
    kernel = kernel + kernel.T

    def phi(rates):
        return 0.5 * jnp.sum(rates['a'] * linear.dense(jnp.sin(rates['a']), kernel))

    return jax.grad(phi, holomorphic=False), {'a': jnp.cos(jnp.ones((2, 5)))}


@pytest.mark.parametrize('precision', ['tf32', 'bfloat16'])
@pytest.mark.parametrize('kind', ['real', 'complex'])
@pytest.mark.parametrize('animal', ['free', 'tied', 'conv_free', 'energy'])
def test_around_a_point_rounding_is_relative_to_the_change(animal, kind, precision):
    """A change of a millionth keeps its digits; without, it would be lost."""
    if (animal, kind) == ('energy', 'complex'):
        pytest.skip('the gradient of a real scalar')
    exact, rates = of_an_energy() if animal == 'energy' else setting(animal)

    def coarse(rates):
        with ways.taken(precision):
            return exact(rates)

    change = jax.tree.map(lambda s: 1e-6 * jnp.sin(37 * s), rates)
    if kind == 'complex':
        rates = ep.tree.to_complex(rates)
        change = jax.tree.map(lambda s: (1 + 0.5j) * s, change)
    moved = ep.tree.add(rates, change)
    value, around = program.around(coarse, rates)
    expected = ep.tree.sub(exact(moved), exact(rates))
    found = ep.tree.sub(around(moved), value)
    plain = ep.tree.sub(coarse(moved), coarse(rates))
    bound, worst = ways.ROUNDING[precision], 0.0
    for name in expected:
        np.testing.assert_allclose(value[name], coarse(rates)[name], atol=1e-12)
        size = jnp.linalg.norm(expected[name])
        assert jnp.linalg.norm(found[name] - expected[name]) < 2 * bound * size
        worst = max(worst, jnp.linalg.norm(plain[name] - expected[name]) / size)
    assert worst > 20 * bound


def test_products_with_weights_that_change_are_left_as_they_are():
    def drive(rates):
        return {'a': linear.dense(rates['a'], rates['a'].T @ rates['a'])}

    rates = {'a': jnp.arange(6.0).reshape(2, 3)}
    value, around = program.around(drive, rates)
    moved = {'a': rates['a'] + 1}
    np.testing.assert_allclose(around(moved)['a'], drive(moved)['a'])
    np.testing.assert_allclose(value['a'], drive(rates)['a'])
