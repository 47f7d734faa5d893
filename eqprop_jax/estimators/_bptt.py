"""Backpropagation through time, truncated: T steps from the free equilibrium.

    u_0 = u*        u_{t+1} = D(θ, x, σ(u_t)) + a        dC/dθ ≈ d C(θ, s_T)/dθ

With the synchronous steps written here, T of them leave the first T terms of the
Neumann series of recurrent backprop, so that the error falls like ρ^T, with ρ the
spectral radius of J diag(σ′). The constant input a is zero; −dC/da is the error
vector δ that those terms add up to.

References:
  Scellier et al. 2018, section 5, https://arxiv.org/abs/1808.04873
  Ernoult et al. 2019 (EP updates are those of BPTT), https://arxiv.org/abs/1905.13633
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from eqprop_jax import dynamics, tree
from eqprop_jax.estimators._marked import marked
from eqprop_jax.solvers._unrolled import unrolled
from eqprop_jax.types import (
    Batch,
    Equilibrium,
    Estimate,
    Estimator,
    Info,
    Params,
    Rates,
    State,
    System,
)


def bptt(
    system: System,
    *,
    num_steps: int = 20,
    order: str = 'synchronous',
    step_size: float = 1.0,
    clip: tuple[float, float] | None = None,
) -> Estimator:
    """Truncated backprop through time, from the free equilibrium.

    Error: geometric in `num_steps`, by the rate at which the sweeps converge. Memory
    grows with `num_steps`.

    Args:
      system: what moves.
      num_steps: T, sweeps to differentiate through; positive.
      order: of a sweep, as in `solvers.relaxation`; an 'alternating' one carries the
        error through all layers, a 'synchronous' one to the next.
      step_size: as in `solvers.relaxation`.
      clip: as in `solvers.relaxation`.

    Returns:
      estimate(params, batch, free, rng) -> Estimate; the key is not used.

    Raises:
      ValueError: for a number outside its range, or an unknown order.
    """
    solve = unrolled(num_steps=num_steps, order=order, step_size=step_size, clip=clip)

    @marked(system, adjoint=True)
    def estimate(
        params: Params, batch: Batch, free: Equilibrium, rng: jax.Array | None
    ) -> Estimate:
        del rng
        dynamics.check_real('an estimator', free.state)

        def loss(params: Params, offset: State) -> tuple[Array, Equilibrium]:
            field = dynamics.free_field(system, params, system.inject(params, batch.x))

            def drive(rates: Rates) -> State:
                return tree.add(field.drive(rates), offset)

            end = solve(field._replace(drive=drive), free.state)
            cost = system.cost(params, end.rates, batch.y)
            return tree.mean_of(batch.counted, cost), end

        offset = tree.zeros_like(free.state)
        gradient = jax.grad(loss, argnums=(0, 1), has_aux=True, allow_int=True)
        (grads, slope), end = gradient(params, offset)
        info = Info(
            residual=end.residual[None],
            num_steps=end.num_steps[None],
            converged=tree.mean_of(batch.counted, free.converged),
            skipped=jnp.zeros(()),
            kept=batch.counted,
        )
        return Estimate(grads, tree.scale(-info.num_kept, slope), info)

    return estimate
