"""Products of real maps with weights, and their transposes, each fast inside of loops.

    multiply    z = s W          s [*B, m], W [m, n]
    convolve    z = s ∗ K        z_yxn = Σ_ijm s_{y+i,x+j,m} K_ijmn

The transposes that JAX writes for `lax.conv_general_dilated` are convolutions of an
unusual layout, which XLA computes on a CPU inside of a loop without its matrix kernels,
up to fifty times slower, and relaxation is a loop. Here the transpose in the map is the
same convolution with the kernel turned around, and that in the kernel is a matrix
product of patches (on a CPU; elsewhere JAX's own).

The type of the weights says how exact a product is. Weights of the maps' own type
multiply at full precision, also where the hardware would round float32 by default,
unless `jax_default_matmul_precision` is set ('tensorfloat32': ten bits on a GPU).
Weights in bfloat16 round the map to bfloat16, too, and are summed up in the map's type:
what matrix units are built for, in either direction of the transpose.

The primitives are bilinear: forward and reverse mode of any order, `vmap` and
`jax.export` go through.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

Pads = Sequence[tuple[int, int]]


def convolve(
    s: Float[Array, 'B H W m'], kernel: Float[Array, 'h w m n'], pads: Pads
) -> Float[Array, 'B Hp Wp n']:
    """Returns the cross-correlation with stride 1.

    Args:
      s: maps.
      kernel: weights, of the same type or bfloat16.
      pads: zeros before and behind each axis of a map; negative ones cut it.
    """
    return convolve_p.bind(s, kernel, pads=tuple(map(tuple, pads)))


def transposed(
    r: Float[Array, 'B Hp Wp n'], kernel: Float[Array, 'h w m n'], pads: Pads
) -> Float[Array, 'B H W m']:
    """Returns the transpose of `convolve` in s, applied to r.

    Args:
      r: what `convolve` returns.
      kernel: its weights.
      pads: its padding.
    """
    turned = jnp.swapaxes(jnp.flip(kernel, (0, 1)), 2, 3)
    back = [
        (extent - 1 - low, extent - 1 - high)
        for extent, (low, high) in zip(kernel.shape[:2], pads, strict=True)
    ]
    return convolve(r, turned, back)


def multiply(
    s: Float[Array, '*B m'], kernel: Float[Array, 'm n']
) -> Float[Array, '*B n']:
    """Returns s W.

    Args:
      s: maps.
      kernel: weights, of the same type or bfloat16.
    """
    return multiply_p.bind(s, kernel)


def _multiply(s: Array, kernel: Array) -> Array:
    return jnp.matmul(
        s.astype(kernel.dtype),
        kernel,
        precision=_precision(),
        preferred_element_type=s.dtype,
    )


def _precision() -> str | lax.Precision:
    """Returns JAX's own setting if there is one, full precision otherwise."""
    own = jax.config.jax_default_matmul_precision  # ty: ignore[missing-attribute]
    return own or lax.Precision.HIGHEST


def _multiply_shape(s: ShapedArray, kernel: ShapedArray) -> ShapedArray:
    if kernel.ndim != 2 or not s.ndim or s.shape[-1] != kernel.shape[0]:
        raise TypeError(
            f'maps of shape {s.shape} do not fit weights of shape {kernel.shape}'
        )
    _check_types(s, kernel)
    return ShapedArray((*s.shape[:-1], kernel.shape[1]), s.dtype)


def _multiply_weights(r: Array, s: Array, kernel: Any) -> Array:
    rows = [value.reshape(-1, value.shape[-1]) for value in (s, r)]
    return multiply(rows[0].T, rows[1]).astype(kernel.aval.dtype)


def _multiply_batch(args: tuple, axes: tuple) -> tuple[Array, int]:
    (s, kernel), (s_axis, kernel_axis) = args, axes
    if kernel_axis is not None:
        return jax.vmap(_multiply, axes)(s, kernel), 0
    return multiply(jnp.moveaxis(s, s_axis, 0), kernel), 0


