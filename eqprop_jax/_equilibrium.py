"""The free equilibrium as a function of parameters and input that JAX differentiates.

    du* = (1 − J Σ)⁻¹ ∂D/∂(θ, x) d(θ, x)        Σ = diag(σ′), J = ∂D/∂s

is its derivative where F(u*) = 0, whatever way u* was found in.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from eqprop_jax import _axes as axes
from eqprop_jax import _parts as parts
from eqprop_jax import dynamics, jacobian, tree
from eqprop_jax.estimators import _implicit as implicit
from eqprop_jax.solvers._mixing import flatten, unflatten
from eqprop_jax.types import Equilibrium, Params, Solver, State, System

COARSE = 1e-2  # relative error in the worst layer from which on a solve is lost
Linear = Callable[..., Equilibrium]


def relax(
    system: System,
    params: Params,
    x: Float[Array, 'B ...'],
    solve: Solver,
    *,
    method: str = 'aitken',
    tol: float = 1e-5,
    max_steps: int = 500,
    step_size: float = 1.0,
) -> Equilibrium:
    """Returns the free equilibrium, F(u*) = 0, which can be differentiated.

    The derivatives are those of the implicit function, at the state that was found:

        du* = (1 − J Σ)⁻¹ ∂D/∂(θ, x) d(θ, x)        Σ = diag(σ′), J = ∂D/∂s

    by a linear solve in forward mode, and by that of the transpose (recurrent backprop)
    in reverse mode. Memory does not grow with the number of sweeps, and derivatives of
    derivatives are exact, too. `state`, `rates` and `injection` have derivatives; the
    other fields are constants. Derivatives of an example whose linear solve does not
    settle (to `tol`, or at least to 1 %) are NaN; of one whose free phase has not
    settled (`converged`) they are those of a fixed point that is not there.

    Args:
      system: what moves.
      params: θ.
      x: clamped inputs.
      solve: a solver of `eqprop_jax.solvers`, or one of your own.
      method: of the linear solve, as in `estimators.recurrent_backprop`, like all that
        follow.
      tol: its relative error in the worst layer.
      max_steps: bound on its sweeps.
      step_size: of its sweeps.

    Raises:
      TypeError: for a part that is none; and if a solver that keeps the trajectory is
        differentiated: call the solver itself.
      ValueError: for an unknown method or a number outside its range.
    """
    parts.check(system=system, solve=solve)
    linear = implicit.linear_solver(method, tol, max_steps, step_size)

    @jax.custom_jvp
    def settled(params: Params, x: Array) -> Equilibrium:
        return dynamics.relax(system, params, x, solve)

    @settled.defjvp
    def tangents(at: tuple, direction: tuple) -> tuple[Equilibrium, Equilibrium]:
        free = settled(*at)
        if free.trajectory is not None:
            raise TypeError(
                'a trajectory is not differentiated by eqprop_jax.relax: call '
                'solvers.unrolled itself, or leave keep_trajectory out'
            )
        return free, _tangent(system, linear, free, at, direction)

    return axes.automatic(settled, lambda _, x: axes.of_equilibrium(x))(params, x)


def _tangent(
    system: System, linear: Linear, free: Equilibrium, at: tuple, direction: tuple
) -> Equilibrium:
    """Returns the derivative of a free equilibrium in a direction of θ and x."""
    rates, rounding = free.rates, system.way.rounding

    def driven(params: Params, x: Array) -> tuple[State, Any]:
        injection = system.inject(params, x)
        return system.drive(params, injection, rates), injection

    (_, injection), (push, change) = jax.jvp(driven, at, direction)
    J = jacobian.linearize(system, at[0], injection, rates)
    slopes = dynamics.slopes(system, free.state, free.held)

    def solved(g: State, *, adjoint: bool) -> State:
        field = implicit.linear_field(J, slopes, g, adjoint=adjoint, rounding=rounding)
        found = linear(implicit.responding(field, g, g), tree.zeros_like(g))
        lost = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), found.state)
        return tree.select(found.residual <= COARSE, found.state, lost)

    def applied(u: State) -> State:
        return tree.sub(u, J.apply(tree.mul(slopes, u)))

    def inverted(push: State) -> State:
        return solved(tree.scale(-1, push), adjoint=False)

    def transposed(w: State) -> State:
        v = solved(tree.scale(-1, J.transpose(w)), adjoint=True)
        return tree.add(w, tree.mul(slopes, v))

    def on_vectors(fn: Callable[[State], State]) -> Callable[[Array], Array]:
        return lambda v: flatten(fn(unflatten((v,), free.state)))[0]

    inverse, transpose = on_vectors(inverted), on_vectors(transposed)
    state = lax.custom_linear_solve(
        on_vectors(applied),
        flatten(push)[0],  # as a whole: JAX transposes it only where all leaves change
        lambda _, v: inverse(v),
        lambda _, v: transpose(v),
    )
    state = unflatten((state,), free.state)
    if free.held is not None:
        zeros = tree.zeros_like(state)
        state = jax.tree.map(jnp.where, free.held, zeros, state)
    still = jax.tree.map(_no_tangent, free)
    return still._replace(state=state, rates=tree.mul(slopes, state), injection=change)


def _no_tangent(leaf: Array) -> Any:
    """Returns the tangent of what does not change: zeros, of no type for integers."""
    if jnp.issubdtype(leaf.dtype, jnp.inexact):
        return jnp.zeros_like(leaf)
    return np.zeros(leaf.shape, jax.dtypes.float0)
