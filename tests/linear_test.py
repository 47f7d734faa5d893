"""Real weights on complex states against complex128 arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqprop_jax as ep
from eqprop_jax import linear, tree

KEYS = jax.random.split(jax.random.key(0), 8)
PADDINGS = ['SAME', 'VALID', ((1, 0), (2, 1))]


def draw(index, shape, dtype=jnp.float64):
    return jax.random.normal(KEYS[index], shape, dtype)


def draw_complex(index, shape, imaginary=1.0):
    return draw(index, shape) + 1j * imaginary * draw(index + 4, shape)


def test_dense_is_the_complex_product():
    s, r, W = draw_complex(0, (5, 4)), draw_complex(1, (5, 3)), draw(2, (4, 3))
    s_, r_, W_ = map(np.asarray, (s, r, W))
    np.testing.assert_allclose(linear.dense(s, W), s_ @ W_, rtol=1e-13)
    np.testing.assert_allclose(linear.dense_transpose(r, W), r_ @ W_.T, rtol=1e-13)
    np.testing.assert_allclose(linear.dense(s.real, W), s_.real @ W_, rtol=1e-13)


def direct_convolution(s, kernel, pads):
    """Cross-correlation by its sum, in complex128."""
    padded = np.pad(s, ((0, 0), *pads, (0, 0)))
    height, width = kernel.shape[:2]
    rows, columns = padded.shape[1] - height + 1, padded.shape[2] - width + 1
    out = np.zeros((s.shape[0], rows, columns, kernel.shape[3]), s.dtype)
    for i in range(height):
        for j in range(width):
            out += padded[:, i : i + rows, j : j + columns] @ kernel[i, j]
    return out


@pytest.mark.parametrize(
    ('padding', 'pads'),
    [
        ('SAME', ((1, 1), (1, 1))),
        ('VALID', ((0, 0), (0, 0))),
        (((1, 0), (2, 1)), ((1, 0), (2, 1))),
    ],
)
def test_conv_is_the_complex_convolution(padding, pads):
    s, kernel = draw_complex(0, (2, 5, 6, 3)), draw(1, (3, 3, 3, 4))
    expected = direct_convolution(np.asarray(s), np.asarray(kernel), pads)
    np.testing.assert_allclose(linear.conv(s, kernel, padding), expected, rtol=1e-10)


@pytest.mark.parametrize('padding', PADDINGS)
def test_conv_transpose_is_the_adjoint(padding):
    """⟨r, K s⟩ = ⟨Kᵀ r, s⟩ without conjugation."""
    s, kernel = draw_complex(0, (2, 5, 6, 3)), draw(1, (3, 3, 3, 4))
    image = linear.conv(s, kernel, padding)
    r = draw_complex(2, image.shape)
    back = linear.conv_transpose(r, kernel, s.shape[1:3], padding)
    assert back.shape == s.shape
    np.testing.assert_allclose(jnp.sum(r * image), jnp.sum(back * s), rtol=1e-11)


def test_the_imaginary_part_survives_in_single_precision():
    """A complex convolution loses it when it is small: relative error 4e-2 here."""
    s = draw_complex(0, (2, 8, 8, 16), imaginary=1e-5)
    kernel = draw(1, (3, 3, 16, 16))
    exact = linear.conv(s, kernel).imag
    single = linear.conv(s.astype(jnp.complex64), kernel.astype(jnp.float32))
    assert single.dtype == jnp.complex64
    assert jnp.linalg.norm(single.imag - exact) / jnp.linalg.norm(exact) < 1e-6


def test_gradients_go_through_the_split():
    """vjp of a holomorphic function is the plain transpose, in s and in W."""
    s, W, r = draw_complex(0, (5, 4)), draw(1, (4, 3)), draw_complex(2, (5, 3))
    _, pullback = jax.vjp(linear.dense, s, W)
    to_s, to_W = pullback(r)
    np.testing.assert_allclose(to_s, r @ W.T, rtol=1e-13)
    np.testing.assert_allclose(to_W, (s.T @ r).real, rtol=1e-12)


def test_angle_is_that_of_arccos_and_keeps_small_ones():
    a, b = draw(0, (4, 3)), draw(1, (4, 3))
    cosine = np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b)
    assert linear.angle(a, b) == pytest.approx(np.degrees(np.arccos(cosine)))
    tilted = a + 1e-9 * linear.rotate(KEYS[2], a, 90.0)
    assert linear.angle(a, tilted) == pytest.approx(np.degrees(1e-9), rel=1e-6)
    assert linear.angle(a, -2 * a) == pytest.approx(180.0)


@pytest.mark.parametrize('degrees', [0.0, 15.0, 60.0, 90.0, 135.0, 180.0])
def test_rotation_has_the_angle_and_the_norm(degrees):
    W = draw(0, (6, 5))
    turned = linear.rotate(KEYS[1], W, degrees)
    assert linear.angle(W, turned) == pytest.approx(degrees, abs=1e-9)
    assert jnp.linalg.norm(turned) == pytest.approx(float(jnp.linalg.norm(W)))
    with pytest.raises(ValueError, match='0 and 180'):
        linear.rotate(KEYS[1], W, 190.0)


@pytest.mark.parametrize(('degrees', 'sign'), [(0, 1), (0.0, 1), (180.0, -1)])
def test_a_single_entry_is_kept_or_turned_around(degrees, sign):
    """It has no other direction; nor do zeros, whatever their number."""
    for W in (jnp.array([[-1.5]]), jnp.zeros((2, 3))):
        np.testing.assert_array_equal(linear.rotate(KEYS[1], W, degrees), sign * W)
    with pytest.raises(ValueError, match='angle is 0 or 180 degrees, not 90'):
        linear.rotate(KEYS[1], jnp.array([[-1.5]]), 90.0)
    system = ep.systems.mlp((3, 1, 1, 2), feedback='free', angle=degrees)
    params = system.init(KEYS[0], jnp.ones((2, 3)))
    kernel, feedback = params['layer_2']['kernel'], params['layer_1']['feedback']
    np.testing.assert_array_equal(feedback, sign * kernel.T)


def test_tree_arithmetic_on_complex_leaves():
    a = {'p': draw_complex(0, (3, 2)), 'q': draw_complex(1, (3, 4, 2))}
    b = {'p': draw_complex(2, (3, 2)), 'q': draw_complex(3, (3, 4, 2))}
    flat_a, flat_b = (
        np.concatenate(
            [np.asarray(t['p']).reshape(3, -1), np.asarray(t['q']).reshape(3, -1)], 1
        )
        for t in (a, b)
    )
    np.testing.assert_allclose(tree.vdot(a, b), np.vdot(flat_a, flat_b))
    np.testing.assert_allclose(tree.norm(a), np.linalg.norm(flat_a))
    np.testing.assert_allclose(
        tree.per_example_vdot(a, b), np.sum(flat_a.conj() * flat_b, axis=1)
    )
    np.testing.assert_allclose(tree.per_example_norm(a), np.linalg.norm(flat_a, axis=1))
    chosen = tree.select(jnp.array([True, False, True]), a, b)
    np.testing.assert_array_equal(chosen['q'][1], b['q'][1])
    np.testing.assert_array_equal(chosen['p'][2], a['p'][2])


@pytest.mark.parametrize('keep', [[0, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]])
def test_what_is_left_out_is_filled_with_the_first_that_is_kept(keep):
    """Of any type; by the first of all where none is kept."""
    keep = np.array(keep, bool)
    a = {
        'p': np.array(draw(0, (4, 3))),
        'q': np.arange(8, dtype=np.uint8).reshape(4, 2),
    }
    a['p'][2] = np.nan
    found = jax.jit(tree.fill)(keep, a)
    sources = [index if kept else np.argmax(keep) for index, kept in enumerate(keep)]
    for name, leaf in a.items():
        assert found[name].dtype == leaf.dtype
        np.testing.assert_array_equal(found[name], leaf[sources])
        np.testing.assert_array_equal(
            tree.fill(jnp.array(keep), a)[name], leaf[sources]
        )


def test_a_gradient_masked_after_the_filling_is_that_of_the_others():
    """x/|x| of zeros and NaN: masked alone it has the gradient NaN."""
    x = draw(0, (4, 3)).at[1].set(0.0).at[2].set(jnp.nan)
    keep, W = jnp.array([True, False, False, True]), draw(1, (3, 2))

    def total(W, x, keep):
        values = jnp.sum((x / jnp.linalg.norm(x @ W, axis=1, keepdims=True)) @ W, 1)
        return jnp.sum(jnp.where(keep, values, 0))

    assert jnp.isnan(jax.grad(total)(W, x, keep)).any()
    found = jax.grad(total)(W, tree.fill(keep, x), keep)
    wanted = jax.grad(total)(W, x[keep], keep[keep])
    np.testing.assert_allclose(found, wanted, rtol=1e-13)
