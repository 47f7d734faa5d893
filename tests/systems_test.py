"""Systems against numpy, scipy, flax and optax, and against what they claim."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import zoo
from tiers import quick

import eqprop_jax as ep
from eqprop_jax.systems import _activations as activations
from eqprop_jax.systems import _costs as costs

NUMPY = {
    'sigmoid': lambda z: 1 / (1 + np.exp(-(4 * z - 2))),
    'dsilu': lambda z: (
        0.5 * z / (1 + np.exp(-z)) + (1 - 0.5 * z) / (1 + np.exp(-(z - 2)))
    ),
    'tanh': np.tanh,
    'identity': lambda z: z,
    'hard_sigmoid': lambda z: np.clip(z, 0, 1),
    'wide_hard_sigmoid': lambda z: np.clip(z / 2, 0, 1),
    'relu': lambda z: np.maximum(z, 0),
}
HOLOMORPHIC = [name for name, a in activations.ACTIVATIONS.items() if a.holomorphic]
GRID = np.linspace(-3, 3, 41)


@pytest.mark.parametrize('name', list(activations.ACTIVATIONS))
def test_activation_is_the_formula(name):
    fn = activations.get(name).fn
    np.testing.assert_allclose(fn(jnp.asarray(GRID)), NUMPY[name](GRID), rtol=1e-12)


@pytest.mark.parametrize('name', HOLOMORPHIC)
def test_activation_is_the_formula_off_the_axis(name):
    z = GRID[:, None] + 1j * np.linspace(-0.5, 0.5, 11)[None]
    fn = activations.get(name).fn
    np.testing.assert_allclose(
        fn(jnp.asarray(z)), NUMPY[name](z), rtol=1e-11, atol=1e-15
    )
    far = jnp.array([400.0 + 0.1j, -400.0 + 0.1j])
    assert jnp.isfinite(fn(far)).all()


@pytest.mark.parametrize('name', HOLOMORPHIC)
@pytest.mark.parametrize('imaginary', [1e-6, 1e-2, 1.3, 40.0])
def test_activation_in_single_precision_keeps_both_parts(name, imaginary):
    """The parts are right to rounding, a tiny imaginary one and the tails included."""
    real = np.linspace(-6, 6, 241).astype(np.float32)
    z = (real + 1j * np.float32(imaginary)).astype(np.complex64)
    got = np.asarray(activations.get(name).fn(jnp.asarray(z)))
    assert got.dtype == np.complex64
    exact = NUMPY[name](z.astype(complex))
    turned = 4 if name == 'sigmoid' else 2  # what the rounding of z is multiplied by
    rounding = 2e-6 * (1 + turned * np.abs(z)) * (1 + np.abs(exact))
    crosses = name == 'dsilu'  # zero, and so does its slope
    assert np.all(np.abs(got - exact) <= rounding * (np.abs(exact) + crosses))
    if imaginary < 1:
        np.testing.assert_allclose(
            got.imag, exact.imag, rtol=2e-5, atol=1e-6 * imaginary * crosses
        )


@pytest.mark.parametrize('name', HOLOMORPHIC)
def test_cauchy_riemann(name):
    """∂σ/∂(Im z) = i ∂σ/∂(Re z), by central differences and by the derivative rule."""
    fn = activations.get(name).fn
    z = jnp.asarray(np.linspace(-2, 2, 9)[:, None] + 1j * np.array([[-0.3, 0.0, 0.2]]))
    h = 1e-6
    along = (fn(z + h) - fn(z - h)) / (2 * h)
    across = (fn(z + 1j * h) - fn(z - 1j * h)) / (2 * h)
    np.testing.assert_allclose(across, 1j * along, atol=1e-8)
    derivative = jax.jvp(fn, (z,), (jnp.ones_like(z),))[1]
    np.testing.assert_allclose(derivative, along, atol=1e-8)


@pytest.mark.parametrize('name', sorted(set(NUMPY) - set(HOLOMORPHIC)))
def test_what_is_not_holomorphic_refuses_complex_numbers(name):
    with pytest.raises(TypeError, match=f'{name} is not holomorphic.*symmetric'):
        activations.get(name).fn(jnp.ones(2, complex))


def test_nearest_poles():
    for name in HOLOMORPHIC:
        for pole in activations.get(name).poles:
            nearby = activations.get(name).fn(jnp.asarray(pole + 1e-6))
            assert abs(complex(nearby)) > 1e4
    assert activations.get('sigmoid').poles == (0.5 + 0.25j * math.pi,)


def test_unknown_names_list_the_choices():
    with pytest.raises(ValueError, match='softplus.*sigmoid, dsilu, tanh'):
        ep.systems.mlp((3, 4, 2), activation='softplus')
    with pytest.raises(ValueError, match='cross_entropy, squared_error'):
        ep.systems.mlp((3, 4, 2), cost='huber')
    with pytest.raises(ValueError, match='tied, free, none'):
        ep.systems.mlp((3, 4, 2), feedback='random')


def test_cross_entropy_is_that_of_optax_and_analytic():
    logits = 3 * jax.random.normal(jax.random.key(0), (5, 4))
    y = jax.nn.one_hot(jnp.arange(5) % 4, 4)
    expected = optax.softmax_cross_entropy(logits, y)
    np.testing.assert_allclose(costs.cross_entropy(logits, y), expected, rtol=1e-12)
    large = costs.cross_entropy(logits * 1e4, y)
    assert jnp.isfinite(large).all()

    def total(z):
        return jnp.sum(costs.cross_entropy(z, y))

    z, step = logits + 0.3j * logits[::-1], 1e-6
    gradient = jax.vjp(total, z)[1](jnp.ones((), complex))[0]
    for direction in (step, 1j * step):
        move = jnp.zeros_like(z).at[1, 2].set(direction)
        slope = (total(z + move) - total(z - move)) / (2 * direction)
        assert abs(slope - gradient[1, 2]) < 1e-8


@pytest.mark.parametrize('animal', list(zoo.ZOO))
def test_what_a_system_claims(animal):
    """Blocks do not feed themselves, ς J is symmetric, J is constant, Φ gives D."""
    system, params, batch = zoo.setting(animal)
    injection = system.inject(params, batch.x)
    rest = system.rest(injection)
    keys = jax.random.split(jax.random.key(5), 2)
    points = [ep.tree.random_normal(key, rest) for key in keys]
    dense = jax.jit(ep.jacobian.dense, static_argnums=0)
    J, J2 = (dense(system, params, batch.x, s) for s in points)
    names = np.concatenate(
        [np.full(leaf[0].size, name) for name, leaf in sorted(rest.items())]
    )
    signature = system.signature or dict.fromkeys(rest, 1)
    signed = J * np.array([dict(signature)[name] for name in names])[None, :, None]
    asymmetry = jnp.linalg.norm(signed - signed.swapaxes(1, 2))
    asymmetry /= max(jnp.linalg.norm(J), 1)
    assert (asymmetry < 1e-12) == zoo.ZOO[animal].symmetric
    assert not system.affine or jnp.linalg.norm(J - J2) < 1e-12
    assert set().union(*system.blocks, rest) == set(rest)
    within = [0.0]
    for block in system.blocks:
        inside = np.isin(names, block)
        within.append(jnp.abs(J[:, inside][:, :, inside]).max())
    assert (max(within) > 0) == zoo.ZOO[animal].self_feeding
    if system.primitive is not None:
        gradient = jax.grad(lambda s: jnp.sum(system.primitive(params, batch.x, s)))
        drive = system.drive(params, injection, points[0])
        for name, d in gradient(points[0]).items():
            np.testing.assert_allclose(drive[name], d, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    'animal', [name for name in zoo.ZOO if zoo.ZOO[name].make().holomorphic]
)
def test_drive_and_cost_are_analytic(animal):
    """Cauchy–Riemann for whatever a complex relaxation evaluates."""
    system, params, batch = zoo.setting(animal)
    injection = system.inject(params, batch.x)
    state, move = (
        ep.tree.random_normal(jax.random.key(index), system.rest(injection))
        for index in (1, 2)
    )
    gradient = ep.dynamics.cost_gradient(system, params, batch.y)

    @jax.jit
    def evaluate(t):
        rates = system.rates(jax.tree.map(lambda u, v: u + t * v, state, move))
        return system.drive(params, injection, rates), gradient(rates)

    h, centre = 1e-5, 0.02 + 0.03j
    along, across = (
        jax.tree.map(
            lambda a, b, h=h: (a - b) / (2 * h),
            evaluate(centre + h),
            evaluate(centre - h),
        )
        for h in (h, 1j * h)
    )
    for a, b in zip(jax.tree.leaves(along), jax.tree.leaves(across), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)


@pytest.mark.parametrize(
    'cost', quick(['cross_entropy', 'squared_error'], ['cross_entropy'])
)
def test_feedforward_gradient_is_backprop_of_flax(cost):
    system = ep.systems.feedforward((6, 8, 7, 3), cost=cost)
    x = jax.random.uniform(jax.random.key(0), (5, 6))
    y = jax.nn.one_hot(jnp.arange(5) % 3, 3)
    params = system.init(jax.random.key(1), x)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            for name, size in (('layer_1', 8), ('layer_2', 7)):
                x = nn.sigmoid(4 * nn.Dense(size, name=name)(x) - 2)
            if cost == 'cross_entropy':
                return nn.Dense(3, name='readout')(x)
            return nn.sigmoid(4 * nn.Dense(3, name='layer_3')(x) - 2)

    def loss(params):
        out = Net().apply({'params': params}, x)
        if cost == 'cross_entropy':
            return jnp.mean(optax.softmax_cross_entropy(out, y))
        return jnp.mean(jnp.sum(optax.l2_loss(out, y), axis=1))

    free = ep.relax(system, params, x, ep.solvers.relaxation(tol=1e-12))
    assert (free.num_steps == 2).all()  # the second finds nothing to move
    estimate = ep.estimators.recurrent_backprop(system, tol=1e-12)
    grads = estimate(params, ep.Batch(x, y), free, jax.random.key(0)).grads
    for a, b in zip(
        jax.tree.leaves(grads), jax.tree.leaves(jax.grad(loss)(params)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize('degrees', [0.0, 45.0, 90.0])
def test_feedback_starts_at_the_angle(degrees):
    system = ep.systems.mlp((6, 8, 7, 5, 3), feedback='free', angle=degrees)
    params = system.init(jax.random.key(1), jnp.ones((1, 6)))
    found = ep.alignment.angles(system, params)
    assert list(found) == ['layer_1/feedback', 'layer_2/feedback']
    for name, angle in found.items():
        assert angle == pytest.approx(degrees, abs=1e-6)
        layer = name.split('/')[0]
        above = params[f'layer_{int(layer[-1]) + 1}']['kernel']
        assert jnp.linalg.norm(params[layer]['feedback']) == pytest.approx(
            float(jnp.linalg.norm(above))
        )


def test_layers_and_readout():
    def layers(system):
        params = system.init(jax.random.key(0), jnp.ones((2, 6)))
        rest = system.rest(system.inject(params, jnp.ones((2, 6))))
        sizes = tuple(leaf.shape[1] for _, leaf in sorted(rest.items()))
        return sizes, tuple(params.get('readout', {}).get('kernel', jnp.ones(())).shape)

    mlp, loop = ep.systems.mlp, ep.systems.loop
    assert layers(mlp((6, 8, 7, 3))) == ((8, 7), (7, 3))
    assert layers(mlp((6, 8, 7), classes=3)) == ((8, 7), (7, 3))
    assert layers(mlp((6, 8, 7, 3), cost='squared_error')) == ((8, 7, 3), ())
    assert layers(loop((6, 8, 7, 3))) == ((8, 7, 3), (3, 3))
    assert layers(loop((6, 8, 7, 3), classes=4)) == ((8, 7, 3), (3, 4))
    assert mlp((6, 8, 7, 5, 3)).blocks == (('layer_1', 'layer_3'), ('layer_2',))
    assert loop((6, 8, 7, 3)).blocks == (('layer_1',), ('layer_2',), ('layer_3',))


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: ep.systems.mlp((6, 0, 3)), 'positive integers, not 0'),
        (lambda: ep.systems.mlp((6, 3)), 'no layer that settles'),
        (lambda: ep.systems.mlp((6, 5, 3), angle=30.0), 'feedback="free"'),
        (lambda: ep.systems.mlp((6, 5, 3), feedback='free', angle=200.0), '180'),
        (
            lambda: ep.systems.mlp((6, 5, 3), cost='squared_error', classes=4),
            'contradicts classes=4',
        ),
        (lambda: ep.systems.loop((6, 5), cost='squared_error'), 'two layers'),
        (lambda: ep.systems.loop(()), 'no layer'),
    ],
)
def test_sizes_that_make_no_network_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_shapes_that_do_not_fit_are_named():
    system = ep.systems.mlp((6, 8, 7, 3))
    params = system.init(jax.random.key(0), jnp.ones((2, 6)))
    with pytest.raises(ValueError, match='5 entries.*is 6'):
        system.inject(params, jnp.ones((2, 5)))
    free = ep.relax(system, params, jnp.ones((2, 6)), ep.solvers.relaxation())
    with pytest.raises(ValueError, match='one-hot'):
        system.cost(params, free.rates, jnp.ones((2, 4)))


def two_units(**options):
    """A system of two independent units, for its options."""
    return ep.systems.from_drive(
        lambda params, x, rates: {'u': x + 0 * rates['u']},
        init=lambda rng, x: {},
        rest=lambda x: {'u': jnp.zeros_like(x)},
        **options,
    )


@pytest.mark.parametrize('reduce', [jnp.sum, jnp.mean])
def test_a_cost_that_is_not_per_example_is_refused(reduce):
    system = two_units(cost=lambda params, rates, y: reduce((rates['u'] - y) ** 2))
    x = jnp.ones((3, 2))
    with pytest.raises(ValueError, match='one value for each example.*no sum or mean'):
        system.cost({}, {'u': x}, x)


def test_an_energy_that_is_not_per_example_is_refused():
    system = ep.systems.from_energy(
        lambda params, x, state: jnp.sum(state['u'] ** 2),
        init=lambda rng, x: {},
        rest=lambda x: {'u': jnp.zeros_like(x)},
    )
    with pytest.raises(ValueError, match='energy has to return one value'):
        system.drive({}, jnp.ones((3, 2)), {'u': jnp.ones((3, 2))})


def test_a_cost_that_is_not_analytic_is_caught():
    system = two_units(
        cost=lambda params, rates, y: jnp.sum(jnp.abs(rates['u'] - y), axis=1)
    )
    x = jnp.ones((3, 2))
    with pytest.raises(TypeError, match='cost takes "abs"'):
        system.cost({}, {'u': x + 0.1j}, x)


def test_a_softmax_is_analytic():
    def drive(params, x, rates):
        return {'u': jax.nn.softmax(rates['u'] + x, axis=1)}

    system = ep.systems.from_drive(
        drive, init=lambda rng, x: {}, rest=lambda x: {'u': jnp.zeros_like(x)}
    )
    x, h = jnp.array([[0.3, -0.2, 0.5]]), 1e-20
    s = {'u': jnp.array([[0.1, 0.7, 0.2]])}
    move = {'u': jnp.array([[1.0, -2.0, 0.5]])}
    slope = jax.jvp(lambda s: drive({}, x, s), (s,), (move,))[1]['u']
    step = system.drive({}, x, {'u': s['u'] + 1j * h * move['u']})['u'].imag / h
    np.testing.assert_allclose(step, slope, rtol=1e-10)


def test_the_last_of_many_layers_is_the_output():
    names = [f'layer_{index}' for index in range(1, 12)]
    system = ep.systems.from_drive(
        lambda params, x, rates: rates,
        init=lambda rng, x: {},
        rest=lambda x: {name: jnp.zeros((2, i + 1)) for i, name in enumerate(names)},
    )
    assert system.predict({}, system.rest(jnp.ones((2, 1)))).shape == (2, 11)
    assert ep.tree.natural_order(names[::-1]) == names


def test_a_primitive_that_is_not_analytic_is_caught():
    def primitive(params, x, rates):
        return jnp.sum(jnp.abs(rates['u']) * params['w'], axis=1)

    system = ep.systems.from_primitive(
        primitive,
        init=lambda rng, x: {'w': jnp.ones((1, 2))},
        rest=lambda x: {'u': jnp.zeros((x.shape[0], 2))},
    )
    params, x = {'w': jnp.ones((1, 2))}, jnp.ones((3, 1))
    batch = ep.Batch(x, jnp.zeros((3, 2)))
    solve = ep.solvers.relaxation()
    free = ep.relax(system, params, x, solve)
    estimate = ep.estimators.contour(system, solve, contour=ep.nudges.complex_step())
    with pytest.raises(TypeError, match='primitive takes "abs".*holomorphic=False'):
        estimate(params, batch, free, jax.random.key(0))
    with pytest.raises(ValueError, match="contradicts the activation 'relu'"):
        ep.systems.from_primitive(
            primitive,
            init=lambda rng, x: {},
            rest=lambda x: {},
            activation='relu',
            holomorphic=True,
        )


def test_clipped_units_do_not_respond():
    """Hard sigmoid and clip, the setting of 2018: units rest on the very bounds."""
    system = ep.systems.mlp((6, 9, 8, 3), feedback='free', activation='hard_sigmoid')
    x = jax.random.normal(jax.random.key(1), (5, 6))
    batch = ep.Batch(x, jax.nn.one_hot(jnp.arange(5) % 3, 3))
    params = jax.tree.map(lambda w: 1.5 * w, system.init(jax.random.key(0), x))
    solve = ep.solvers.relaxation(clip=(0.0, 1.0), tol=1e-14, max_steps=5000)

    @jax.jit
    def cost(params):
        free = ep.relax(system, params, x, solve)
        return jnp.mean(system.cost(params, free.rates, batch.y)), free

    free = cost(params)[1]
    assert free.converged.all()
    bounded = [jnp.mean((u == 0) | (u == 1)) for u in free.state.values()]
    assert min(bounded) > 0.1
    assert max(bounded) < 0.9
    exact = ep.estimators.recurrent_backprop(system, tol=1e-13, max_steps=5000)
    grads = jax.jit(exact)(params, batch, free, None).grads
    direction = ep.tree.random_normal(jax.random.key(2), params)
    step = 1e-6
    shifted = [
        cost(ep.tree.add(params, ep.tree.scale(sign * step, direction)))[0]
        for sign in (1, -1)
    ]
    difference = float(shifted[0] - shifted[1]) / (2 * step)
    found = float(ep.tree.vdot(direction, grads))
    assert found == pytest.approx(difference, rel=1e-6)
