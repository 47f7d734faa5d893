"""Real weights on real or complex states, and angles between weights.

A complex product with real weights is two real ones. Written as such it costs twice
a real product instead of four to ten times, and the imaginary part, which carries
the signal of a small complex nudge, is not lost in cancellations.

    dense(s, W)            = s W                 s [B, m], W [m, n]
    dense_transpose(r, W)  = r Wᵀ                r [B, n]
    conv(s, K)             = s ∗ K               s [B, H, W, m], K [h, w, m, n]
    conv_transpose(r, K)   = the transpose of conv as a linear map

All are linear in either argument, so `jax.grad`, `jax.jvp` and `jax.vjp` go through.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Inexact

from eqprop_jax import _products as products
from eqprop_jax import tree

Padding = str | Sequence[tuple[int, int]]


def dense(s: Inexact[Array, '*B m'], kernel: Float[Array, 'm n']) -> Array:
    """Returns s W, shape [*B, n], real or complex as s is."""
    return tree.on_parts(lambda part: products.multiply(part, kernel))(s)


def dense_transpose(r: Inexact[Array, '*B n'], kernel: Float[Array, 'm n']) -> Array:
    """Returns r Wᵀ, shape [*B, m], real or complex as r is."""
    return tree.on_parts(lambda part: products.multiply(part, kernel.T))(r)


def conv(
    s: Inexact[Array, 'B H W m'],
    kernel: Float[Array, 'h w m n'],
    padding: Padding = 'SAME',
) -> Array:
    """Returns the cross-correlation of s with the kernel, stride 1, [B, H', W', n].

    Args:
      s: images, real or complex.
      kernel: real weights.
      padding: 'SAME', 'VALID' or ((low, high), (low, high)).
    """
    pads = _pads(s.shape[1:3], kernel, padding)
    return tree.on_parts(lambda part: products.convolve(part, kernel, pads))(s)


def conv_transpose(
    r: Inexact[Array, 'B Hp Wp n'],
    kernel: Float[Array, 'h w m n'],
    image_shape: tuple[int, int],
    padding: Padding = 'SAME',
) -> Array:
    """Returns the transpose of `conv` applied to r, [B, *image_shape, m].

    Args:
      r: what `conv` returns for images of `image_shape`, real or complex.
      kernel: the weights of that `conv`.
      image_shape: height and width of the images that `conv` would take.
      padding: the padding of that `conv`.
    """
    pads = _pads(image_shape, kernel, padding)
    return tree.on_parts(lambda part: products.transposed(part, kernel, pads))(r)


def angle(a: Float[Array, '...'], b: Float[Array, '...']) -> Float[Array, '']:
    """Returns the angle between two arrays of one shape, in degrees, 0 to 180.

        angle = 2 atan2(‖â − b̂‖, ‖â + b̂‖)     with â = a/‖a‖, b̂ = b/‖b‖

    which unlike arccos keeps its precision near 0 and 180 (Kahan 2006, "How futile
    are mindless assessments of roundoff", section 12). NaN if either is zero.

    Examples:
      >>> f'{angle(jnp.array([1.0, 0.0]), jnp.array([1.0, 1.0])):.1f}'
      '45.0'
    """
    a, b = a / jnp.linalg.norm(a), b / jnp.linalg.norm(b)
    return jnp.degrees(2 * jnp.arctan2(jnp.linalg.norm(a - b), jnp.linalg.norm(a + b)))


def rotate(
    rng: jax.Array, reference: Float[Array, '...'], degrees: float
) -> Float[Array, '...']:
    """Returns an array at a given angle to the reference, with the same norm.

        cos(degrees) W + sin(degrees) ‖W‖ R,   R random, ‖R‖ = 1, ⟨R, W⟩ = 0

    Args:
      rng: key of the random direction R.
      reference: W, of any shape.
      degrees: the angle, 0 to 180; of a single entry one of the two.

    Raises:
      ValueError: if the angle lies outside 0 to 180 degrees, or between them where a
        single entry leaves no direction to turn to.
    """
    if not 0 <= degrees <= 180:
        raise ValueError(f'an angle lies between 0 and 180 degrees, not {degrees}')
    if degrees in (0, 180):
        return -reference if degrees else reference
    if reference.size < 2:
        raise ValueError(
            f'an array of shape {reference.shape} has no direction to turn to: its '
            f'angle is 0 or 180 degrees, not {degrees}'
        )
    length = jnp.linalg.norm(reference)
    direction = jax.random.normal(rng, reference.shape, reference.dtype)
    direction -= reference * (jnp.sum(direction * reference) / length**2)
    direction *= length / jnp.linalg.norm(direction)
    theta = jnp.deg2rad(jnp.asarray(degrees, reference.dtype))
    return jnp.cos(theta) * reference + jnp.sin(theta) * direction


def _pads(
    image_shape: Sequence[int], kernel: Array, padding: Padding
) -> Sequence[tuple[int, int]]:
    """Returns the zeros before and behind each axis of an image."""
    if not isinstance(padding, str):
        return padding
    return lax.padtype_to_pads(image_shape, kernel.shape[:2], (1, 1), padding)