def _check_types(s: ShapedArray, kernel: ShapedArray) -> None:
    if kernel.dtype not in (s.dtype, jnp.bfloat16):
        raise TypeError(
            f'maps are {s.dtype} and weights {kernel.dtype}: they have one type, '
            'or the weights are bfloat16'
        )


def _convolve(s: Array, kernel: Array, *, pads: Pads) -> Array:
    height, width, _, n = kernel.shape
    if s.shape[1] * s.shape[2] <= height * width:
        # Of a map smaller than its kernel XLA exchanges the two, into a slow layout.
        return _multiply(_patches(s, (height, width), pads), kernel.reshape(-1, n))
    return lax.conv_general_dilated(
        s.astype(kernel.dtype),
        kernel,
        (1, 1),
        pads,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        precision=_precision(),
        preferred_element_type=s.dtype,
    )


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


def _convolve_shape(s: ShapedArray, kernel: ShapedArray, *, pads: Pads) -> ShapedArray:
    if s.ndim != 4 or kernel.ndim != 4 or s.shape[3] != kernel.shape[2]:
        raise TypeError(
            f'maps of shape {s.shape} do not fit a kernel of shape {kernel.shape}: '
            'they are [B, H, W, m] and [h, w, m, n]'
        )
    _check_types(s, kernel)
    height, width = (
        extent + low + high - size + 1
        for extent, size, (low, high) in zip(
            s.shape[1:3], kernel.shape[:2], pads, strict=True
        )
    )
    return ShapedArray((s.shape[0], height, width, kernel.shape[3]), s.dtype)


def _convolve_map(r: Array, s: Any, kernel: Array, *, pads: Pads) -> Array:
    del s
    return transposed(r, kernel, pads)


def _convolve_kernel(r: Array, s: Array, kernel: Any, *, pads: Pads) -> Array:
    height, width, m, n = kernel.aval.shape

    def products(s: Array, r: Array) -> Array:
        seen = _patches(s, (height, width), pads)
        rows = [value.reshape(-1, value.shape[-1]) for value in (seen, r)]
        return multiply(rows[0].T, rows[1]).reshape(height, width, m, n)

    def native(s: Array, r: Array) -> Array:
        like = jax.ShapeDtypeStruct((height, width, m, n), s.dtype)
        transpose = jax.linear_transpose(lambda k: _convolve(s, k, pads=pads), like)
        return transpose(r)[0]

    weights = lax.platform_dependent(s, r, cpu=products, default=native)
    return weights.astype(kernel.aval.dtype)


def _convolve_batch(args: tuple, axes: tuple, *, pads: Pads) -> tuple[Array, int]:
    (s, kernel), (s_axis, kernel_axis) = args, axes
    if kernel_axis is not None:  # weights of several networks: a grouped convolution
        several = jax.vmap(lambda s, k: _convolve(s, k, pads=pads), axes)
        return several(s, kernel), 0
    s = jnp.moveaxis(s, s_axis, 0)
    z = convolve(s.reshape(-1, *s.shape[2:]), kernel, pads)
    return z.reshape(*s.shape[:2], *z.shape[1:]), 0


def _multiply_map(r: Array, s: Any, kernel: Array) -> Array:
    del s
    return multiply(r, kernel.T)


def _primitive(
    name: str,
    fn: Callable,
    shape: Callable,
    to_map: Callable,
    to_kernel: Callable,
    batch: Callable,
) -> Primitive:
    """Returns a bilinear primitive from its function, transposes and batching."""
    primitive = Primitive(name)
    primitive.def_impl(jax.jit(primitive.bind, static_argnames='pads'))
    primitive.def_abstract_eval(shape)
    ad.defbilinear(primitive, to_map, to_kernel)
    batching.primitive_batchers[primitive] = batch
    mlir.register_lowering(primitive, mlir.lower_fun(fn, multiple_results=False))
    return primitive


multiply_p = _primitive(
    'multiply',
    _multiply,
    _multiply_shape,
    _multiply_map,
    _multiply_weights,
    _multiply_batch,
)
convolve_p = _primitive(
    'convolve',
    _convolve,
    _convolve_shape,
    _convolve_map,
    _convolve_kernel,
    _convolve_batch,
)
