"""How products are taken: how exact, and how a convolution is written.

    float32     factors and sums as they are, also where hardware would round them
    tf32        factors rounded to 11 bits, sums in float32
    bfloat16    factors rounded to 8 bits, sums in float32

A machine without a unit for a precision rounds the factors and multiplies in float32,
which is as exact and no faster. Two machines differ from this table: a GPU rounds the
result of a convolution in bfloat16 to 8 bits, too, and a TPU takes tf32 in three passes
of bfloat16, which is more exact.
"""

import contextlib
import functools
import pathlib
from collections.abc import Generator
from contextvars import ContextVar
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

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

    @property
    def rounding(self) -> float:
        """The largest relative error of a factor."""
        return ROUNDING[self.precision]


FULL = Way()
_current: ContextVar[Way] = ContextVar('way', default=FULL)


def current() -> Way:
    """Returns how products are taken here."""
    return _current.get()


@contextlib.contextmanager
def taken(precision: str, convolution: str | None = None) -> Generator[None]:
    """Takes the products that are traced inside, and their transposes, in a `Way`.

    Raises:
      ValueError: for an unknown name.
    """
    check(precision, convolution)
    token = _current.set(Way(precision, convolution))
    try:
        yield
    finally:
        _current.reset(token)


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


def factors(
    a: Array, b: Array, way: Way, on_cpu: bool
) -> tuple[Array, Array, lax.Precision]:
    """Returns factors as hardware is to read them, rounded where it does not round."""
    if way.precision == 'tf32' and not on_cpu:
        return a, b, lax.Precision.HIGH
    if way.precision == 'bfloat16' and (has_unit() or not on_cpu):
        a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
    elif way.precision != 'float32':
        bits = MANTISSA[way.precision]
        a, b = (lax.reduce_precision(factor, 8, bits) for factor in (a, b))
    return a, b, lax.Precision.HIGHEST
