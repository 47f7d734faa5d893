"""Error vectors by solving their linear systems: the references for all others.

    tangent              (J  − Λ) δ = g       the response that EP measures as β → 0
    recurrent backprop   (Jᵀ − Λ) δ = g       the exact adjoint

With δ = σ′ ⊙ v both read v = J δ − g or v = Jᵀ δ − g: the fixed point of a linear
network with the same layers, which the solvers of this package relax like any other.
Its sweeps go from layer to layer as the error does. With all layers at once the k-th
sweep from v = 0 is a partial sum of the Neumann series:

    v_k = −Σ_{j<k} (Jᵀ diag σ′)^j g

References:
  Almeida 1987; Pineda 1987, https://doi.org/10.1103/PhysRevLett.59.2229
  Laborieux and Zenke 2024 ("true ∂β u*"), https://arxiv.org/abs/2309.02214
"""

import functools
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import gmres
from jax.tree_util import Partial
from jaxtyping import Array

from eqprop_jax import dynamics, jacobian, tree
from eqprop_jax.estimators import _local_rule as local_rule
from eqprop_jax.estimators._marked import marked
from eqprop_jax.jacobian import Jacobian
from eqprop_jax.solvers._aitken import aitken
from eqprop_jax.solvers._anderson import anderson
from eqprop_jax.solvers._relaxation import relaxation
from eqprop_jax.solvers._settle import rows_of, settle
from eqprop_jax.types import (
    Batch,
    Equilibrium,
    Estimate,
    Estimator,
    Field,
    Params,
    State,
    System,
)

SWEEPS = {'iterative': relaxation, 'aitken': aitken, 'anderson': anderson}
METHODS = (*SWEEPS, 'neumann', 'krylov')
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
      tol: relative error of the solve in its worst layer, for each example; positive.
      method: as in `recurrent_backprop`, like `step_size`.
      max_steps: bound on its sweeps, terms or iterations; positive.
      step_size: of the sweeps.
      skip_unconverged: leave examples out of the mean of which the free phase or the
        solve did not converge. False: only those of which either runs away
        (`local_rule.account`): at an unstable equilibrium the solve diverges, and one
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
      tol: relative error of the solve in its worst layer, for each example; positive.
      method: 'iterative' relaxes the adjoint network, layer after layer; 'aitken' and
        'anderson' do so by those solvers, in fewer sweeps where they are many;
        'neumann' sums the Neumann series, which converges where the spectral radius of
        J diag(σ′) is below 1; 'krylov' is restarted GMRES, which also solves where none
        of these does.
      max_steps: bound on its sweeps, terms or iterations; positive.
      step_size: of the sweeps, as in that solver; where the free phase needs small
        steps the adjoint does, too.
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
    solve = linear_solver(method, tol, max_steps, step_size)

    @marked(system, adjoint=adjoint)
    def estimate(
        params: Params, batch: Batch, free: Equilibrium, rng: jax.Array | None
    ) -> Estimate:
        del rng
        dynamics.check_real('an estimator', free.state)
        injection = dynamics.injected(system, params, batch.x, free)
        slopes = dynamics.slopes(system, free.state, free.held)
        g = dynamics.cost_gradient(system, params, batch.y)(free.rates)
        J = jacobian.linearize(system, params, injection, free.rates)
        rounding = system.way.rounding
        field = linear_field(J, slopes, g, adjoint=adjoint, rounding=rounding)
        readers = dynamics.readers(system, params, batch.y, free.rates)
        v = solve(responding(field, readers, g), tree.zeros_like(g))
        error = tree.mul(slopes, v.state)
        if not adjoint:
            error = dynamics.signed(system, error)
        outcome = local_rule.Outcome(
            error, v.residual[None], v.num_steps[None], v.converged
        )
        return local_rule.credit(
            system, params, batch, free, outcome, g, skip_unconverged=skip_unconverged
        )

    return estimate


def linear_field(
    J: Jacobian, slopes: State, g: State, *, adjoint: bool, rounding: float
) -> Field:
    """Returns the field whose equilibrium is v = J (σ′ ⊙ v) − g, or that with Jᵀ.

    Args:
      J: the Jacobian.
      slopes: σ′.
      g: what drives it.
      adjoint: whether to take Jᵀ.
      rounding: as in `Field`.
    """

    def drive(J: Jacobian, slopes: State, g: State, v: State) -> State:
        product = J.transpose if adjoint else J.apply
        return tree.sub(product(tree.mul(slopes, v)), g)

    return Field(Partial(drive, J, slopes, g), rates=lambda v: v, rounding=rounding)


def responding(field: Field, readers: Iterable[str], g: State) -> Field:
    """Returns a linear field whose state is the response to g, which enters there."""
    zero = tree.zeros_like(g)
    source = dynamics.response(
        field.drive, frozenset(readers), g, origin=zero, rates=zero, drive=zero
    )
    return dynamics.with_response(field, source)


def linear_solver(
    method: str, tol: float, max_steps: int, step_size: float
) -> Callable[[Field, State], Equilibrium]:
    """Returns what solves a `linear_field`; options as in `recurrent_backprop`."""
    if method not in METHODS:
        raise ValueError(f'no method {method!r}; choose from {", ".join(METHODS)}')
    if method == 'neumann':
        return relaxation(order='synchronous', tol=tol, max_steps=max_steps)
    sweeps = SWEEPS.get(method, relaxation)(
        step_size=step_size, tol=tol, max_steps=max_steps
    )

    def krylov(field: Field, start: State) -> Equilibrium:
        units = sum(leaf[0].size for leaf in jax.tree.leaves(start))
        restart = min(units, max_steps, KRYLOV_DIMENSION)
        found = settle(
            field,
            start,
            functools.partial(_gmres, restart, tol),
            through=True,
            bounded=False,
            tol=tol,
            max_steps=1 - (-max_steps // restart),
        )
        return found._replace(num_steps=jnp.full_like(found.num_steps, -1))

    return krylov if method == 'krylov' else sweeps


def _gmres(
    restart: int, tol: float, field: Field, state: State, memory: tuple, step: Array
) -> tuple[State, State, tuple]:
    """One cycle of GMRES on the residual, as a sweep: the move solves −JΣ m + m = F(v).

    What a layer of little credit lacks shows once those of much credit have it.
    """
    del step

    def one(index: Array, left: State) -> State:
        own = rows_of(field, index[None])
        zero = own(jax.tree.map(lambda leaf: jnp.zeros_like(leaf)[None], left))

        def image(m: State) -> State:
            moved = own(jax.tree.map(lambda leaf: leaf[None], m))
            return jax.tree.map(lambda z, f: (z - f)[0], zero, moved)

        return gmres(
            image, left, tol=tol, restart=restart, maxiter=1, solve_method='incremental'
        )[0]

    left = field(state)
    move = jax.vmap(one)(jnp.arange(len(jax.tree.leaves(left)[0])), left)
    return tree.add(state, move), move, memory
