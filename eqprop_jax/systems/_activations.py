"""Activation functions, on real and, where they are analytic, on complex potentials.

    name          σ(z)                                  poles nearest to the real axis
    sigmoid       1 / (1 + e^{−(4z − 2)})               ½ ± iπ/4
    dsilu         ½ z ℓ(z) + (1 − ½ z) ℓ(z − 2)         ± iπ, 2 ± iπ
    tanh          tanh z                                ± iπ/2
    identity      z                                     none
    hard_sigmoid  min(max(z, 0), 1)                     not holomorphic
    wide_hard_sigmoid  min(max(½ z, 0), 1)              not holomorphic
    relu          max(z, 0)                             not holomorphic

with ℓ the logistic function 1/(1 + e^{−z}). A contour of nudges is safe while it
keeps the potentials well away from the poles. Complex values are computed from real
and imaginary parts with one exponential, one sine and one cosine, without overflow and
without a loss of digits in either tail:

    ℓ(a + ib) = (1 + q cos b + i q sin b) / (1 + 2 q cos b + q²)       q = e^{−a}, a ≥ 0
    tanh(½(a + ib)) = (sinh a + i sin b) / (cosh a + cos b)

References:
  Laborieux and Zenke 2022, "Holomorphic equilibrium propagation computes exact
  gradients through finite size oscillations", https://arxiv.org/abs/2209.00530
  (shifted sigmoid, dSiLU).
  Scellier et al. 2018, "Generalization of equilibrium propagation to vector field
  dynamics", https://arxiv.org/abs/1808.04873 (hard sigmoid).
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact

from eqprop_jax.systems import _analytic as analytic
from eqprop_jax.systems._sizes import for_each


class Activation(NamedTuple):
    """An elementwise σ and what is known of it off the real axis."""

    name: str
    """As configs spell it."""
    fn: Callable[[Inexact[Array, '...']], Inexact[Array, '...']]
    """σ; raises TypeError on complex input if it is not holomorphic."""
    holomorphic: bool
    """Whether σ is analytic near the real axis."""
    poles: tuple[complex, ...] = ()
    """The poles nearest to the real axis."""


def sigmoid(z: Inexact[Array, '...']) -> Inexact[Array, '...']:
    """Returns 1 / (1 + e^{−(4z − 2)}): threshold ½, slope 1 there."""
    return _logistic(4 * z - 2)


def dsilu(z: Inexact[Array, '...']) -> Inexact[Array, '...']:
    """Returns ½ z ℓ(z) + (1 − ½ z) ℓ(z − 2), a smooth step from 0 to 1."""
    if not jnp.iscomplexobj(z):
        return 0.5 * z * _logistic(z) + (1 - 0.5 * z) * _logistic(z - 2)
    return _complex_dsilu(z)


def tanh(z: Inexact[Array, '...']) -> Inexact[Array, '...']:
    """Returns tanh z."""
    return _complex_tanh(z) if jnp.iscomplexobj(z) else jnp.tanh(z)


def identity(z: Inexact[Array, '...']) -> Inexact[Array, '...']:
    """Returns z."""
    return z


def hard_sigmoid(z: Inexact[Array, '...']) -> Inexact[Array, '...']:
    """Returns min(max(z, 0), 1) for real z, with slope 0 at 0 and at 1.

    Potentials that are clipped to [0, 1] rest on these very points and do not move.
    """
    _refuse_complex('hard_sigmoid', z)
    inside = (z > 0) & (z < 1)
    return jnp.where(inside, z, jax.lax.stop_gradient(jnp.clip(z, 0, 1)))


def wide_hard_sigmoid(z: Inexact[Array, '...']) -> Inexact[Array, '...']:
    """Returns min(max(½ z, 0), 1) for real z, that of conv nets in 2021."""
    _refuse_complex('wide_hard_sigmoid', z)
    return hard_sigmoid(0.5 * z)


def relu(z: Inexact[Array, '...']) -> Inexact[Array, '...']:
    """Returns max(z, 0) for real z."""
    _refuse_complex('relu', z)
    return jax.nn.relu(z)


ACTIVATIONS = {
    entry.name: entry
    for entry in (
        Activation('sigmoid', sigmoid, True, (0.5 + 0.25j * math.pi,)),
        Activation('dsilu', dsilu, True, (1j * math.pi, 2 + 1j * math.pi)),
        Activation('tanh', tanh, True, (0.5j * math.pi,)),
        Activation('identity', identity, True),
        Activation('hard_sigmoid', hard_sigmoid, False),
        Activation('wide_hard_sigmoid', wide_hard_sigmoid, False),
        Activation('relu', relu, False),
    )
}


Activations = str | Activation | Sequence[str | Activation]
"""One for all layers, or one for each."""


def of_layers(activation: Activations, layers: Sequence[str]) -> dict[str, Activation]:
    """Returns the activation of every layer by its name.

    Raises:
      ValueError: as `get`, and for a list of another length.
    """
    if isinstance(activation, Activation):
        activation = (activation,)
    each = for_each('activation', activation, len(layers), 'layers')
    return dict(zip(layers, map(get, each), strict=True))


def get(activation: str | Activation) -> Activation:
    """Returns the activation of that name, or an `Activation`, guarded (`analytic`).

    Raises:
      ValueError: if there is no activation of that name; lists the choices.
    """
    if isinstance(activation, Activation):
        guarded = analytic.guard(activation.fn, activation.name)
        return activation._replace(fn=guarded) if activation.holomorphic else activation
    if activation not in ACTIVATIONS:
        raise ValueError(
            f'no activation {activation!r}; choose from {", ".join(ACTIVATIONS)}, or '
            'pass an eqprop_jax.systems.Activation of your own'
        )
    return ACTIVATIONS[activation]


def _logistic(z: Array) -> Array:
    return _complex_logistic(z) if jnp.iscomplexobj(z) else jax.nn.sigmoid(z)


@jax.custom_jvp
def _complex_logistic(z: Array) -> Array:
    return jax.lax.complex(*_logistic_parts(jnp.real(z), *_sine_cosine(jnp.imag(z))))


_complex_logistic.defjvps(lambda dz, value, z: value * (1 - value) * dz)


@jax.custom_jvp
def _complex_dsilu(z: Array) -> Array:
    """½ z (ℓ(z) − ℓ(z − 2)) + ℓ(z − 2), of which both have the same sine and cosine."""
    a, b = jnp.real(z), jnp.imag(z)
    turned = _sine_cosine(b)
    first, second = _logistic_parts(a, *turned), _logistic_parts(a - 2, *turned)
    step = [0.5 * (x - y) for x, y in zip(first, second, strict=True)]
    return jax.lax.complex(
        a * step[0] - b * step[1] + second[0], a * step[1] + b * step[0] + second[1]
    )


def _dsilu_slope(dz: Array, value: Array, z: Array) -> Array:
    del value
    first, second = _complex_logistic(z), _complex_logistic(z - 2)
    slope = 0.5 * (first - second) + 0.5 * z * first * (1 - first)
    slope += (1 - 0.5 * z) * second * (1 - second)
    return slope * dz


_complex_dsilu.defjvps(_dsilu_slope)


@jax.custom_jvp
def _complex_tanh(z: Array) -> Array:
    a, b = jnp.real(z), jnp.imag(z)
    sine, cosine = _sine_cosine(2 * b)
    q = jnp.exp(-2 * jnp.abs(a))  # numerator and denominator are multiplied by 2q
    inverse = 1 / (1 + q * (q + 2 * cosine))
    real = jnp.tanh(a) * (1 + q) ** 2 * inverse  # sinh 2a = tanh a (1 + cosh 2a)
    return jax.lax.complex(real, 2 * q * sine * inverse)


_complex_tanh.defjvps(lambda dz, value, z: (1 - value**2) * dz)


def _logistic_parts(a: Array, sine: Array, cosine: Array) -> tuple[Array, Array]:
    """Returns Re and Im of ℓ(a + ib) from sin b and cos b."""
    q = jnp.exp(-jnp.abs(a))
    inverse = 1 / (1 + q * (q + 2 * cosine))
    real = jnp.where(a >= 0, 1 + q * cosine, q * (q + cosine))
    return real * inverse, q * sine * inverse


def _sine_cosine(b: Array) -> tuple[Array, Array]:
    """Returns sin b and cos b; in float32 by polynomials, which a CPU vectorizes.

    The nearest multiple of π/2 is taken off in three parts (Cody and Waite), and the
    coefficients are those of Cephes (Moshier): exact to rounding up to |b| of some
    thousands, where a library's sine and cosine are eight times as expensive.
    """
    if b.dtype != jnp.float32:
        return jnp.sin(b), jnp.cos(b)
    quarter = jnp.round(b * (2 / math.pi))
    for part in (1.5703125, 4.837512969970703e-4, 7.549789948768648e-8):
        b = b - quarter * part
    square = b * b
    sine = 8.3321608736e-3 + square * -1.9515295891e-4
    sine = b + b * square * (-1.6666654611e-1 + square * sine)
    cosine = -1.388731625493765e-3 + square * 2.443315711809948e-5
    cosine = 1 - 0.5 * square + square**2 * (4.166664568298827e-2 + square * cosine)
    turn = quarter.astype(jnp.int32)
    odd = (turn & 1) == 1
    sine, cosine = jnp.where(odd, cosine, sine), jnp.where(odd, sine, cosine)
    return (
        jnp.where((turn & 2) != 0, -sine, sine),
        jnp.where(((turn + 1) & 2) != 0, -cosine, cosine),
    )


def _refuse_complex(name: str, z: Array) -> None:
    if jnp.iscomplexobj(z):
        raise TypeError(
            f'{name} is not holomorphic and takes no complex input: use a real nudge '
            '(one_sided, random_sign, symmetric) or one of '
            + ', '.join(
                entry.name for entry in ACTIVATIONS.values() if entry.holomorphic
            )
        )
