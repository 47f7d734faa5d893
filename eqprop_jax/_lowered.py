"""What is computed for each product, on a CPU and elsewhere (`eqprop_jax._products`).

On a CPU, inside of a loop, XLA is slow at the transposes that JAX writes for a
convolution. The transpose in the kernel is written here as a convolution in which
examples take the place of channels:

    correlate(s, r)_ijmn = Σ_byx s_{b,y+i,x+j,m} r_byxn

which is as fast as a product of patches and needs no memory for them. Patches are taken
where a CPU multiplies matrices in bfloat16, and where a map is no larger than its
kernel: there XLA would exchange the two, into a slow layout.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from eqprop_jax._precision import Way, factors

Pads = Sequence[tuple[int, int]]


def multiply(s: Array, kernel: Array, *, way: Way, on_cpu: bool) -> Array:
    """Returns s W, [*B, n], for maps [*B, m] and weights [m, n].

    Weights of several networks, [P, m, n], take maps [P, b, m].
    """
    a, b, precision = factors(s, kernel, way, on_cpu)
    return jnp.matmul(a, b, precision=precision, preferred_element_type=s.dtype)


def convolve(s: Array, kernel: Array, *, pads: Pads, way: Way, on_cpu: bool) -> Array:
    """Returns s ∗ K, [B, H', W', n], for maps [B, H, W, m], weights [h, w, m, n]."""
    height, width, _, n = kernel.shape
    a, b, precision = factors(s, kernel, way, on_cpu)
    unit = on_cpu and a.dtype == jnp.bfloat16
    small = s.shape[1] * s.shape[2] <= height * width
    if (way.convolution or ('patches' if small or unit else 'native')) == 'patches':
        b = b.reshape(-1, n)
        if unit:  # whose fast path takes no factor that is turned on the way
            b = lax.optimization_barrier(b)
        seen = _patches(a, (height, width), pads)
        return jnp.matmul(seen, b, precision=precision, preferred_element_type=s.dtype)
    z = lax.conv_general_dilated(
        a,
        b,
        (1, 1),
        pads,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        precision=precision,
        # cuDNN is fast where bfloat16 comes out, too
        preferred_element_type=s.dtype if on_cpu else a.dtype,
    )
    return z.astype(s.dtype)


def correlate(
    s: Array, r: Array, *, pads: Pads, way: Way, on_cpu: bool
) -> Float[Array, 'h w m n']:
    """Returns the transpose of s ∗ K in K, applied to r, [B, H', W', n]."""
    height, width, m, n = kernel_shape(s, r, pads)
    if not on_cpu:
        like = jax.ShapeDtypeStruct((height, width, m, n), s.dtype)
        fn = functools.partial(convolve, s, pads=pads, way=way, on_cpu=False)
        return jax.linear_transpose(fn, like)(r)[0]
    a, b, precision = factors(s, r, way, on_cpu)
    if a.dtype == jnp.bfloat16:
        seen = _patches(a, (height, width), pads)
        rows, columns = (value.reshape(-1, value.shape[-1]) for value in (seen, b))
        product = jnp.matmul(rows.T, columns, preferred_element_type=s.dtype)
        return product.reshape(height, width, m, n)
    turned = lax.conv_general_dilated(  # examples are what is summed over
        jnp.transpose(a, (3, 1, 2, 0)),
        jnp.transpose(b, (1, 2, 0, 3)),
        (1, 1),
        pads,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        precision=precision,
    )
    return jnp.transpose(turned, (1, 2, 0, 3))


def _patches(s: Array, size: tuple[int, int], pads: Pads) -> Array:
    """Returns what the kernel sees at each position, [B, H', W', h w m]."""
    edges = [(low, high, 0) for low, high in ((0, 0), *pads, (0, 0))]
    s = lax.pad(s, jnp.zeros((), s.dtype), edges)
    rows, columns = (
        extent - k + 1 for extent, k in zip(s.shape[1:3], size, strict=True)
    )
    return jnp.concatenate(
        [
            s[:, i : i + rows, j : j + columns]
            for i in range(size[0])
            for j in range(size[1])
        ],
        axis=-1,
    )


def kernel_shape(s: Any, r: Any, pads: Pads) -> tuple[int, int, int, int]:
    """Returns (h, w, m, n) of the kernel that takes maps like s to maps like r."""
    height, width = (
        extent + low + high - out + 1
        for extent, out, (low, high) in zip(
            s.shape[1:3], r.shape[1:3], pads, strict=True
        )
    )
    return height, width, s.shape[3], r.shape[3]
