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
from jaxtyping import Array

from eqprop_jax import dynamics, tree
from eqprop_jax.estimators import local_rule, phases
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
      skip_unconverged: as in `contour`.
      batched: as in `contour`.
      warm_start: as in `contour`.
      axis_name: as in `contour`.

    Returns:
      estimate(params, batch, free, rng) -> Estimate. The error δ is reported; the
      gradient does not use it.

    Raises:
      ValueError: for a system without Φ, or complex points on one that is not
        holomorphic.
    """
    primitive = system.primitive
    if primitive is None:
        raise ValueError(
            'the contrastive rule needs a primitive Φ, which this system does not have '
            '(free, looped or missing feedback has none): use '
            'estimators.contour(correction="antisymmetric"), tied feedback, or '
            'systems.from_primitive'
        )
    phases.check(system, contour)

    def estimate(
        params: Params, batch: Batch, free: Equilibrium, rng: jax.Array | None
    ) -> Estimate:
        injection = dynamics.injected(system, params, batch.x, free)
        gradient = dynamics.cost_gradient(system, params, batch.y)
        field = dynamics.free_field(system, params, injection)
        drive = field.drive(free.rates)
        answer = phases.answer(system, params, batch, injection, free, field)
        nudged = phases.relax(
            lambda anchor: dynamics.anchored(field, anchor, drive),
            gradient,
            free,
            free,
            answer,
            solve,
            contour,
            rng,
            batched=batched,
            warm_start=warm_start,
            axis_name=axis_name,
        )

        devices = 1 if axis_name is None else lax.axis_size(axis_name)
        error = phases.response(nudged, free.rates, axis_name)
        keep, info = local_rule.account(
            batch,
            free,
            *phases.settled(nudged, contour, axis_name),
            error,
            gradient(free.rates),
            skip_unconverged=skip_unconverged,
        )
        counted = keep & batch.counted
        x, y, rates = tree.fill(counted, (batch.x, batch.y, free.rates))
        fill = jax.vmap(functools.partial(tree.fill, counted))
        points = [(weights, fill(point.rates)) for weights, point in nudged]

        def contrast(params: Params) -> Array:
            cost = system.cost(params, rates, y)
            total = tree.mean_of(counted, cost) / devices
            phi_free = primitive(params, x, rates)
            for weights, nudged_rates in points:
                phi = jax.vmap(lambda s: primitive(params, x, s))(nudged_rates)
                change = jnp.real(weights[:, None] * (phi - phi_free[None]))
                total -= tree.mean_of(counted, jnp.sum(change, axis=0))
            return total

        grads = jax.tree.map(
            lambda g: jnp.where(jnp.any(counted), g, 0), jax.grad(contrast)(params)
        )
        grads = grads if axis_name is None else lax.psum(grads, axis_name)
        return Estimate(grads, error, info)

    return estimate
