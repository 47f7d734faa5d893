"""Activation functions, on real and, where they are analytic, on complex potentials.

    name          σ(z)                                  poles nearest to the real axis
    sigmoid       1 / (1 + e^{−(4z − 2)})               ½ ± iπ/4
    dsilu         ½ z ℓ(z) + (1 − ½ z) ℓ(z − 2)         ± iπ, 2 ± iπ
    tanh          tanh z                                ± iπ/2
    identity      z                                     none
    hard_sigmoid  min(max(z, 0), 1)                     not holomorphic
    relu          max(z, 0)                             not holomorphic

with ℓ the logistic function 1/(1 + e^{−z}). A contour of nudges is safe while it
keeps the potentials well away from the poles. Complex values are computed from real
and imaginary parts with one exponential, one sine and one cosine, without overflow:

    tanh(½(a + ib)) = (sinh a + i sin b) / (cosh a + cos b)

References:
  Laborieux and Zenke 2022, "Holomorphic equilibrium propagation computes exact
  gradients through finite size oscillations", https://arxiv.org/abs/2209.00530
  (shifted sigmoid, dSiLU).
  Scellier et al. 2018, "Generalization of equilibrium propagation to vector field
  dynamics", https://arxiv.org/abs/1808.04873 (hard sigmoid).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact


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
    return 0.5 * z * _logistic(z) + (1 - 0.5 * z) * _logistic(z - 2)


def tanh(z: Inexact[Array, '...']) -> Inexact[Array, '...']:
    """Returns tanh z."""
    return _complex_tanh(z) if jnp.iscomplexobj(z) else jnp.tanh(z)


def identity(z: Inexact[Array, '...']) -> Inexact[Array, '...']:
    """Returns z: for systems written in the rates directly."""
    return z


def hard_sigmoid(z: Inexact[Array, '...']) -> Inexact[Array, '...']:
    """Returns min(max(z, 0), 1) for real z, with slope 0 at 0 and at 1.

    Potentials that are clipped to [0, 1] rest on these very points and do not move.
    """
    _refuse_complex('hard_sigmoid', z)
    inside = (z > 0) & (z < 1)
    return jnp.where(inside, z, jax.lax.stop_gradient(jnp.clip(z, 0, 1)))


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
        Activation('relu', relu, False),
    )
}


def get(activation: str | Activation) -> Activation:
    """Returns the activation of that name; an `Activation` is returned as it is.

    Raises:
      ValueError: if there is no activation of that name; lists the choices.
    """
    if isinstance(activation, Activation):
        return activation
    if activation not in ACTIVATIONS:
        raise ValueError(
            f'no activation {activation!r}; choose from {", ".join(ACTIVATIONS)}, or '
            'pass an eqprop_jax.systems.Activation of your own'
        )
    return ACTIVATIONS[activation]


def _logistic(z: Array) -> Array:
    if jnp.iscomplexobj(z):
        return 0.5 + 0.5 * _complex_tanh(0.5 * z)
    return jax.nn.sigmoid(z)


@jax.custom_jvp
def _complex_tanh(z: Array) -> Array:
    a, b = 2 * jnp.real(z), 2 * jnp.imag(z)
    q = jnp.exp(-jnp.abs(a))  # numerator and denominator are multiplied by 2q
    denominator = 1 + q * (q + 2 * jnp.cos(b))
    real = jnp.sign(a) * -jnp.expm1(-2 * jnp.abs(a)) / denominator
    return jax.lax.complex(real, 2 * q * jnp.sin(b) / denominator)


@_complex_tanh.defjvp
def _complex_tanh_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (z,), (dz,) = primals, tangents
    value = _complex_tanh(z)
    return value, (1 - value**2) * dz


def _refuse_complex(name: str, z: Array) -> None:
    if jnp.iscomplexobj(z):
        raise TypeError(
            f'{name} is not holomorphic and takes no complex input: use a real nudge '
            '(one_sided, random_sign, symmetric) or one of '
            + ', '.join(
                entry.name for entry in ACTIVATIONS.values() if entry.holomorphic
            )
        )
