"""Products of real maps with weights, in all directions, each fast inside of loops.

    multiply     z = s W                          s [*B, m], W [m, n]
    convolve     z = s ∗ K                        z_yxn = Σ_ijm s_{y+i,x+j,m} K_ijmn
    correlate    the transpose of s ∗ K in K      Σ_yx s_{y+i,x+j,m} r_yxn

The transpose of a convolution in the map is the same convolution with the kernel turned
around. All are bilinear and each other's transposes, so that forward and reverse mode
of any order, `vmap` and `jax.export` go through. How exact they are, and how they are
written, is decided where they are called (`precision.taken`), and holds for their
transposes; what is computed is in `lowered`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from eqprop_jax import _lowered as lowered
from eqprop_jax._lowered import Pads
from eqprop_jax._precision import Way, current


def multiply(
    s: Float[Array, '*B m'], kernel: Float[Array, 'm n']
) -> Float[Array, '*B n']:
    """Returns s W, for maps and weights of one type."""
    return multiply_p.bind(s, kernel, way=current())


def convolve(
    s: Float[Array, 'B H W m'], kernel: Float[Array, 'h w m n'], pads: Pads
) -> Float[Array, 'B Hp Wp n']:
    """Returns the cross-correlation with stride 1, for maps and weights of one type.

    `pads` are zeros before and behind each axis of a map; negative ones cut it.
    """
    return convolve_p.bind(s, kernel, pads=tuple(map(tuple, pads)), way=current())


def transposed(
    r: Float[Array, 'B Hp Wp n'], kernel: Float[Array, 'h w m n'], pads: Pads
) -> Float[Array, 'B H W m']:
    """Returns the transpose of `convolve` in s, applied to r."""
    return _transposed(r, kernel, pads=pads, way=current())


def _transposed(r: Array, kernel: Array, *, pads: Pads, way: Way) -> Array:
    turned = jnp.swapaxes(jnp.flip(kernel, (0, 1)), 2, 3)
    back = tuple(
        (extent - 1 - low, extent - 1 - high)
        for extent, (low, high) in zip(kernel.shape[:2], pads, strict=True)
    )
    return convolve_p.bind(r, turned, pads=back, way=way)


def _multiply_shape(s: ShapedArray, kernel: ShapedArray, *, way: Way) -> ShapedArray:
    del way
    several = kernel.ndim == 3  # those of several networks, [P, m, n], s [P, b, m]
    fits = s.ndim == 3 and s.shape[0] == kernel.shape[0] if several else s.ndim > 0
    if kernel.ndim not in (2, 3) or not fits or s.shape[-1] != kernel.shape[-2]:
        raise TypeError(
            f'maps of shape {s.shape} do not fit weights of shape {kernel.shape}'
        )
    _check_types(s, kernel)
    return ShapedArray((*s.shape[:-1], kernel.shape[-1]), s.dtype)


def _convolve_shape(
    s: ShapedArray, kernel: ShapedArray, *, pads: Pads, way: Way
) -> ShapedArray:
    del way
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


def _correlate_shape(
    s: ShapedArray, r: ShapedArray, *, pads: Pads, way: Way
) -> ShapedArray:
    del way
    return ShapedArray(lowered.kernel_shape(s, r, pads), s.dtype)


def _check_types(s: ShapedArray, kernel: ShapedArray) -> None:
    if kernel.dtype != s.dtype:
        raise TypeError(
            f'maps are {s.dtype} and weights {kernel.dtype}: they have one type, so '
            'convert the input, or the parameters'
        )


def _multiply_batch(args: tuple, axes: tuple, *, way: Way) -> tuple[Array, int]:
    (s, kernel), (s_axis, kernel_axis) = args, axes
    if kernel.ndim - (kernel_axis is not None) == 3:
        return _one_by_one(multiply_p, args, axes, way=way)
    if kernel_axis is None:
        return multiply_p.bind(jnp.moveaxis(s, s_axis, 0), kernel, way=way), 0
    kernel = jnp.moveaxis(kernel, kernel_axis, 0)
    count, _, n = kernel.shape
    shape = (count, *s.shape)
    s = jnp.broadcast_to(s, shape) if s_axis is None else jnp.moveaxis(s, s_axis, 0)
    z = multiply_p.bind(s.reshape(count, -1, s.shape[-1]), kernel, way=way)
    return z.reshape(*s.shape[:-1], n), 0


def _convolve_batch(args: tuple, axes: tuple, **how: Any) -> tuple[Array, int]:
    (s, kernel), (s_axis, kernel_axis) = args, axes
    if kernel_axis is not None:  # what JAX makes of it, a grouped convolution, is slow
        return _one_by_one(convolve_p, args, axes, **how)
    s = jnp.moveaxis(s, s_axis, 0)
    z = convolve_p.bind(s.reshape(-1, *s.shape[2:]), kernel, **how)
    return z.reshape(*s.shape[:2], *z.shape[1:]), 0


def _one_by_one(
    primitive: Primitive, args: tuple, axes: tuple, **how: Any
) -> tuple[Array, int]:
    count = next(
        arg.shape[axis]
        for arg, axis in zip(args, axes, strict=True)
        if axis is not None
    )

    def at(index: int) -> list[Array]:
        return [
            arg if axis is None else lax.index_in_dim(arg, index, axis, keepdims=False)
            for arg, axis in zip(args, axes, strict=True)
        ]

    return jnp.stack([primitive.bind(*at(i), **how) for i in range(count)]), 0


def _multiply_weights(r: Array, s: Array, kernel: Any, *, way: Way) -> Array:
    if kernel.aval.ndim == 2:
        s, r = (value.reshape(-1, value.shape[-1]) for value in (s, r))
    return multiply_p.bind(jnp.swapaxes(s, -1, -2), r, way=way)


def _multiply_map(r: Array, s: Any, kernel: Array, *, way: Way) -> Array:
    del s
    return multiply_p.bind(r, jnp.swapaxes(kernel, -1, -2), way=way)


def _primitive(
    name: str,
    fn: Callable,
    shape: Callable,
    batch: Callable | None,
    *transposes: Callable,
) -> Primitive:
    """Returns a bilinear primitive, computed by fn(first, second, on_cpu=..., ...).

    Its `shape` follows from those of the factors; `batch` is its rule for `vmap`, by
    default one product after the other; its transposes in the first and in the second
    factor take (r, first, second), of which only the shape is known where it is sought.
    """
    primitive = Primitive(name)
    compiled = jax.jit(primitive.bind, static_argnames=('pads', 'way'))
    # Outside of `jit` it is a program of its own, also where `jit` is switched off.
    primitive.def_impl(jax.disable_jit(False)(compiled))
    primitive.def_abstract_eval(shape)
    ad.defbilinear(primitive, *transposes)
    batching.primitive_batchers[primitive] = batch or functools.partial(
        _one_by_one, primitive
    )
    for platform in ('cpu', None):
        here = functools.partial(fn, on_cpu=platform == 'cpu')
        rule = mlir.lower_fun(here, multiple_results=False)
        mlir.register_lowering(primitive, rule, platform=platform)
    return primitive


multiply_p = _primitive(
    'multiply',
    lowered.multiply,
    _multiply_shape,
    _multiply_batch,
    _multiply_map,
    _multiply_weights,
)
convolve_p = _primitive(
    'convolve',
    lowered.convolve,
    _convolve_shape,
    _convolve_batch,
    lambda r, s, kernel, **how: _transposed(r, kernel, **how),
    lambda r, s, kernel, **how: correlate_p.bind(s, r, **how),
)
correlate_p = _primitive(
    'correlate',
    lowered.correlate,
    _correlate_shape,
    None,
    lambda kernel, s, r, **how: _transposed(r, kernel, **how),
    lambda kernel, s, r, **how: convolve_p.bind(s, kernel, **how),
)
