"""Pooling in windows of 2 × 2, and its transpose, from one look at what is pooled.

    name       P(z) of a window                      gate ∂P/∂z_i
    softmax    Σ_i p_i z_i,  p = softmax(z / T)      p_i (1 + (z_i − P) / T)
    max        max_i z_i                             1 at the first largest z_i, else 0

Feedback goes back through the gate: each unit of the map receives its window's rate
times ∂P/∂z_i, so that with transposed kernels the drive is the gradient of
Φ = Σ s · P(z). The softmax is holomorphic, with poles where Σ e^{z/T} = 0; T → 0 turns
it into the maximum, T → ∞ into the mean. The maximum takes real maps only; its gate is
constant in z up to where another unit becomes the largest, and jumps there.

References:
  Ernoult et al. 2019, https://arxiv.org/abs/1905.13633, and Laborieux et al. 2021,
  https://arxiv.org/abs/2006.03824 (max, and its inverse in the feedback).
  Laborieux and Zenke 2022, https://arxiv.org/abs/2209.00530 (softmax).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Inexact

POOLINGS = ('softmax', 'max', None)
WINDOW = 2


class Pooled(NamedTuple):
    """A pooled map, and the way back."""

    values: Inexact[Array, 'B ...']
    """P(z)."""
    gate: Inexact[Array, 'B h 2 w 2 c'] | None
    """∂P/∂z_i; None where nothing was pooled."""

    def unpool(self, rates: Inexact[Array, 'B ...']) -> Array:
        """Returns s ∂P/∂z for every unit of the map, [B, 2h, 2w, c] of [B, h, w, c]."""
        if self.gate is None:
            return rates
        spread = rates[:, :, None, :, None] * self.gate
        B, h, _, w, _, c = spread.shape
        return spread.reshape(B, WINDOW * h, WINDOW * w, c)


Pooling = Callable[[Inexact[Array, 'B H W c']], Pooled]


def get(name: str | None, temperature: float = 1.0) -> Pooling:
    """Returns z ↦ `Pooled` for maps [B, H, W, c] of even height and width.

    The temperature is T of the softmax. The maximum raises TypeError for complex maps.
    """
    if name not in POOLINGS:
        raise ValueError(f'no pooling {name!r}; choose from "softmax", "max", None')
    if not 0 < temperature < float('inf'):
        raise ValueError(
            f'temperature has to be positive and finite, not {temperature}'
        )
    if name is None:
        return lambda z: Pooled(z, None)
    return _max if name == 'max' else lambda z: _softmax(z, temperature)


def _softmax(z: Array, temperature: float) -> Pooled:
    z = _windows(z)
    shift = lax.stop_gradient(jnp.max(jnp.real(z), axis=(2, 4), keepdims=True))
    weights = jnp.exp((z - shift) / temperature)
    share = weights / jnp.sum(weights, axis=(2, 4), keepdims=True)
    pooled = jnp.sum(share * z, axis=(2, 4), keepdims=True)
    gate = share * (1 + (z - pooled) / temperature)
    return Pooled(pooled[:, :, 0, :, 0], gate)


def _max(z: Array) -> Pooled:
    if jnp.iscomplexobj(z):
        raise TypeError(
            'the maximum is not holomorphic: use pooling="softmax", or a real nudge '
            '(one_sided, random_sign, symmetric)'
        )
    z = _windows(z)
    B, h, _, w, _, c = z.shape
    inside = jnp.moveaxis(z, 4, 3).reshape(B, h, WINDOW**2, w, c)
    first = jnp.argmax(inside, axis=2)
    gate = jax.nn.one_hot(first, WINDOW**2, axis=2, dtype=z.dtype)
    gate = jnp.moveaxis(gate.reshape(B, h, WINDOW, WINDOW, w, c), 3, 4)
    return Pooled(jnp.sum(gate * z, axis=(2, 4)), gate)


def _windows(z: Array) -> Array:
    """Returns a map [B, H, W, c] as windows [B, H/2, 2, W/2, 2, c]."""
    B, H, W, c = z.shape
    return z.reshape(B, H // WINDOW, WINDOW, W // WINDOW, WINDOW, c)
