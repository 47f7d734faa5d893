"""Products of real maps with weights, in all directions, each fast inside of loops.

    multiply     z = s W                          s [*B, m], W [m, n]
    convolve     z = s ∗ K                        z_yxn = Σ_ijm s_{y+i,x+j,m} K_ijmn
    correlate    the transpose of s ∗ K in K      Σ_yx s_{y+i,x+j,m} r_yxn

The transposes that JAX writes for `lax.conv_general_dilated` are convolutions of an
unusual layout, which XLA computes on a CPU inside of a loop without its matrix kernels,
up to fifty times slower, and relaxation is a loop. Here the transpose in the map is the
same convolution with the kernel turned around, and that in the kernel is one of maps
that examples are the channels of. All are bilinear and each other's transposes, so that
forward and reverse mode of any order, `vmap` and `jax.export` go through.

How exact a product is, and how a convolution is written, is decided where it is called,
by `taken`. Every precision means the same on every machine:

    float32     factors and sums as they are, also where hardware would round them
    tf32        factors rounded to 11 bits, sums in float32
    bfloat16    factors rounded to 8 bits, sums in float32, on a GPU rounded to 8 in the
                end

A machine without a unit for it rounds the factors and multiplies in float32, which is
as exact and no faster.
"""

import contextlib
import functools
import pathlib
from collections.abc import Callable, Generator, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

Pads = Sequence[tuple[int, int]]
ROUNDING = {'float32': 0.0, 'tf32': 2.0**-11, 'bfloat16': 2.0**-8}
"""{precision: largest relative error of a factor}."""
CONVOLUTIONS = ('native', 'patches')
MANTISSA = {'tf32': 10, 'bfloat16': 7}


class Way(NamedTuple):
    """How products are taken."""

    precision: str = 'float32'
    convolution: str | None = None
    """'native', the machine's own; 'patches', a matrix product of what the kernel sees
    at each position; None: patches for bfloat16 on a CPU that has a unit for it, and
    for maps that are no larger than their kernel."""


FULL = Way()
_way: ContextVar[Way] = ContextVar('way', default=FULL)


@contextlib.contextmanager
def taken(precision: str, convolution: str | None = None) -> Generator[None]:
    """Products that are traced inside, and their transposes, are taken this way.

    Args:
      precision: 'float32', 'tf32' or 'bfloat16', see above.
      convolution: as in `Way`.

    Raises:
      ValueError: for an unknown name.
    """
    check(precision, convolution)
    token = _way.set(Way(precision, convolution))
    try:
        yield
    finally:
        _way.reset(token)


def check(precision: str, convolution: str | None = None) -> None:
    """Raises ValueError, listing the choices, for an unknown name."""
    if precision not in ROUNDING:
        raise ValueError(
            f'no precision {precision!r}; choose from {", ".join(ROUNDING)}'
        )
    if convolution not in (None, *CONVOLUTIONS):
        raise ValueError(
            f'no convolution {convolution!r}; choose from None, '
            + ', '.join(map(repr, CONVOLUTIONS))
        )


@functools.cache
def has_unit() -> bool:
    """Returns whether this machine's CPU multiplies in bfloat16."""
    with contextlib.suppress(OSError):
        words = set(pathlib.Path('/proc/cpuinfo').read_text().split())
        return not words.isdisjoint(('amx_bf16', 'avx512_bf16'))
    return False


def multiply(
    s: Float[Array, '*B m'], kernel: Float[Array, 'm n']
) -> Float[Array, '*B n']:
    """Returns s W.

    Args:
      s: maps.
      kernel: weights, of the same type.
    """
    return multiply_p.bind(s, kernel, way=_way.get())


def convolve(
    s: Float[Array, 'B H W m'], kernel: Float[Array, 'h w m n'], pads: Pads
) -> Float[Array, 'B Hp Wp n']:
    """Returns the cross-correlation with stride 1.

    Args:
      s: maps.
      kernel: weights, of the same type.
      pads: zeros before and behind each axis of a map; negative ones cut it.
    """
    return convolve_p.bind(s, kernel, pads=tuple(map(tuple, pads)), way=_way.get())


