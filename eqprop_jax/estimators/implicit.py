"""Error vectors by solving their linear systems: the references for all others.

    tangent              (J  − Λ) δ = g       the response that EP measures as β → 0
    recurrent backprop   (Jᵀ − Λ) δ = g       the exact adjoint

With δ = σ′ ⊙ v both read v = J δ − g or v = Jᵀ δ − g: the fixed point of a linear
network with the same layers, which the solvers of this package relax like any other.
From v = 0 and with all layers at once, the k-th sweep is a partial sum of the Neumann
series:

    v_k = −Σ_{j<k} (Jᵀ diag σ′)^j g        |next term| / |v_k| is its residual

References:
  Almeida 1987; Pineda 1987, https://doi.org/10.1103/PhysRevLett.59.2229
  Laborieux and Zenke 2024 ("true ∂β u*"), https://arxiv.org/abs/2309.02214
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import gmres
from jaxtyping import Array

from eqprop_jax import dynamics, jacobian, tree
from eqprop_jax.estimators import local_rule, phases
from eqprop_jax.solvers.anderson import anderson
from eqprop_jax.solvers.relaxation import relaxation
from eqprop_jax.solvers.sweeps import relative_residual
from eqprop_jax.types import (
    Batch,
    Equilibrium,
    Estimate,
    Estimator,
    Field,
    Info,
    Injection,
    Params,
    Rates,
    State,
    System,
)

METHODS = ('iterative', 'anderson', 'neumann', 'krylov')
KRYLOV_DIMENSION = 30  # vectors kept by GMRES before it starts again


def tangent(
    system: System,
    *,
    tol: float = 1e-5,
    method: str = 'iterative',
    max_steps: int = 500,
    step_size: float = 1.0,
    skip_unconverged: bool = False,
) -> Estimator:
    """The limit β → 0 of equilibrium propagation, without a nudge.

    Error: none of the finite nudge; that of the asymmetry stays, unless the system has
    a signature, whose signs turn the response into the adjoint's (`dynamics.signed`).

    Args:
      system: what moves.
      tol: relative residual of the linear solve, for each example; positive.
      method: as in `recurrent_backprop`.
      max_steps: bound on its sweeps, terms or iterations; positive.
      step_size: as in `recurrent_backprop`.
      skip_unconverged: leave examples out of the mean of which the free phase or the
        solve did not converge. At an unstable equilibrium the solve diverges, and one
        such example can outweigh all others.

    Returns:
      estimate(params, batch, free, rng) -> Estimate; the key is not used.

    Raises:
      ValueError: for an unknown method or a number outside its range.
    """
    return _implicit(
        system, method, tol, max_steps, step_size, skip_unconverged, adjoint=False
    )


def recurrent_backprop(
    system: System,
    *,
    tol: float = 1e-5,
    method: str = 'iterative',
    max_steps: int = 500,
    step_size: float = 1.0,
    skip_unconverged: bool = False,
) -> Estimator:
    """The exact gradient of the cost at the free equilibrium.

    Error: that of the free equilibrium's residual and of the solve.

    Args:
      system: what moves.
      tol: relative residual of the adjoint solve, for each example; positive.
      method: 'iterative' relaxes the adjoint network, alternating its blocks, and
        'anderson' does so with mixing, in fewer sweeps where those are many; 'neumann'
        sums the Neumann series, which converges where the spectral radius of
        J diag(σ′) is below 1; 'krylov' is restarted GMRES, which also solves where none
        of these does.
      max_steps: bound on its sweeps, terms or iterations; positive.
      step_size: of the iterative sweeps, as in `solvers.relaxation`; where the free
        phase needs small steps the adjoint does, too.
      skip_unconverged: as in `tangent`.

    Returns:
      estimate(params, batch, free, rng) -> Estimate; the key is not used.

    Raises:
      ValueError: for an unknown method or a number outside its range.
    """
    return _implicit(
        system, method, tol, max_steps, step_size, skip_unconverged, adjoint=True
    )


def _implicit(
    system: System,
    method: str,
    tol: float,
    max_steps: int,
    step_size: float,
    skip_unconverged: bool,
    *,
    adjoint: bool,
) -> Estimator:
    if method not in METHODS:
        raise ValueError(f'no method {method!r}; choose from {", ".join(METHODS)}')
    if method == 'neumann':
        sweep = relaxation(order='synchronous', tol=tol, max_steps=max_steps)
    else:
        solver = anderson if method == 'anderson' else relaxation
        sweep = solver(step_size=step_size, tol=tol, max_steps=max_steps)

    def matrix(
        params: Params, injection: Injection, rates: Rates
    ) -> Callable[[Rates], State]:
        J = jacobian.linearize(system, params, injection, rates)
        return J.transpose if adjoint else J.apply

    def linear(
        params: Params, injection: Injection, rates: Rates, slopes: State, g: Rates
    ) -> Field:
        product = matrix(params, injection, rates)
        examples = (injection, rates, slopes, g)
        blocks = system.blocks[::-1] if adjoint else system.blocks
        return Field(
            drive=lambda error: tree.sub(product(error), g),
            rates=lambda v: tree.mul(slopes, v),
            blocks=phases.from_the_top(blocks),
            take=lambda which: linear(params, *tree.take(examples, which)),
        )

    def iterative(
        params: Params, injection: Injection, rates: Rates, slopes: State, g: Rates
    ) -> tuple[State, Array]:
        field = linear(params, injection, rates, slopes, g)
        response = sweep(field, tree.zeros_like(g))
        return response.state, response.num_steps

    def krylov(
        params: Params, injection: Injection, rates: Rates, slopes: State, g: Rates
    ) -> tuple[State, Array]:
        def one(*example: Any) -> State:
            injection, rates, slopes, g = jax.tree.map(lambda a: a[None], example)
            product = matrix(params, injection, rates)
            units = sum(leaf.size for leaf in jax.tree.leaves(g))
            restart = min(units, max_steps, KRYLOV_DIMENSION)
            v, _ = gmres(
                lambda v: tree.sub(v, product(tree.mul(slopes, v))),
                tree.scale(-1, g),
                tol=tol,
                restart=restart,
                maxiter=-(-max_steps // restart),
                solve_method='incremental',
            )
            return jax.tree.map(lambda a: a[0], v)

        v = jax.vmap(one)(injection, rates, slopes, g)
        return v, jnp.full((jax.tree.leaves(g)[0].shape[0],), -1, jnp.int32)

    def estimate(
        params: Params, batch: Batch, free: Equilibrium, rng: jax.Array | None
    ) -> Estimate:
        del rng
        dynamics.check_real('an estimator', free.state)
        injection = system.inject(params, batch.x)
        slopes = dynamics.slopes(system, free.state)
        g = dynamics.cost_gradient(system, params, batch.y)(free.rates)
        solve = krylov if method == 'krylov' else iterative
        v, num_steps = solve(params, injection, free.rates, slopes, g)
        error = tree.mul(slopes, v)
        image = tree.sub(matrix(params, injection, free.rates)(error), g)
        residual = relative_residual(image, v)
        if not adjoint:
            error = dynamics.signed(system, error)
        settled = free.converged & (residual <= tol)
        keep = settled if skip_unconverged else jnp.ones_like(settled)
        fractions = local_rule.shares(batch, settled, keep)
        info = Info(residual[None], num_steps[None], *fractions)
        grads = local_rule.local_gradient(
            system, params, batch, free.rates, error, keep
        )
        return Estimate(grads, error, info)

    return estimate
