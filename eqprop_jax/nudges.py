"""Contours: at which nudges to relax, and how to combine what comes out.

Every estimator of δ = ds*/dβ from nudged equilibria is a weighted sum

    δ ≈ Σ_k Re[w_k (s(β_k) − s*)]

    contour        points β_k               weights of s(β_k)      error, |β| = r
    one_sided      β                        1/β                    O(r)
    random_sign    ±β, sign drawn           ±1/β                   O(r) a draw
    symmetric      β, −β                    ±1/2β                  O(r²)
    circle         r ω_k, ω_k = e^{2πik/N}  1/(N r ω_k)            O(r^N)
    complex_step   ± i r                    ± 1/(2 i r)            O(r²)

A radius may be an array of JAX, traced by `jit` or `vmap`: one program serves all of
them.

The weights of a circle with N > 1 sum to zero, so subtracting s* changes nothing
there but the rounding. With a single point (one_sided, random_sign) it matters: what
the free phase has left to settle is divided by β, so its tolerance has to be no
looser than that of the nudged phase.

Real parameters make s(β̄) the conjugate of s(β): a point of the upper half plane stands
for its mirror image too, and only Im β ≥ 0 is ever relaxed.

References:
  Laborieux et al. 2021, symmetric nudging, https://arxiv.org/abs/2006.03824
  Laborieux and Zenke 2022 (circle), https://arxiv.org/abs/2209.00530
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eqprop_jax import tree

Number = float | jax.Array


class Contour(NamedTuple):
    """Nudges in the closed upper half plane and their weights."""

    points: Any
    """β_k, float64 or complex128, [P]; an array of JAX if the radius is one."""
    weights: Any
    """w_k, the mirror image included, of the type of the points, [P]."""
    random_sign: bool = False
    """Whether points and weights take a common random sign at every estimate."""
    real: np.ndarray | None = None
    """Which points lie on the real axis, [P]; None: as the points say."""

    @property
    def is_complex(self) -> bool:
        """Whether any point lies off the real axis."""
        return bool(jnp.iscomplexobj(self.points))

    @property
    def on_axis(self) -> np.ndarray:
        """Which points lie on the real axis, [P]."""
        return np.imag(self.points) == 0 if self.real is None else self.real

    def parts(self) -> tuple['Contour', ...]:
        """Returns the real and the complex points apart, to be relaxed in their types.

        A complex relaxation costs two real ones, which real points need not pay.
        """
        real = self.on_axis
        axis, off = (
            self._replace(
                points=self.points[mask], weights=self.weights[mask], real=real[mask]
            )
            for mask in (real, ~real)
        )
        axis = axis._replace(points=axis.points.real, weights=axis.weights.real)
        return tuple(part for part in (axis, off) if part.points.size)


def one_sided(beta: Number) -> Contour:
    """One real nudge: (s(β) − s*)/β, with an error of O(β) + |error of s*|/β.

    Args:
      beta: β, nonzero; negative nudges push away from the target.

    Raises:
      ValueError: if β is zero or not finite.
    """
    if not _is_traced('beta', beta) and not (np.isfinite(beta) and beta != 0):
        raise ValueError(f'beta has to be finite and not zero, not {beta}')
    return _of_radius(beta, np.ones(1), 1)


def random_sign(beta: Number) -> Contour:
    """One real nudge whose sign is drawn anew for each batch.

    The first-order error cancels in the mean over draws.

    Args:
      beta: |β|, positive.

    Raises:
      ValueError: if β is not positive and finite.
    """
    _check_radius('beta', beta)
    return one_sided(beta)._replace(random_sign=True)


def symmetric(beta: Number) -> Contour:
    """Two real nudges: (s(β) − s(−β))/2β, with an error of O(β²).

    Args:
      beta: |β|, positive.

    Raises:
      ValueError: if β is not positive and finite.

    Examples:
      >>> symmetric(0.1).points, symmetric(0.1).weights
      (array([ 0.1, -0.1]), array([ 5., -5.]))
    """
    _check_radius('beta', beta)
    return circle(beta, 2)


def circle(radius: Number, num_points: int, *, half_step: bool = False) -> Contour:
    """N equally spaced nudges: (1/N) Σ_k s(r ω_k)/(r ω_k), with an error of O(r^N).

    This is Cauchy's integral for the derivative at 0 by the trapezoidal rule, which
    converges geometrically while s is analytic on the disc of radius r. N = 1 is
    one-sided and N = 2 symmetric nudging, on the real axis.

    Args:
      radius: r, positive.
      num_points: N, at least 1.
      half_step: turn the points by π/N. For even N none is real then and N/2 complex
        relaxations do.

    Raises:
      ValueError: if the radius or the number of points is out of range.

    Examples:
      Of four points one is the mirror image of another:

      >>> circle(0.5, 4).points
      array([ 0.5+0.j ,  0. +0.5j, -0.5+0.j ])
      >>> circle(0.5, 4, half_step=True).points.size
      2
    """
    _check_radius('radius', radius)
    if not (int(num_points) == num_points and num_points >= 1):
        raise ValueError(f'num_points has to be a positive integer, not {num_points}')
    turns = (np.arange(num_points) + (0.5 if half_step else 0.0)) / num_points
    omega = np.exp(2j * np.pi * turns)
    omega = np.where(np.abs(omega.imag) < 1e-12, np.sign(omega.real), omega)
    omega = np.where(np.abs(omega.real) < 1e-12, 1j * np.sign(omega.imag), omega)
    omega = omega[omega.imag >= 0]
    return _of_radius(radius, omega if np.any(omega.imag) else omega.real, num_points)


def complex_step(radius: Number = 1e-4) -> Contour:
    """The circle with N = 2 and a half step: Im s(ir)/r, with an error of O(r²).

    Nothing is subtracted, so r may be so small that the error is that of rounding.

    Args:
      radius: r, positive.

    Raises:
      ValueError: if the radius is not positive and finite.
    """
    return circle(radius, 2, half_step=True)


def halved(contour: Contour) -> tuple[np.ndarray, np.ndarray] | None:
    """Which points of a circle of N are one of N/2, and with what weights.

    Args:
      contour: the nudges.

    Returns:
      Indices into the points, and weights of the circle that these are; None unless
      the contour is a circle, without half step, of an even number of points from 4 on.

    Examples:
      >>> indices, weights = halved(circle(0.5, 4))
      >>> indices, weights.real
      (array([0, 2]), array([ 1., -1.]))
    """
    points = contour.points
    count = len(points) + int(np.sum(points.imag > 0))
    if count < 4 or count % 2:
        return None
    radius = float(np.abs(points[0]))
    wanted = circle(radius, count).points
    if len(wanted) != len(points) or not np.allclose(points, wanted, rtol=1e-9, atol=0):
        return None
    half = circle(radius, count // 2)
    return np.arange(0, len(points), 2), half.weights


def _of_radius(radius: Number, omega: np.ndarray, num_points: int) -> Contour:
    """Returns the contour of β_k = r ω_k; r is a number, or traced by JAX."""
    real, traced = omega.imag == 0, tree.is_traced(radius)
    radius = radius if traced else float(radius)
    points, weights = radius * omega, np.where(real, 1, 2) / (num_points * omega)
    return Contour(points, weights / radius, real=real if traced else None)


def _check_radius(name: str, radius: Number) -> None:
    """Raises ValueError for a radius out of range; while it is traced none is known."""
    if not _is_traced(name, radius) and not (np.isfinite(radius) and radius > 0):
        raise ValueError(f'{name} has to be positive and finite, not {radius}')


def _is_traced(name: str, value: Number) -> bool:
    """Returns whether JAX traces a number; ValueError if it is several."""
    if np.ndim(value):
        raise ValueError(f'{name} is one number, not {np.shape(value)}: use vmap')
    return tree.is_traced(value)