def transposed(
    r: Float[Array, 'B Hp Wp n'], kernel: Float[Array, 'h w m n'], pads: Pads
) -> Float[Array, 'B H W m']:
    """Returns the transpose of `convolve` in s, applied to r.

    Args:
      r: what `convolve` returns.
      kernel: its weights.
      pads: its padding.
    """
    return _transposed(r, kernel, pads=pads, way=_way.get())


def _transposed(r: Array, kernel: Array, *, pads: Pads, way: Way) -> Array:
    turned = jnp.swapaxes(jnp.flip(kernel, (0, 1)), 2, 3)
    back = tuple(
        (extent - 1 - low, extent - 1 - high)
        for extent, (low, high) in zip(kernel.shape[:2], pads, strict=True)
    )
    return convolve_p.bind(r, turned, pads=back, way=way)


def _multiply(s: Array, kernel: Array, *, way: Way, on_cpu: bool) -> Array:
    a, b, precision = _factors(s, kernel, way, on_cpu)
    return jnp.matmul(a, b, precision=precision, preferred_element_type=s.dtype)


def _convolve(s: Array, kernel: Array, *, pads: Pads, way: Way, on_cpu: bool) -> Array:
    height, width, _, n = kernel.shape
    a, b, precision = _factors(s, kernel, way, on_cpu)
    unit = on_cpu and a.dtype == jnp.bfloat16
    # Of a map smaller than its kernel XLA exchanges the two, into a slow layout.
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


def _correlate(
    s: Array, r: Array, *, pads: Pads, way: Way, on_cpu: bool
) -> Float[Array, 'h w m n']:
    height, width, m, n = _kernel_shape(s, r, pads)
    if not on_cpu:
        like = jax.ShapeDtypeStruct((height, width, m, n), s.dtype)
        fn = functools.partial(_convolve, s, pads=pads, way=way, on_cpu=False)
        return jax.linear_transpose(fn, like)(r)[0]
    a, b, precision = _factors(s, r, way, on_cpu)
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


def _factors(
    a: Array, b: Array, way: Way, on_cpu: bool
) -> tuple[Array, Array, lax.Precision]:
    """Returns factors as hardware rounds them, or rounded where it does not."""
    if way.precision == 'tf32' and not on_cpu:
        return a, b, lax.Precision.HIGH
    if way.precision == 'bfloat16' and (has_unit() or not on_cpu):
        a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    elif way.precision != 'float32':
        bits = MANTISSA[way.precision]
        a, b = (lax.reduce_precision(factor, 8, bits) for factor in (a, b))
    return a, b, lax.Precision.HIGHEST


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


def _kernel_shape(s: Any, r: Any, pads: Pads) -> tuple[int, int, int, int]:
    height, width = (
        extent + low + high - out + 1
        for extent, out, (low, high) in zip(
            s.shape[1:3], r.shape[1:3], pads, strict=True
        )
    )
    return height, width, s.shape[3], r.shape[3]


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
    return ShapedArray(_kernel_shape(s, r, pads), s.dtype)


def _check_types(s: ShapedArray, kernel: ShapedArray) -> None:
    if kernel.dtype != s.dtype:
        raise TypeError(
            f'maps are {s.dtype} and weights {kernel.dtype}: they have one type '
            '(`products.taken` says how it is rounded)'
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
    """Returns a bilinear primitive.

    Args:
      name: its name.
      fn: what it computes, with the keyword `on_cpu`.
      shape: that of what it returns, from those of the factors.
      batch: its rule for `vmap`; None: one product after the other.
      *transposes: in the first and in the second factor, (r, first, second), of which
        only the shape is known where it is sought.
    """
    primitive = Primitive(name)
    primitive.def_impl(jax.jit(primitive.bind, static_argnames=('pads', 'way')))
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
    _multiply,
    _multiply_shape,
    _multiply_batch,
    _multiply_map,
    _multiply_weights,
)
convolve_p = _primitive(
    'convolve',
    _convolve,
    _convolve_shape,
    _convolve_batch,
    lambda r, s, kernel, **how: _transposed(r, kernel, **how),
    lambda r, s, kernel, **how: correlate_p.bind(s, r, **how),
)
correlate_p = _primitive(
    'correlate',
    _correlate,
    _correlate_shape,
    None,
    lambda kernel, s, r, **how: _transposed(r, kernel, **how),
    lambda kernel, s, r, **how: convolve_p.bind(s, kernel, **how),
)
