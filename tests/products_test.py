"""Products against numpy, and their derivatives against those that JAX writes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from jax import lax

from eqprop_jax import _precision as ways
from eqprop_jax import _products as products
from eqprop_jax import linear

KEYS = jax.random.split(jax.random.key(0), 8)
PADS = [((1, 1), (1, 1)), ((0, 0), (0, 0)), ((1, 0), (2, 1)), ((-1, 2), (0, -2))]


def draw(index, shape, dtype=jnp.float64):
    return jax.random.normal(KEYS[index], shape, dtype)


def by_sums(s, kernel, pads):
    """A cross-correlation, one entry of the map after the other."""
    s, kernel = np.asarray(s, np.float64), np.asarray(kernel, np.float64)
    low, high = ([max(pad[side], 0) for pad in pads] for side in (0, 1))
    cut = [
        slice(max(-a, 0), extent - max(-b, 0))
        for (a, b), extent in zip(pads, s.shape[1:3], strict=True)
    ]
    s = s[:, cut[0], cut[1]]
    s = np.pad(s, ((0, 0), (low[0], high[0]), (low[1], high[1]), (0, 0)))
    h, w, _, n = kernel.shape
    z = np.zeros((s.shape[0], s.shape[1] - h + 1, s.shape[2] - w + 1, n))
    for b, y, x, k in np.ndindex(*z.shape):
        z[b, y, x, k] = np.sum(s[b, y : y + h, x : x + w] * kernel[..., k])
    return z


def reference(s, kernel, pads):
    return lax.conv_general_dilated(
        s, kernel, (1, 1), pads, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )


CASES = {
    'multiply': (products.multiply, jnp.matmul, (3, 4), (4, 2)),
    'multiply_maps': (products.multiply, jnp.matmul, (2, 3, 4), (4, 2)),
    'convolve': (
        functools.partial(products.convolve, pads=PADS[2]),
        functools.partial(reference, pads=PADS[2]),
        (2, 4, 5, 3),
        (3, 2, 3, 2),
    ),
    'convolve_cut': (
        functools.partial(products.convolve, pads=PADS[3]),
        functools.partial(reference, pads=PADS[3]),
        (2, 4, 5, 2),
        (2, 3, 2, 3),
    ),
    'convolve_small_map': (  # by patches: the map is no larger than its kernel
        functools.partial(products.convolve, pads=((2, 2), (1, 2))),
        functools.partial(reference, pads=((2, 2), (1, 2))),
        (2, 2, 3, 2),
        (3, 2, 2, 3),
    ),
}


@pytest.mark.parametrize('pads', PADS)
@pytest.mark.parametrize('size', [(1, 1), (3, 3), (2, 3)])
def test_convolution_is_the_sum(pads, size):
    s, kernel = draw(0, (2, 5, 6, 3)), draw(1, (*size, 3, 4))
    found = products.convolve(s, kernel, pads)
    np.testing.assert_allclose(found, by_sums(s, kernel, pads), atol=1e-13)


@pytest.mark.parametrize('pads', PADS)
@pytest.mark.parametrize('size', [(1, 1), (3, 3), (2, 3)])
def test_transposed_is_the_transpose(pads, size):
    """Every entry of its matrix: that of the convolution, by sums, transposed."""
    shape, kernel = (1, 4, 5, 2), draw(1, (*size, 2, 2))
    units = np.eye(int(np.prod(shape))).reshape(-1, *shape)
    matrix = np.stack([by_sums(unit, kernel, pads).ravel() for unit in units])
    out = by_sums(units[0], kernel, pads).shape
    r = draw(2, out)
    back = products.transposed(r, kernel, pads)
    assert back.shape == shape
    np.testing.assert_allclose(back.ravel(), matrix @ np.ravel(r), atol=1e-13)


@pytest.mark.parametrize('shape', [(4,), (3, 4), (2, 3, 4)])
def test_multiplication_is_the_sum(shape):
    s, kernel = draw(0, shape), draw(1, (4, 2))
    expected = np.einsum('...m,mn->...n', np.asarray(s), np.asarray(kernel))
    np.testing.assert_allclose(products.multiply(s, kernel), expected, atol=1e-14)


@pytest.mark.parametrize('case', CASES)
def test_derivatives_are_those_of_jax(case):
    """Both modes, both factors, and the second order of either in either order."""
    ours, theirs, s_shape, kernel_shape = CASES[case]
    args = draw(0, s_shape), draw(1, kernel_shape)
    moves = draw(2, s_shape), draw(3, kernel_shape)

    def derivatives(product):
        def bent(s, kernel):  # a scalar with every second derivative
            return jnp.sum(jnp.sin(product(s, kernel)))

        def along(grad):
            return lambda s, kernel: sum(
                jnp.vdot(move, g)
                for move, g in zip(moves, grad(s, kernel), strict=True)
            )

        @jax.jit
        def evaluate(args):
            z, pullback = jax.vjp(product, *args)
            gradient = jax.grad(bent, argnums=(0, 1))
            return {
                'jvp': jax.jvp(product, args, moves),
                'vjp': pullback(jnp.cos(z)),
                'reverse over reverse': jax.grad(along(gradient), (0, 1))(*args),
                'forward over reverse': jax.jvp(gradient, args, moves),
                'forward twice': jax.jvp(
                    lambda *args: jax.jvp(product, args, moves)[1], args, moves
                ),
            }

        return evaluate(args)

    found, expected = derivatives(ours), derivatives(theirs)
    for name in expected:
        for a, b in zip(
            jax.tree.leaves(found[name]), jax.tree.leaves(expected[name]), strict=True
        ):
            assert a.dtype == jnp.float64
            np.testing.assert_allclose(a, b, atol=1e-12, err_msg=name)


@pytest.mark.parametrize('axes', [(1, None), (None, 2), (2, 1)])
@pytest.mark.parametrize('case', CASES)
def test_batching_is_a_loop(case, axes):
    product, _, *shapes = CASES[case]
    several = [
        draw(index, shape if axis is None else (*shape[:axis], 3, *shape[axis:]))
        for index, (shape, axis) in enumerate(zip(shapes, axes, strict=True))
    ]

    def bent(s, kernel):
        return jnp.sum(jnp.sin(product(s, kernel)))

    functions = (product, jax.grad(bent, argnums=(0, 1)))
    for fn in functions:
        found = jax.jit(jax.vmap(fn, axes))(*several)
        for index in range(3):
            one = [
                value if axis is None else jnp.take(value, index, axis)
                for value, axis in zip(several, axes, strict=True)
            ]
            for a, b in zip(
                jax.tree.leaves(found), jax.tree.leaves(jax.jit(fn)(*one)), strict=True
            ):
                np.testing.assert_allclose(a[index], b, atol=1e-12)


def rounded(value, precision):
    """Returns float32 numbers rounded to nearest, ties to even, by their bits."""
    if precision == 'float32':
        return np.asarray(value, np.float64)
    cut = 23 - {'tf32': 10, 'bfloat16': 7}[precision]
    bits = np.asarray(value, np.float32).view(np.uint32).astype(np.uint64)
    odd = (bits >> cut) & 1
    bits = (bits + (1 << (cut - 1)) - 1 + odd) >> cut << cut
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)


@pytest.mark.parametrize('unit', [False, True])
@pytest.mark.parametrize('precision', ways.ROUNDING)
@pytest.mark.parametrize('case', CASES)
def test_precisions_round_the_factors_only(case, precision, unit, monkeypatch):
    """In every direction; with a unit for bfloat16, which multiplies, and without."""
    monkeypatch.setattr(ways, 'has_unit', lambda: unit)
    product, exact, *shapes = CASES[case]
    s, kernel = (draw(index, shape, jnp.float32) for index, shape in enumerate(shapes))
    wide = [rounded(factor, precision) for factor in (s, kernel)]
    expected, back = jax.vjp(exact, *wide)
    r = draw(2, expected.shape, jnp.float32)

    @jax.jit
    def forward_and_back(s, kernel, r):
        z, pullback = jax.vjp(product, s, kernel)
        return z, *pullback(r)

    with ways.taken(precision):
        text = forward_and_back.lower(s, kernel, r).as_text()
        z, *_ = found = forward_and_back(s, kernel, r)
    assert ('xbf16>' in text) == (unit and precision == 'bfloat16')
    for a, b in zip(found, (expected, *back(rounded(r, precision))), strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, atol=2e-5)
    off = np.abs(exact(s.astype(float), kernel.astype(float)) - z).max()
    bound = ways.ROUNDING[precision]
    assert bound / 20 <= off < max(30 * bound, 1e-5)  # and they do round


@pytest.mark.parametrize('precision', ways.ROUNDING)
@pytest.mark.parametrize('pads', PADS)
def test_ways_to_write_a_convolution_agree(precision, pads):
    s, kernel = draw(0, (2, 6, 6, 3)), draw(1, (3, 3, 3, 4))
    found = {}
    for way in ways.CONVOLUTIONS:
        with ways.taken(precision, way):
            fn = jax.jit(lambda s, k: products.convolve(s, k, pads))
            found[way] = fn(s, kernel)
            text = fn.lower(s, kernel).as_text()
        assert ('stablehlo.convolution' in text) == (way == 'native')
    np.testing.assert_allclose(*found.values(), atol=1e-12)


def test_a_way_ends_where_it_was_opened_and_its_transposes_keep_it():
    s, kernel = draw(0, (3, 4), jnp.float32), draw(1, (4, 2), jnp.float32)
    exact = products.multiply(s, kernel)
    with ways.taken('bfloat16'):
        coarse, pullback = jax.vjp(products.multiply, s, kernel)
        with ways.taken('float32'):
            inner = products.multiply(s, kernel)
    np.testing.assert_array_equal(inner, exact)
    np.testing.assert_array_equal(products.multiply(s, kernel), exact)
    assert jnp.abs(coarse - exact).max() > 1e-4
    text = str(jax.make_jaxpr(pullback)(coarse))
    assert text.count("precision='bfloat16'") == 2, text


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (('half',), "'half'.*float32, tf32, bfloat16"),
        (('tf32', 'fft'), "'fft'.*native"),
    ],
)
def test_unknown_ways_are_refused(args, words):
    with pytest.raises(ValueError, match=words), ways.taken(*args):
        pass


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.float64])
@pytest.mark.parametrize('case', CASES)
def test_types_are_kept(case, dtype):
    product, _, *shapes = CASES[case]
    args = [draw(index, shape, dtype) for index, shape in enumerate(shapes)]
    z, pullback = jax.vjp(product, *args)
    assert {z.dtype, *(g.dtype for g in pullback(z))} == {jnp.dtype(dtype)}


@pytest.mark.parametrize('evaluate', [jax.jit, lambda fn: fn])
def test_factors_that_do_not_fit_are_refused(evaluate):
    """By the primitives themselves, whatever checks the annotations."""
    way = ways.Way()
    multiply = evaluate(lambda s, k: products.multiply_p.bind(s, k, way=way))
    convolve = evaluate(
        lambda s, k: products.convolve_p.bind(s, k, pads=PADS[0], way=way)
    )
    s = jnp.ones((1, 3, 3, 2), jnp.float32)
    with pytest.raises(TypeError, match='maps are float32 and weights float64'):
        convolve(s, jnp.ones((3, 3, 2, 2), jnp.float64))
    with pytest.raises(TypeError, match='maps are float32 and weights float16'):
        multiply(s, jnp.ones((2, 2), jnp.float16))
    with pytest.raises(TypeError, match='do not fit a kernel of shape'):
        convolve(s, jnp.ones((3, 3, 4, 2), jnp.float32))
    with pytest.raises(TypeError, match=r'shape \(1, 3, 3, 2\) do not fit weights'):
        multiply(s, jnp.ones((3, 2), jnp.float32))


BUILT = [n for n in zoo.ZOO if n not in ('primitive', 'energy', 'drive', 'predictive')]


@pytest.mark.parametrize('animal', BUILT)
def test_every_product_of_a_system_is_at_full_precision(animal):
    """Also that with the input, and those of gradients, where hardware would round."""
    system, params, batch = zoo.setting(animal, jnp.float32)

    def evaluate(params, batch):
        injection = system.inject(params, batch.x)
        rates = system.rates(system.rest(injection))
        drive = system.drive(params, injection, rates)
        return drive, system.cost(params, rates, batch.y)

    def forward_and_back(params, batch):
        values, pullback = jax.vjp(evaluate, params, batch)
        return values, pullback(values)

    text = jax.jit(forward_and_back).lower(params, batch).as_text()
    found = [
        line
        for line in text.splitlines()
        if 'stablehlo.dot_general' in line or 'stablehlo.convolution' in line
    ]
    assert found
    assert all(line.count('HIGHEST') == 2 for line in found), found


@pytest.mark.parametrize('pads', PADS)
def test_complex_maps_are_two_real_ones(pads):
    parts = draw(0, (2, 4, 5, 3)), draw(1, (2, 4, 5, 3))
    kernel = draw(2, (2, 2, 3, 2))
    found = linear.conv(lax.complex(*parts), kernel, pads)
    expected = [by_sums(part, kernel, pads) for part in parts]
    np.testing.assert_allclose(found.real, expected[0], atol=1e-13)
    np.testing.assert_allclose(found.imag, expected[1], atol=1e-13)
