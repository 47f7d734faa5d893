"""Precision: what it costs δ, layer by layer, and what is compiled for it."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import pytest

import eqprop_jax as ep
from eqprop_jax import _precision as ways
from eqprop_jax.analysis import layers

pytestmark = pytest.mark.whole

TOL = {'float32': 1e-3, 'tf32': 1e-3, 'bfloat16': 8e-3}
EXACT = ep.solvers.aitken(tol=1e-6, max_steps=300)
SOLVE = ep.solvers.aitken(tol=1e-3, max_steps=60)
STEP = ep.nudges.complex_step(1e-3)
SHAPE = (8, 8, 2)
NATIVE = {'convolution': 'native'}


def network(feedback):
    """Four convolutions whose credit shrinks by a hundred from top to bottom."""
    return ep.systems.conv(
        SHAPE,
        (6, 8, 10, 12),
        pooling=('softmax', None, None, None),
        hidden=(8,),
        classes=3,
        feedback=feedback,
        angle=60.0 if feedback == 'free' else None,
    )


@functools.cache
def setting(feedback):
    """Returns a system, params, batch, and δ by recurrent backprop in float32."""
    system = network(feedback)
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (4, *SHAPE), jnp.float32)
    y = jax.nn.one_hot(jax.random.randint(keys[1], (4,), 0, 3), 3, dtype=jnp.float32)
    params, batch = system.init(keys[2], x), ep.Batch(x, y)

    @jax.jit
    def solve(params):
        free = ep.relax(system, params, x, EXACT)
        exact = ep.estimators.recurrent_backprop(system, tol=1e-6, max_steps=300)
        return exact(params, batch, free, None).error

    return system, params, batch, solve(params)


contour, wide = ep.estimators.contour, ep.nudges.symmetric
METHODS = {
    'two nudges of 1': ('tied', lambda s: contour(s, SOLVE, contour=wide(1.0))),
    'two nudges of a tenth': ('tied', lambda s: contour(s, SOLVE, contour=wide(0.1))),
    'one nudge': (
        'tied',
        lambda s: contour(s, SOLVE, contour=ep.nudges.one_sided(0.01)),
    ),
    'four nudges': (
        'tied',
        lambda s: contour(s, SOLVE, contour=ep.nudges.circle(0.5, 4)),
    ),
    'contrastive': (
        'tied',
        lambda s: ep.estimators.contrastive(s, SOLVE, contour=wide(0.1)),
    ),
    'complex step': ('tied', lambda s: contour(s, SOLVE, contour=STEP)),
    'adjoint': (
        'free',
        lambda s: contour(s, SOLVE, contour=STEP, correction='adjoint'),
    ),
    'antisymmetric': (
        'free',
        lambda s: contour(s, SOLVE, contour=wide(0.1), correction='antisymmetric'),
    ),
    'recurrent backprop': (
        'free',
        lambda s: ep.estimators.recurrent_backprop(s, tol=1e-3),
    ),
}


@functools.cache
def estimated(method, precision):
    """Returns which examples settle, and the estimate."""
    feedback, make = METHODS[method]
    base, params, batch, _ = setting(feedback)
    system = ep.systems.rounded(base, precision)
    solve = ep.solvers.aitken(tol=TOL[precision], max_steps=60)

    @jax.jit
    def step(params):
        free = ep.relax(system, params, batch.x, solve)
        return free.converged, make(system)(params, batch, free, None)

    return step(params)


@pytest.mark.parametrize('precision', ['tf32', 'bfloat16'])
@pytest.mark.parametrize('method', METHODS)
def test_every_layer_loses_what_a_factor_does(method, precision):
    exact = setting(METHODS[method][0])[-1]
    settled, found = estimated(method, precision)
    _, full = estimated(method, 'float32')
    assert settled.all()
    assert all(leaf.dtype == jnp.float32 for leaf in found.error.values())
    rounding = ways.ROUNDING[precision]
    own, of_full = (layers.errors(e.error, exact) for e in (found, full))
    for name in exact:
        assert own[name] < of_full[name] + 3 * rounding + TOL[precision], name
    off = ep.tree.norm(ep.tree.sub(found.grads, full.grads))
    assert (
        1e-3 * rounding < off / ep.tree.norm(full.grads) < 3 * rounding + TOL[precision]
    )


@pytest.mark.parametrize('precision', ['tf32', 'bfloat16'])
def test_the_free_phase_is_off_by_what_a_product_is(precision):
    base, params, batch, _ = setting('free')
    exact = ep.relax(base, params, batch.x, EXACT)
    coarse = ep.systems.rounded(base, precision)
    solve = ep.solvers.aitken(tol=TOL[precision], max_steps=60)
    found = jax.jit(lambda p: ep.relax(coarse, p, batch.x, solve))(params)
    off = ep.tree.norm(ep.tree.sub(found.rates, exact.rates))
    rounding = ways.ROUNDING[precision]
    assert 0.01 * rounding < off / ep.tree.norm(exact.rates) < rounding + TOL[precision]


def test_a_phase_ends_where_rounding_keeps_it_from_settling():
    """Far below the rounding of bfloat16 no example settles, nor goes on for ever."""
    base, params, batch, _ = setting('tied')
    solve = ep.solvers.relaxation(tol=1e-6, max_steps=500)
    found = ep.relax(ep.systems.rounded(base, 'bfloat16'), params, batch.x, solve)
    stopped = found.num_steps < 500
    assert stopped.all()
    assert jnp.all(found.residual[~found.converged] > 1e-6)
    assert jnp.all(found.residual < 2**-7)


def test_dropout_keeps_the_precision():
    base = ep.systems.conv(SHAPE, (6,), classes=3, dropout=0.5)
    thin = ep.systems.rounded(base, 'bfloat16').thin(jax.random.key(0), jnp.arange(4))
    assert thin.way.rounding == 2**-8


def test_full_precision_is_the_system_itself():
    base, params, batch, _ = setting('free')
    assert ep.systems.rounded(base, 'float32') is base
    same = ep.systems.rounded(base, 'float32', **NATIVE)
    assert same.way.rounding == 0
    found, expected = (ep.relax(s, params, batch.x, SOLVE) for s in (same, base))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert jnp.array_equal(a, b)


def test_what_is_rounded_is_not_rounded_again():
    """Nor where only its convolutions have a way: one of the two would win."""
    for way in ({'precision': 'bfloat16'}, {'precision': 'float32', **NATIVE}):
        once = ep.systems.rounded(network('tied'), **way)
        with pytest.raises(ValueError, match='has its way already'):
            ep.systems.rounded(once, 'tf32')


WORDS = {
    'float32': ('HIGHEST', None),
    'tf32': ('HIGH', None),
    'bfloat16': ('HIGHEST', 'bf16'),
}


@pytest.mark.parametrize('platform', ['cuda', 'tpu'])
@pytest.mark.parametrize('precision', WORDS)
def test_what_is_compiled_for_an_accelerator(precision, platform):
    """Every product of a drive, in all phases and in the gradient, of its dtype."""
    base, params, batch, _ = setting('free')
    system = ep.systems.rounded(base, precision)

    def step(params):
        free = ep.relax(system, params, batch.x, SOLVE)
        estimate = contour(system, SOLVE, contour=STEP, correction='adjoint')
        return estimate(params, batch, free, None).grads

    text = jax.export.export(jax.jit(step), platforms=(platform,))(params).mlir_module()
    found = [line for line in text.splitlines() if 'stablehlo.convolution' in line]
    inner = [line for line in found if 'x2x' not in line.split(':')[-1]]
    assert len(inner) > 15
    level, dtype = WORDS[precision]
    for line in inner:
        kinds = line.split(' : ')[-1]
        if f'x{SHAPE[2]}xf32' in kinds:
            continue  # the input's part keeps its precision
        assert f'<{level}>' in line or f' {level}' in line, line
        assert ('bf16' in kinds) == (dtype == 'bf16'), line
        if dtype:
            assert kinds.count('bf16') == 3, line  # in and out
