"""Whether a circle of nudges lies within the disc on which s(β) is analytic.

With s(β) = Σ_m a_m β^m on |β| < R, the sum over N points of a circle of radius r < R
tends to a_1 + a_{N+1} r^N, that over every second of them to a_1 + a_{N/2+1} r^{N/2}.
Terms fall as (r/R)^m, so that the relative difference of the two and the error are

    d = |δ_N − δ_{N/2}| / |δ_N| ≈ (r/R)^{N/2},    |δ_N − δ_limit| / |δ_N| ≈ d²

Beyond the disc the circle crosses to another branch of equilibria. Every phase settles,
sums tend to something else than the derivative, d falls like 1/N at best and d² is far
too small: of 64 examples of a tied network 6-5-4-3 (`tests/disc_test.py`), r = 0.1 and
N = 4, 8, 16, the worst is 28, 21 and 24 % off with d = 0.18, 0.10, 0.05, where the
median has d = 5e-3, 4e-5 and 5e-9.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from eqprop_jax import nudges, tree
from eqprop_jax.estimators import _phases as phases
from eqprop_jax.estimators._contour import nudged_from
from eqprop_jax.nudges import Contour
from eqprop_jax.types import Batch, Equilibrium, Params, Solver, System

CLOSE = 0.1  # difference above which d² is not negligible


class Disc(NamedTuple):
    """What the N-point sum and its half of the points say of each other."""

    difference: Float[Array, ' B']
    """d of each example in its worst layer."""
    error: Float[Array, ' B']
    """d², the relative error by the finite nudge, if the circle is within the disc."""


def check(
    system: System,
    params: Params,
    batch: Batch,
    free: Equilibrium,
    solve: Solver,
    contour: Contour,
    correction: str | None = None,
) -> Disc:
    """Returns how the sum over a circle differs from that over every second point.

    Args:
      system: what moves.
      params: θ.
      batch: inputs and targets.
      free: the free equilibrium.
      solve: relaxes the nudged phases, more tightly than differences are looked for.
      contour: a circle of an even number of points from 4 on, without half step.
      correction: as in `estimators.contour`.

    Raises:
      ValueError: for another contour.
    """
    half = nudges.halved(contour)
    if half is None:
        raise ValueError(
            'only a circle of 4, 6, 8, ... points, without half step, has half a '
            'circle to compare it with'
        )
    phases.check(system, contour)
    injection = system.inject(params, batch.x)
    field_at = nudged_from(system, params, injection, free, correction)
    ways = phases.Ways(solve, contour)
    outcome, nudged, start = phases.relax(
        system, ways, params, batch, injection, free, field_at, None
    )
    indices, own = half
    weights = 0 * contour.weights
    weights[indices] = own
    parts = contour._replace(weights=weights).parts()
    fewer = tuple(
        phase._replace(weights=jnp.asarray(part.weights, phase.weights.dtype))
        for phase, part in zip(nudged, parts, strict=True)
    )
    whole, other = outcome.error, phases.response_of(fewer, start)

    def difference(name: str) -> Array:
        distance = tree.per_example_norm(whole[name] - other[name])
        size = tree.per_example_norm(whole[name])
        return jnp.where(distance == 0, 0, distance / size)

    largest = jnp.max(jnp.stack([difference(name) for name in whole]), axis=0)
    return Disc(largest, largest**2)
