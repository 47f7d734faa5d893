"""From an error vector to a gradient, by quantities local to each synapse.

    dC/dθ ≈ ∂C/∂θ − (∂D/∂θ)ᵀ δ

For a dense synapse the second term is post-synaptic δᵢ times pre-synaptic sⱼ. The
first is the cost's own dependence on θ: the readout's weights, a weight penalty.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from eqprop_jax import tree
from eqprop_jax.solvers import _judge as judge
from eqprop_jax.types import (
    Batch,
    Equilibrium,
    Estimate,
    Info,
    Params,
    Rates,
    State,
    System,
)

LONGEST = 10  # times the push, the longest unsettled δ that is kept


class Outcome(NamedTuple):
    """The result of the nudged phases, or of a linear solve."""

    error: Rates
    """δ, leaves [B, ...]."""
    residual: Float[Array, 'P B']
    num_steps: Int[Array, 'P B']
    converged: Bool[Array, ' B']
    """Whether all of them converged."""


def credit(
    system: System,
    params: Params,
    batch: Batch,
    free: Equilibrium,
    outcome: Outcome,
    push: Rates | None,
    *,
    skip_unconverged: bool,
) -> Estimate:
    """Returns the gradient that the local rule reads off from an outcome.

    The examples that enter the mean are those of `account`, whose arguments these are.
    """
    keep, info = account(batch, free, outcome, push, skip_unconverged=skip_unconverged)
    grads = local_gradient(system, params, batch, free.rates, outcome.error, keep)
    return Estimate(grads, outcome.error, info)


def account(
    batch: Batch,
    free: Equilibrium,
    outcome: Outcome,
    push: Rates | None,
    *,
    skip_unconverged: bool,
) -> tuple[Bool[Array, ' B'], Info]:
    """Returns the examples that enter the mean, and how the phases settled.

    A phase that has not settled when it ends gives the error signal of that many
    sweeps, as backpropagation through so much time does. It is kept, as in the code of
    Laborieux and Zenke 2022: otherwise a batch would not learn from the examples that
    it does not settle on. Three kinds of examples are always skipped: where the
    residual of the free phase is above 1, so that there is no equilibrium to respond
    from; where it is NaN, because the state has overflowed or the response is lost in
    rounding; and where more is left to move than has moved (`judge.usable`) and δ is
    long already, since it may be growing without bound, and outweigh a batch. Such a δ
    is kept up to ten times the length of the push,

        |δ| ≤ 10 |∂C/∂s|.

    Args:
      batch: inputs and targets.
      free: where the free phase stopped.
      outcome: of the other phases.
      push: ∂C/∂s at the free rates; None: every example is kept, as under noise.
      skip_unconverged: skip whatever did not converge.
    """
    settled = free.converged & outcome.converged
    if push is None:
        keep = jnp.ones_like(settled)
    elif skip_unconverged:
        keep = settled
    else:
        finished = jnp.all(judge.usable(outcome.residual), axis=0)
        length = tree.per_example_norm(outcome.error)
        bounded = length <= LONGEST * tree.per_example_norm(push)
        bounded &= ~jnp.any(jnp.isnan(outcome.residual), axis=0)
        keep = judge.usable(free.residual) & (finished | bounded)
    counted = batch.counted
    return keep, Info(
        residual=outcome.residual,
        num_steps=outcome.num_steps,
        converged=tree.mean_of(counted, settled),
        skipped=tree.mean_of(counted, ~keep),
        kept=counted & keep,
    )


def local_gradient(
    system: System,
    params: Params,
    batch: Batch,
    rates: Rates,
    error: Rates,
    keep: Bool[Array, ' B'] | None = None,
) -> Params:
    """Returns the mean over the examples that count of ∂C/∂θ − (∂D/∂θ)ᵀ δ.

    Args:
      system: what moves.
      params: θ.
      batch: inputs and targets.
      rates: s* of the free equilibrium.
      error: δ, real.
      keep: examples to take the mean over; None: all of them. What the others hold,
        NaN included, has no influence; the mean over no example is zero.

    References:
      Scellier et al. 2018, https://arxiv.org/abs/1808.04873 (Appendix A: costs
      that depend on θ).
    """
    keep = batch.counted if keep is None else keep & batch.counted
    x, y, rates = tree.fill(keep, (batch.x, batch.y, rates))
    error = tree.select(keep, error, tree.zeros_like(error))
    count = jnp.maximum(jnp.sum(keep), 1)

    def total(params: Params) -> tuple[Array, State]:
        cost = jnp.where(keep, system.cost(params, rates, y), 0)
        return jnp.sum(cost), system.drive(params, system.inject(params, x), rates)

    (cost, _), pullback = jax.vjp(total, params)
    mean = (1 / count).astype(cost.dtype)
    grads = pullback((mean, tree.scale(-mean, error)))[0]
    return tree.on_floats(lambda g: jnp.where(jnp.any(keep), g, 0), grads)
