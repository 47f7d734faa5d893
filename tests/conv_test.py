"""Convolutional networks against loops in numpy, central differences and refusals."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import zoo
from jax.flatten_util import ravel_pytree
from tiers import quick

import eqprop_jax as ep
from eqprop_jax.systems import _pooling as pooling
from eqprop_jax.systems import _sizes as sizes

KEYS = jax.random.split(jax.random.key(3), 8)
CORRECTIONS = ['antisymmetric', 'adjoint']


def windows(z):
    """Every window's index and its entries, row by row, [4]."""
    B, H, W, c = z.shape
    for b, y, x, k in itertools.product(
        range(B), range(H // 2), range(W // 2), range(c)
    ):
        yield (b, y, x, k), z[b, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2, k].ravel()


def pooled(z, name, temperature=1.0):
    """Values [B, h, w, c] and the gate of every unit [B, H, W, c], window by window."""
    B, H, W, c = z.shape
    if name is None:
        return z, np.ones_like(z)
    values, gate = np.zeros((B, H // 2, W // 2, c), z.dtype), np.zeros_like(z)
    for (b, y, x, k), entries in windows(z):
        if name == 'max':
            slope = np.eye(4)[np.argmax(entries)]
            value = entries.max()
        else:
            share = np.exp(entries / temperature)
            share = share / share.sum()
            value = np.sum(share * entries)
            slope = share + share * (entries - value) / temperature
        values[b, y, x, k] = value
        gate[b, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2, k] = slope.reshape(2, 2)
    return values, gate


def maps(is_complex=False, imaginary=0.3):
    z = 2 * jax.random.normal(KEYS[0], (2, 4, 6, 3))
    if not is_complex:
        return z
    return z + 1j * imaginary * jax.random.normal(KEYS[1], z.shape)


@pytest.mark.parametrize('is_complex', [False, True])
@pytest.mark.parametrize('temperature', [0.3, 1.0, 5.0])
def test_softmax_pooling_is_the_formula(temperature, is_complex):
    z = maps(is_complex, 0.3 * min(temperature, 1))
    found = pooling.get('softmax', temperature)(z)
    values, gate = pooled(np.asarray(z), 'softmax', temperature)
    np.testing.assert_allclose(found.values, values, rtol=1e-10, atol=1e-12)
    ones = jnp.ones(found.values.shape)
    np.testing.assert_allclose(found.unpool(ones), gate, rtol=1e-9, atol=1e-12)


def test_max_pooling_takes_the_first_of_the_largest():
    z = maps().at[0, :2, :2].set(1.5).at[1, 0, 1].set(9.0).at[1, 1, 0].set(9.0)
    found = pooling.get('max')(z)
    values, gate = pooled(np.asarray(z), 'max')
    np.testing.assert_array_equal(found.values, values)
    ones = jnp.ones(found.values.shape)
    np.testing.assert_array_equal(found.unpool(ones), gate)
    assert found.unpool(ones)[0, 0, 0].tolist() == [1, 1, 1]
    assert found.unpool(ones)[1, :2, :2, 0].tolist() == [[0, 1], [0, 0]]


def test_the_temperature_goes_from_mean_to_maximum():
    z = maps()
    mean = np.asarray(z).reshape(2, 2, 2, 3, 2, 3).mean(axis=(2, 4))
    hot = pooling.get('softmax', 1e6)(z).values
    np.testing.assert_allclose(hot, mean, atol=1e-4)
    cold = pooling.get('softmax', 1e-3)(z).values
    np.testing.assert_allclose(cold, pooled(np.asarray(z), 'max')[0], atol=1e-3)
    assert jnp.isfinite(pooling.get('softmax', 1e-3)(1e4 * z).values).all()


def test_softmax_pooling_is_analytic_and_the_gate_its_derivative():
    """Cauchy–Riemann by central differences, for values and gate alike."""
    pool, z, h = pooling.get('softmax', 0.7), maps(is_complex=True, imaginary=0.2), 1e-5
    move = jax.random.normal(KEYS[2], z.shape)

    def both(t):
        found = pool(z + t * move)
        return found.values, found.gate

    along, across = (
        jax.tree.map(lambda a, b, d=d: (a - b) / (2 * d), both(d), both(-d))
        for d in (h, 1j * h)
    )
    for a, b in zip(along, across, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)
    gate = pool(z).gate
    slope = jnp.sum(gate * move.reshape(gate.shape), axis=(2, 4))
    np.testing.assert_allclose(slope, along[0], atol=1e-8)


def spans(extent, size, padding):
    """Zeros before and behind an axis."""
    total = size - 1 if padding == 'SAME' else 0
    return total // 2, total - total // 2


def forward(s, kernel, padding):
    if kernel.ndim == 2:
        return s.reshape(len(s), -1) @ kernel
    h, w, _, n = kernel.shape
    pads = [
        spans(extent, size, padding)
        for extent, size in zip(s.shape[1:3], (h, w), strict=True)
    ]
    s = np.pad(s, ((0, 0), *pads, (0, 0)))
    z = np.zeros((len(s), s.shape[1] - h + 1, s.shape[2] - w + 1, n))
    for b, y, x, k in np.ndindex(*z.shape):
        z[b, y, x, k] = np.sum(s[b, y : y + h, x : x + w] * kernel[..., k])
    return z


def backward(r, kernel, below, padding):
    """Every unit of the map gives its rate to all that it looks at."""
    if kernel.ndim == 2:
        return (r @ kernel.T).reshape(len(r), *below)
    h, w, m, _ = kernel.shape
    rows, columns = (
        spans(extent, size, padding)
        for extent, size in zip(below[:2], (h, w), strict=True)
    )
    back = np.zeros((len(r), below[0] + sum(rows), below[1] + sum(columns), m))
    for b, y, x, k in np.ndindex(*r.shape):
        back[b, y : y + h, x : x + w] += r[b, y, x, k] * kernel[..., k]
    rows, columns = (
        slice(low, low + extent)
        for (low, _), extent in zip((rows, columns), below[:2], strict=True)
    )
    return back[:, rows, columns]


def by_loops(params, x, rates, paddings, poolings, temperature):
    """What every layer receives."""
    names = [name for name in params if name != 'readout']
    received = {}
    below, layer_below = x, None
    for name, padding, pool in itertools.zip_longest(names, paddings, poolings):
        own = {key: np.asarray(value) for key, value in params[name].items()}
        z = forward(below, own['kernel'], padding) + own['bias']
        values, gate = pooled(z, pool, temperature) if z.ndim == 4 else (z, 1.0)
        received[name] = values
        if layer_below:
            s = rates[name]
            s = s.repeat(2, axis=1).repeat(2, axis=2) if pool else s
            weights = own.get('feedback', own['kernel'])
            received[layer_below] = received[layer_below] + backward(
                s * gate, weights, below.shape[1:], padding
            )
        below, layer_below = rates[name], name
    return received


NETWORKS = {
    'same': {
        'kernels': (5, 3),
        'paddings': ('SAME', 'VALID'),
        'pooling': ('softmax', None),
        'hidden': (4, 3),
        'image': (6, 6, 2),
    },
    'valid': {
        'kernels': (1, 3),
        'paddings': 'VALID',
        'pooling': ('max', 'softmax'),
        'hidden': (3,),
        'image': (8, 8, 1),
    },
    'mixed': {
        'kernels': 3,
        'paddings': ('VALID', 'SAME'),
        'pooling': (None, 'max'),
        'cost': 'squared_error',
        'image': (6, 8, 1),
    },
    'even': {'kernels': (3, 2), 'pooling': 'softmax', 'image': (4, 4, 2)},
}


@functools.cache
def network(name, feedback='free', angle=None):
    """A network with biases, inputs, and rates that are no equilibrium."""
    options = dict(NETWORKS[name])
    image = options.pop('image')
    system = ep.systems.conv(
        image,
        (2, 3),
        classes=zoo.CLASSES,
        temperature=0.6,
        feedback=feedback,
        angle=angle,
        **options,
    )
    x = jax.random.uniform(KEYS[0], (2, *image))
    params = system.init(KEYS[1], x)
    noise = ep.tree.random_normal(KEYS[2], params)
    params = jax.tree.map(lambda w, v: w if w.ndim > 1 else 0.3 * v, params, noise)
    rest = system.rest(system.inject(params, x))
    return system, params, x, ep.tree.random_normal(KEYS[3], rest)


@pytest.mark.parametrize('feedback', ['free', 'tied'])
@pytest.mark.parametrize('name', NETWORKS)
def test_the_drive_is_that_of_loops(name, feedback):
    system, params, x, rates = network(name, feedback)
    options = NETWORKS[name]
    paddings, poolings = (
        (value,) * 2 if isinstance(value, str) else value
        for value in (options.get('paddings', 'SAME'), options['pooling'])
    )
    expected = by_loops(
        params,
        np.asarray(x),
        {name: np.asarray(s) for name, s in rates.items()},
        paddings,
        poolings,
        0.6,
    )
    found = jax.jit(lambda: system.drive(params, system.inject(params, x), rates))()
    assert set(found) == set(expected)
    for layer in found:
        assert found[layer].shape == rates[layer].shape
        np.testing.assert_allclose(found[layer], expected[layer], atol=1e-12)


@pytest.mark.parametrize('name', NETWORKS)
def test_the_tied_drive_is_the_gradient_of_the_primitive(name):
    system, params, x, rates = network(name, 'tied')
    gradient, drive = jax.jit(
        lambda: (
            jax.grad(lambda s: jnp.sum(system.primitive(params, x, s)))(rates),
            system.drive(params, system.inject(params, x), rates),
        )
    )()
    for layer in drive:
        np.testing.assert_allclose(drive[layer], gradient[layer], atol=1e-12)


@pytest.mark.parametrize('name', NETWORKS)
def test_the_primitive_is_the_sum_over_synapses(name):
    """Φ = Σ s · P(z): no jax.grad of what drives, but the values by loops."""
    system, params, x, rates = network(name, 'tied')
    options = NETWORKS[name]
    poolings = options['pooling']
    poolings = (poolings,) * 2 if isinstance(poolings, str) else poolings
    paddings = options.get('paddings', 'SAME')
    paddings = (paddings,) * 2 if isinstance(paddings, str) else paddings
    phi, below = np.zeros(len(x)), np.asarray(x)
    for layer, padding, pool in itertools.zip_longest(
        sorted(rates), paddings, poolings
    ):
        own = params[layer]
        z = forward(below, np.asarray(own['kernel']), padding) + np.asarray(own['bias'])
        values = pooled(z, pool, 0.6)[0] if z.ndim == 4 else z
        below = np.asarray(rates[layer])
        phi += np.sum((below * values).reshape(len(x), -1), axis=1)
    np.testing.assert_allclose(system.primitive(params, x, rates), phi, rtol=1e-12)


def test_an_angle_of_zero_is_the_tied_network():
    system, params, x, rates = network('same', 'free', 0.0)
    tied = network('same', 'tied')[0]
    ours, theirs = (
        each.drive(params, each.inject(params, x), rates) for each in (system, tied)
    )
    for layer in ours:
        np.testing.assert_allclose(ours[layer], theirs[layer], atol=1e-14)
    assert system.primitive is None
    assert tied.primitive is not None


@pytest.mark.parametrize('degrees', [30.0, 90.0])
def test_pairs_start_at_the_angle(degrees):
    system, params, _, _ = network('same', 'free', degrees)
    assert len(system.pairs) == 3
    for to, back, transposed in system.pairs:
        W, B = (np.asarray(ep.tree.get(params, path)).ravel() for path in (to, back))
        cosine = W @ B / np.linalg.norm(W) / np.linalg.norm(B)
        assert np.degrees(np.arccos(cosine)) == pytest.approx(degrees, abs=1e-6)
        assert np.linalg.norm(B) == pytest.approx(np.linalg.norm(W))
        assert not transposed


@pytest.mark.parametrize(('animal', 'symmetric'), [('conv_tied', 1), ('conv_free', 0)])
def test_the_jacobian_is_symmetric_where_weights_are_tied(animal, symmetric):
    J = oracle.of(animal).J
    apart = np.linalg.norm(J - J.swapaxes(1, 2)) / np.linalg.norm(J)
    assert apart < 1e-13 if symmetric else apart > 0.1


def contour(nudge, correction=None):
    return lambda system, solve: ep.estimators.contour(
        system, solve, contour=nudge, correction=correction
    )


@functools.cache
def slopes_of_the_cost(animal, step):
    """Random directions in θ, and fourth-order central differences along them."""
    system, params, batch = zoo.setting(animal)
    solve = zoo.solver(animal, tol=1e-14)

    @jax.jit
    def cost(t, direction):
        moved = jax.tree.map(lambda w, d: w + t * d, params, direction)
        free = ep.relax(system, moved, batch.x, solve)
        return jnp.mean(system.cost(moved, free.rates, batch.y))

    found = []
    for key in jax.random.split(KEYS[4], 3):
        v = ep.tree.random_normal(key, params)
        one, two = (cost(h, v) - cost(-h, v) for h in (step, 2 * step))
        found.append((v, float(8 * one - two) / (12 * step)))
    return found


def off_the_slopes(animal, make, step=1e-3):
    known = oracle.of(animal)
    grads = oracle.estimate(make(known.system, zoo.solver(animal, tol=1e-13)), known)[0]
    errors = [
        abs(np.asarray(ravel_pytree(direction)[0]) @ grads / slope - 1)
        for direction, slope in slopes_of_the_cost(animal, step)
    ]
    return max(errors)


@pytest.mark.parametrize('animal', quick(['conv_free', 'conv_dense'], ['conv_free']))
def test_gradients_are_those_of_central_differences(animal):
    nudge = ep.nudges.circle(0.1, 8)
    for correction in CORRECTIONS:
        assert off_the_slopes(animal, contour(nudge, correction)) < 1e-6
    assert off_the_slopes(animal, contour(nudge)) > 1e-2


@pytest.mark.whole
def test_tied_gradients_are_those_of_central_differences():
    nudge = ep.nudges.symmetric(1e-3)
    assert off_the_slopes('conv_tied', contour(nudge)) < 1e-5
    # of steps that cross no kink of the maximum and the hard sigmoid
    assert off_the_slopes('conv_max', contour(nudge), step=1e-6) < 1e-5


@pytest.mark.whole
def test_max_pooling_has_an_error_of_second_order():
    """While no maximum changes place: the largest nudge leaves all of them."""
    system = ep.systems.conv(
        zoo.IMAGE, (3, 4), kernels=(3, 2), pooling='max', classes=3
    )
    x = jax.random.uniform(KEYS[5], (2, *zoo.IMAGE))
    batch = ep.Batch(x, jax.nn.one_hot(jnp.arange(2), 3, dtype=x.dtype))
    known = oracle.settle(system, system.init(KEYS[6], x), batch)
    exact = known.error(adjoint=True)
    radii = np.array([0.4, 0.2, 0.1])
    solve = ep.solvers.relaxation(tol=1e-13, max_steps=5000)
    errors = [
        oracle.off(
            oracle.estimate(contour(ep.nudges.symmetric(r))(system, solve), known)[1],
            exact,
        )
        for r in radii
    ]
    slope, _ = np.polyfit(np.log(radii), np.log(errors), 1)
    assert slope == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize('correction', quick(CORRECTIONS, ['adjoint']))
def test_a_turning_nudge_finds_the_exact_error(correction):
    known = oracle.of('conv_free')
    estimate = ep.estimators.oscillation(
        known.system,
        radius=0.2,
        num_points=4,
        steps_per_point=60,
        correction=correction,
    )
    found, exact = oracle.estimate(estimate, known)[1], known.error(adjoint=True)
    assert oracle.off(found, exact) < 1e-3  # r⁴
    assert oracle.off(known.error(adjoint=False), exact) > 0.05


def thinned(dropout=0.4):
    """The zoo's untied network with dropout, settled, and a key."""
    _, params, batch, free, *_ = oracle.of('conv_free')
    system = zoo._conv(feedback='free', angle=90.0, dropout=dropout)()
    return system, params, batch, free, jax.random.key(8)


def test_dropout_is_one_mask_for_nudge_and_gradient():
    """The dense adjoint of the thinned cost, drawn with the very same key."""
    system, params, batch, free, rng = thinned()
    own = jax.random.split(rng)[0]
    fewer = system.thin(own, jnp.arange(zoo.BATCH))

    def cost(params, rates):
        return jnp.sum(fewer.cost(params, rates, batch.y))

    direct, g = jax.grad(cost, argnums=(0, 1))(params, free.rates)
    whole = oracle.of('conv_free')
    exact = whole._replace(
        g=oracle.flat(g), direct=np.asarray(ravel_pytree(direct)[0]) / zoo.BATCH
    )
    delta = exact.error(adjoint=True)
    make = contour(ep.nudges.complex_step(1e-5), 'adjoint')
    estimate = ep.estimators.dropout(
        system, lambda system: make(system, zoo.solver('conv_free'))
    )
    grads, error, _ = jax.jit(estimate)(params, batch, free, rng)
    assert oracle.off(oracle.flat(error), delta) < 1e-7
    assert oracle.off(ravel_pytree(grads)[0], exact.gradient(delta)) < 1e-7
    assert oracle.off(delta, whole.error(adjoint=True)) > 0.1
    others = jax.jit(estimate)(params, batch, free, jax.random.key(9)).grads
    assert ep.tree.norm(ep.tree.sub(others, grads)) > 0.01 * ep.tree.norm(grads)


def test_dropped_units_are_unseen_and_the_others_weigh_more():
    """∂C/∂W row by row: 0, or s/(1 − p) (softmax(scores) − y), written in numpy."""
    system, params, batch, free, rng = thinned()
    one = jax.tree.map(lambda a: a[:1], (batch, free.rates))
    s = np.asarray(one[1]['layer_2']).ravel()
    kernel, bias = (np.asarray(params['readout'][name]) for name in ('kernel', 'bias'))
    seen = []
    for key in jax.random.split(rng, 12):
        cost = system.thin(key, jnp.arange(1)).cost
        grads = jax.grad(lambda p, cost=cost: cost(p, one[1], one[0].y)[0])(params)
        rows = np.asarray(grads['readout']['kernel'])
        keep = np.any(rows != 0, axis=1)
        scores = (keep * s / 0.6) @ kernel + bias
        surplus = np.exp(scores) / np.exp(scores).sum() - np.asarray(one[0].y[0])
        np.testing.assert_allclose(rows, np.outer(keep * s / 0.6, surplus), atol=1e-13)
        seen.append(keep)
    assert 0 < np.mean(seen) < 1


@pytest.mark.parametrize('dropout', [0.2, 0.5])
def test_scores_are_unbiased_under_dropout(dropout):
    system, params, _, free, rng = thinned(dropout)
    draw = jax.jit(
        jax.vmap(
            lambda key: system.thin(key, jnp.arange(zoo.BATCH)).predict(
                params, free.rates
            )
        )
    )
    scores = np.asarray(draw(jax.random.split(rng, 4000)))
    noise = scores.std(axis=0) / np.sqrt(len(scores))
    assert noise.min() > 0
    gap = np.abs(scores.mean(axis=0) - system.predict(params, free.rates))
    assert (gap < 5 * noise).all()
    # examples have masks of their own
    first, second = (scores[:, b] - scores[:, b].mean(axis=0) for b in (0, 1))
    assert abs(np.mean(first * second)) < 0.1 * first.std() * second.std()


def test_evaluation_knows_no_dropout():
    system, params, batch, free, rng = thinned()
    plain = zoo.ZOO['conv_free'].make()
    for fn in ('predict', 'cost'):
        args = (params, free.rates, batch.y)[: 3 if fn == 'cost' else 2]
        np.testing.assert_array_equal(
            getattr(system, fn)(*args), getattr(plain, fn)(*args)
        )
    for a, b in zip(
        jax.tree.leaves(system.init(rng, batch.x)),
        jax.tree.leaves(plain.init(rng, batch.x)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    assert plain.thin is None


def test_dropout_needs_a_key_and_a_system_that_has_it():
    system, params, batch, free, _ = thinned()
    make = contour(ep.nudges.complex_step())
    solve = zoo.solver('conv_free')
    estimate = ep.estimators.dropout(system, lambda system: make(system, solve))
    with pytest.raises(ValueError, match='dropout needs a key'):
        estimate(params, batch, free, None)
    with pytest.raises(ValueError, match='no dropout'):
        ep.estimators.dropout(zoo.ZOO['conv_free'].make(), lambda system: None)
    largest = zoo._conv(pooling='max', dropout=0.4)()
    with pytest.raises(ValueError, match='not holomorphic'):
        ep.estimators.dropout(largest, lambda system: make(system, solve))
    wrong = batch._replace(y=batch.y[:, :2])
    with pytest.raises(ValueError, match='one-hot'):
        estimate(params, wrong, free, jax.random.key(0))


@pytest.mark.parametrize('gain', [0.5, (0.5, 2.0, 0.1)])
@pytest.mark.parametrize('angle', [None, 60.0])
def test_gains_scale_what_is_drawn(gain, angle):
    """Kernels and feedback; the readout and angles stay as they are."""

    def params(**options):
        system = ep.systems.conv(
            (8, 8, 1), (2, 3), hidden=(4,), classes=3, feedback='free', **options
        )
        return system.init(KEYS[0], jnp.ones((1, 8, 8, 1)))

    found, plain = params(angle=angle, gain=gain), params(angle=angle)
    gains = gain if isinstance(gain, tuple) else (gain,) * 3
    for name, value in zip(('layer_1', 'layer_2', 'layer_3'), gains, strict=True):
        for key in plain[name].keys() & {'kernel', 'feedback'}:
            np.testing.assert_allclose(
                found[name][key], value * plain[name][key], rtol=1e-12
            )
    np.testing.assert_array_equal(
        found['readout']['kernel'], plain['readout']['kernel']
    )


def conv(image=(8, 8, 1), channels=(2, 3), **options):
    return lambda: ep.systems.conv(image, channels, **{'classes': 3, **options})


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (conv((7, 8, 1)), 'layer_1 has a map of 7 x 8.*do not divide'),
        (conv((8, 6, 1)), 'layer_2 has a map of 4 x 3.*do not divide'),
        (conv(paddings='VALID', kernels=4), '5 x 5.*do not divide'),
        (conv((4, 4, 1), kernels=(3, 3)), 'kernel of 3 x 3.*2 x 2 below layer_2'),
        (conv(kernels=9), 'kernel of 9 x 9 is larger'),
        (conv(kernels=(3, 3, 3)), '3 entries for 2 convolutions'),
        (conv(paddings=('SAME',) * 3), 'paddings.*3 entries for 2'),
        (conv(pooling=('max', 'max', None)), 'pooling.*3 entries for 2'),
        (conv(channels=()), 'channels is empty'),
        (conv(channels=(2, 0)), 'channels holds positive integers, not 0'),
        (conv(kernels=0), 'kernels holds positive integers, not 0'),
        (conv(hidden=(-2,)), 'hidden holds positive integers'),
        (conv(classes=0), 'classes holds positive integers'),
        (conv((8, 8)), 'height, width, channels'),
        (conv(temperature=0.0), 'temperature has to be positive'),
        (conv(temperature=-1.0), 'temperature has to be positive'),
        (conv(gain=0.0), 'gain has to be positive and finite, not 0'),
        (conv(gain=(1.0, 2.0, 3.0)), 'gain.*3 entries for 2 layers'),
        (conv(dropout=1.0), 'dropout lies from 0 to below 1'),
        (conv(dropout=-0.1), 'dropout lies from 0 to below 1'),
        (conv(dropout=0.5, cost='squared_error'), 'cost="cross_entropy"'),
        (conv(angle=30.0), 'feedback="free"'),
        (conv(feedback='free', angle=181.0), '180'),
        (conv(feedback='random'), 'tied, free'),
        (conv(pooling='mean'), 'no pooling .mean.*softmax'),
        (conv(paddings='FULL'), 'SAME, VALID'),
        (conv(cost='huber'), 'cross_entropy, squared_error'),
        (conv(activation='softplus'), 'sigmoid, dsilu'),
    ],
)
def test_networks_that_cannot_be_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_one_for_all_may_stand_in_a_tuple():
    one, each = (
        conv((16, 16, 1), (2, 3), kernels=k, paddings=p, pooling=o)()
        for k, p, o in ((5, 'SAME', 'softmax'), ((5,), ('SAME',), ('softmax',)))
    )
    x = jnp.ones((2, 16, 16, 1))
    chex.assert_trees_all_equal(each.init(KEYS[0], x), one.init(KEYS[0], x))


@pytest.mark.parametrize(
    'values',
    [4, None, '44', (4, 'a'), (None,), (True, 4), (4.5,), (float('nan'),), (1e400,)],
)
def test_what_is_no_size_is_named(values):
    with pytest.raises(ValueError, match='^widths holds positive integers'):
        sizes.positive('widths', values)


def test_sizes_become_integers():
    given = (np.int64(3), 4.0, jnp.int32(5).item())
    assert sizes.positive('widths', given) == (3, 4, 5)
    assert all(type(size) is int for size in sizes.positive('widths', given))


@pytest.mark.parametrize('shape', [(2, 8, 8, 3), (2, 8, 4, 1), (2, 64)])
def test_images_of_another_shape_are_refused(shape):
    system = conv()()
    params = system.init(KEYS[0], jnp.ones((2, 8, 8, 1)))
    for take in (system.inject, lambda _, x: system.init(KEYS[0], x)):
        with pytest.raises(ValueError, match=r'does not fit image_shape=\(8, 8, 1\)'):
            take(params, jnp.ones(shape))


@pytest.mark.parametrize('nudge', [ep.nudges.circle(0.1, 4), ep.nudges.complex_step()])
def test_max_pooling_refuses_complex_nudges(nudge):
    system, solve = conv(pooling=('softmax', 'max'))(), ep.solvers.relaxation()
    with pytest.raises(ValueError, match='not holomorphic.*symmetric'):
        ep.estimators.contour(system, solve, contour=nudge)
    with pytest.raises(ValueError, match='not holomorphic'):
        ep.estimators.oscillation(system, radius=0.1, num_points=4)
    with pytest.raises(TypeError, match='maximum is not holomorphic'):
        pooling.get('max')(maps(is_complex=True))


@pytest.mark.parametrize('correction', ['symmetric', 'tangent'])
def test_unknown_corrections_list_the_choices(correction):
    with pytest.raises(ValueError, match='None, "antisymmetric", "adjoint"'):
        contour(ep.nudges.symmetric(0.1), correction)(conv()(), ep.solvers.relaxation())
    with pytest.raises(ValueError, match='None, "antisymmetric", "adjoint"'):
        ep.estimators.oscillation(
            conv()(), radius=0.1, num_points=2, correction=correction
        )
