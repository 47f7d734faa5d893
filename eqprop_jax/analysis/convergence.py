"""How the error of an estimate falls: with the radius, with the points, with patience.

Errors are relative distances |δ − δ_ref| / |δ_ref| of the error vector over all layers
and examples, against a reference that the caller has made as exact as it should be.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from eqprop_jax import dynamics, tree
from eqprop_jax.estimators import contour, oscillation
from eqprop_jax.nudges import Contour, circle, complex_step
from eqprop_jax.solvers._sweeps import make_sweep
from eqprop_jax.types import Batch, Equilibrium, Params, Rates, Solver, State, System

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

    def measure(nudges: Contour) -> np.ndarray:
        def error(radius: Array) -> Array:
            # A nudge of radius r on C is one of radius 1 on r C, which compiles once.
            def cost(params: Params, rates: Rates, y: Array) -> Array:
                return radius * system.cost(params, rates, y)

            estimate = contour(
                system._replace(cost=cost), solve, contour=nudges, correction=correction
            )
            response = estimate(params, batch, free, None).error
            return _error(tree.scale(1 / radius, response), reference)

        return np.asarray(jax.jit(lambda radii: lax.map(error, radii))(values))

    values = jnp.asarray(radii, jnp.result_type(*jax.tree.leaves(free.state)))
    contours = {
        f'N = {count}': circle(1.0, count, half_step=count > 2) for count in num_points
    }
    contours[COMPLEX_STEP] = complex_step(1.0)
    return {name: measure(nudges) for name, nudges in contours.items()}


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

    def error(count: int) -> float:
        estimate = oscillation(system, steps_per_point=count, **options)
        found = jax.jit(estimate)(params, batch, free, rng)
        return float(_error(found.error, reference))

    return np.array([error(count) for count in steps_per_point])


def by_pairs(
    system: System,
    params: Params,
    batch: Batch,
    free: Equilibrium,
    *,
    reference: Rates,
    beta: float,
    noise: float,
    num_pairs: int,
    steps_per_phase: int,
    rng: jax.Array,
) -> np.ndarray:
    """Returns the error of one-sided nudging in a noisy network, pair after pair.

    A pair is a free and a nudged phase of so many sweeps each, one going on from the
    other, with the noise of `estimators.oscillation` after every sweep. Each gives
    (s(β) − s(0))/β from where its phases end; the error is that of the mean so far.

    Args:
      system: what moves.
      params: θ.
      batch: inputs and targets.
      free: where the network starts.
      reference: δ_ref, leaves [B, ...].
      beta: β, not zero.
      noise: standard deviation of what every sweep adds to every potential.
      num_pairs: K.
      steps_per_phase: sweeps in each phase.
      rng: key of the noise.

    Returns:
      [K], the first of a single pair.
    """
    field = dynamics.free_field(system, params, system.inject(params, batch.x))
    gradient = dynamics.cost_gradient(system, params, batch.y)

    def phase(state: State, nudge: float, rng: jax.Array) -> State:
        nudged = dynamics.nudged_field(field, gradient, jnp.asarray(nudge, dtype))
        nudged, sweep = make_sweep(nudged, state, 'alternating', 1.0, None)

        def step(number: Array, state: State) -> State:
            state = sweep(nudged, state)
            draw = tree.random_normal(jax.random.fold_in(rng, number), state)
            return tree.add(state, tree.scale(noise, draw))

        return lax.fori_loop(0, steps_per_phase, step, state)

    def pair(carry: tuple[State, Rates], index: Array) -> tuple:
        state, total = carry
        first, second = jax.random.split(jax.random.fold_in(rng, index))
        rest = phase(state, 0.0, first)
        state = phase(rest, beta, second)
        shift = tree.sub(system.rates(state), system.rates(rest))
        total = tree.add(total, tree.scale(1 / beta, shift))
        mean = tree.scale(1 / (index + 1), total)
        return (state, total), _error(mean, reference)

    dtype = jnp.result_type(*jax.tree.leaves(free.state))
    start = (free.state, tree.zeros_like(free.rates))
    run = jax.jit(lambda start: lax.scan(pair, start, jnp.arange(num_pairs))[1])
    return np.asarray(run(start))


def slopes(errors: Mapping[str, np.ndarray], radii: Sequence[float]) -> dict:
    """Returns d log(error) / d log(r) between neighbouring radii, for every curve."""
    steps = np.diff(np.log(np.asarray(radii)))
    return {name: np.diff(np.log(values)) / steps for name, values in errors.items()}


def orders(
    errors: Mapping[str, np.ndarray], radii: Sequence[float], *, largest: float = 0.5
) -> dict[str, float]:
    """Returns the measured order of every curve: its median slope before rounding.

    The median is over neighbouring radii above that of the least error, where both
    errors are at least five times that, so that rounding has no part in them.

    Args:
      errors: from `by_radius`.
      radii: r, rising.
      largest: the largest radius that is taken for small.

    Returns:
      By name; NaN where rounding hides the order.
    """
    places = np.arange(len(radii))
    result = {}
    for name, steep in slopes(errors, radii).items():
        values = np.where(np.isfinite(errors[name]), errors[name], np.inf)
        clear = np.isfinite(values) & (np.asarray(radii) <= largest)
        clear &= (places > np.argmin(values)) & (values >= 5 * values.min())
        both = clear[:-1] & clear[1:]
        result[name] = float(np.median(steep[both])) if both.any() else np.nan
    return result


def _error(error: Rates, reference: Rates) -> Float[Array, '']:
    return tree.norm(tree.sub(error, reference)) / tree.norm(reference)
