"""How the error of an estimate falls: with the radius, with the points, with patience.

Errors are relative distances |δ − δ_ref| / |δ_ref| of the error vector over all layers
and examples, against a reference that the caller has made as exact as it should be.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from eqprop_jax import tree
from eqprop_jax.estimators import contour, oscillation
from eqprop_jax.nudges import Contour, circle, complex_step, one_sided, symmetric
from eqprop_jax.types import Batch, Equilibrium, Params, Rates, Solver, System

COMPLEX_STEP = 'complex step'


def by_radius(
    system: System,
    params: Params,
    batch: Batch,
    free: Equilibrium,
    solve: Solver,
    *,
    reference: Rates,
    radii: Sequence[float],
    num_points: Sequence[int] = (1, 2, 4, 6, 8),
    correction: str | None = 'antisymmetric',
) -> dict[str, np.ndarray]:
    """Returns the error of N-point contours for every radius: O(r^N), then rounding.

    N = 1 is one-sided and N = 2 symmetric nudging; from 4 on the points are turned by
    half a step, which has the same order. The complex step, O(r²), comes last: where r
    is small its error is that of the solver and of rounding, and does not rise.

    Args:
      system: what moves; holomorphic.
      params: θ.
      batch: inputs and targets.
      free: the free equilibrium.
      solve: relaxes the nudged phases; its tolerance is a floor of what is measured.
      reference: δ_ref, leaves [B, ...].
      radii: r, positive.
      num_points: N, each 1 or even.
      correction: as in `estimators.contour`; without one the reference should be that
        of `tangent`.

    Returns:
      {'N = 1': [R], ..., 'complex step': [R]}.
    """

    def nudges(count: int, radius: float) -> Contour:
        if count == 1:
            return one_sided(radius)
        if count == 2:
            return symmetric(radius)
        return circle(radius, count, half_step=True)

    kinds = {f'N = {count}': count for count in num_points} | {COMPLEX_STEP: 0}
    errors = {}
    for name, count in kinds.items():
        estimates = [
            contour(
                system,
                solve,
                contour=nudges(count, radius) if count else complex_step(radius),
                correction=correction,
            )
            for radius in radii
        ]
        errors[name] = np.array(
            [
                _error(jax.jit(estimate)(params, batch, free, None).error, reference)
                for estimate in estimates
            ]
        )
    return errors


def by_patience(
    system: System,
    params: Params,
    batch: Batch,
    free: Equilibrium,
    *,
    reference: Rates,
    steps_per_point: Sequence[int],
    rng: jax.Array | None = None,
    **options: Any,
) -> np.ndarray:
    """Returns the error of the online estimator for every number of sweeps a point.

    Args:
      system: what moves.
      params: θ.
      batch: inputs and targets.
      free: where the network starts.
      reference: δ_ref, leaves [B, ...]; for the slowness error alone, the same points'
        estimate at equilibrium (`estimators.contour`).
      steps_per_point: sweeps that the nudge stays at a point.
      rng: key of the noise, if there is any.
      **options: further ones of `estimators.oscillation`.
    """
    estimates = [
        oscillation(system, steps_per_point=count, **options)
        for count in steps_per_point
    ]
    return np.array(
        [
            _error(jax.jit(estimate)(params, batch, free, rng).error, reference)
            for estimate in estimates
        ]
    )


def slopes(errors: Mapping[str, np.ndarray], radii: Sequence[float]) -> dict:
    """Returns d log(error) / d log(r) between neighbouring radii, for every curve."""
    steps = np.diff(np.log(np.asarray(radii)))
    return {name: np.diff(np.log(values)) / steps for name, values in errors.items()}


def _error(error: Rates, reference: Rates) -> float:
    return float(tree.norm(tree.sub(error, reference)) / tree.norm(reference))
