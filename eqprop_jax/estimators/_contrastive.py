"""The rule of energy-based systems: Φ alone, at nudged and at free equilibria.

    dC/dθ ≈ ∂C/∂θ − Σ_k Re[w_k (∂Φ/∂θ(s(β_k)) − ∂Φ/∂θ(s*))]

With D = ∂Φ/∂s this is the derivative of ∂Φ/∂θ along the response, (∂D/∂θ)ᵀ δ, taken on
the contour itself: it agrees with the local rule as the contour shrinks, and is
contrastive Hebbian learning for a dense synapse. Φ has to exist, so J is symmetric and
there is nothing to correct.

References:
  Scellier and Bengio 2017, https://arxiv.org/abs/1602.05179
  Laborieux and Zenke 2022, https://arxiv.org/abs/2209.00530
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool

from eqprop_jax import dynamics, tree
from eqprop_jax.estimators import _local_rule as local_rule
from eqprop_jax.estimators import _phases as phases
from eqprop_jax.estimators._contour import nudged_from
from eqprop_jax.estimators._marked import marked
from eqprop_jax.nudges import Contour
from eqprop_jax.types import (
    Batch,
    Equilibrium,
    Estimate,
    Estimator,
    Params,
    Solver,
    System,
)


def contrastive(
    system: System,
    solve: Solver,
    *,
    contour: Contour,
    skip_unconverged: bool = False,
    batched: bool | None = None,
    warm_start: bool = False,
    axis_name: str | None = None,
) -> Estimator:
    """Equilibrium propagation by the contrastive rule, over any contour.

    Error: the contour's, O(r^N), as in `contour`.

    Args:
      system: what moves; with a primitive Φ.
      solve: relaxes the nudged phases, which start from the free equilibrium.
      contour: from `eqprop_jax.nudges`.
      skip_unconverged: as in `contour`, like `batched`, `warm_start` and `axis_name`.
      batched: relax the points together.
      warm_start: start from the first point.
      axis_name: of devices that divide the points.

    Returns:
      estimate(params, batch, free, rng) -> Estimate. The error δ is reported; the
      gradient does not use it.

    Raises:
      ValueError: for a system without Φ, or complex points on one that is not
        holomorphic.
    """
    phases.check(system, contour, solve=solve)
    if system.primitive is None:
        raise ValueError(
            'the contrastive rule needs a primitive Φ, which this system does not have '
            '(free, looped or missing feedback has none): use '
            'estimators.contour(correction="antisymmetric"), tied feedback, or '
            'systems.from_primitive'
        )
    ways = phases.Ways(solve, contour, batched, warm_start, axis_name)

    @marked(system)
    def estimate(
        params: Params, batch: Batch, free: Equilibrium, rng: jax.Array | None
    ) -> Estimate:
        injection = dynamics.injected(system, params, batch.x, free)
        field_at = nudged_from(system, params, injection, free, None)
        outcome, nudged, _ = phases.relax(
            system, ways, params, batch, injection, free, field_at, rng
        )
        push = dynamics.cost_gradient(system, params, batch.y)(free.rates)
        keep, info = local_rule.account(
            batch, free, outcome, push, skip_unconverged=skip_unconverged
        )
        grads = _contrast(system, params, batch, free, nudged, keep, axis_name)
        return Estimate(grads, outcome.error, info)

    return estimate


def _contrast(
    system: System,
    params: Params,
    batch: Batch,
    free: Equilibrium,
    nudged: tuple[phases.Phase, ...],
    keep: Bool[Array, ' B'],
    axis_name: str | None,
) -> Params:
    """Returns the mean of ∂C/∂θ − Σ_k Re[w_k (∂Φ/∂θ(s(β_k)) − ∂Φ/∂θ(s*))]."""
    counted = keep & batch.counted
    x, y, rates = tree.fill(counted, (batch.x, batch.y, free.rates))
    fill = jax.vmap(functools.partial(tree.fill, counted))
    points = [(weights, fill(point.rates)) for weights, point in nudged]
    devices = 1 if axis_name is None else lax.axis_size(axis_name)
    primitive = system.primitive
    assert primitive is not None

    def contrast(params: Params) -> Array:
        cost = system.cost(params, rates, y)
        total = tree.mean_of(counted, cost) / devices
        phi_free = primitive(params, x, rates)
        for weights, nudged_rates in points:
            phi = jax.vmap(lambda s: primitive(params, x, s))(nudged_rates)
            change = jnp.real(weights[:, None] * (phi - phi_free[None]))
            total -= tree.mean_of(counted, jnp.sum(change, axis=0))
        return total

    grads = jax.grad(contrast, allow_int=True)(params)
    grads = tree.on_floats(lambda g: jnp.where(jnp.any(counted), g, 0), grads)
    return grads if axis_name is None else lax.psum(grads, axis_name)
