"""The vector field of a system, free and nudged, and the free phase.

    free       F(u)  = D(θ, x, σ(u)) − u
    anchored   F(u) − F(u*)
    nudged     F^β(u) = F(u) − F(u*) − β ∂C/∂s(σ(u))

The nudge is the gradient of the cost summed over the batch, so that no example's
nudge depends on how many others there are. Anchored at the free equilibrium found, the
field is at rest there: a free phase that has not quite settled does not move further
under a nudge, where that would be taken for a response and divided by β.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float, Inexact

from eqprop_jax import _program as program
from eqprop_jax import _wiring as wiring
from eqprop_jax import tree
from eqprop_jax._program import Drive
from eqprop_jax.types import (
    Equilibrium,
    Field,
    Injection,
    Params,
    Rates,
    Response,
    Solver,
    State,
    System,
)

CostGradient = Callable[[Rates], Rates]
"""(rates) -> ∂C/∂s, a `Partial` like the drive of a `Field`."""


def free_field(system: System, params: Params, injection: Injection) -> Field:
    """Returns F, the field of the free phase, for `system.inject(params, x)`."""
    return Field(
        drive=Partial(
            lambda injection, rates: system.drive(params, injection, rates), injection
        ),
        rates=system.rates,
        blocks=system.blocks,
        rounding=system.way.rounding,
    )


def near(field: Field, rates: Rates) -> Field:
    """Returns the field for states around a point s₀, its drive traced there.

    Products that are rounded are taken of what has changed since (`program.around`).
    """
    if field.rounding:
        return field._replace(drive=program.around(field.drive, rates)[1])
    return field._replace(drive=program.of(field.drive, rates))


def anchored(field: Field, free: Equilibrium, drive: State | None = None) -> Field:
    """Returns F(u) − F(u*), in which u* is at rest, rounding included.

    Products that are rounded are taken of s − s* (`program.around`).

    Args:
      field: F.
      free: u* and σ(u*), of the type of the states to come: complex under complex
        nudges.
      drive: D(σ(u*)), real, if it is known.
    """
    own = field.drive
    if field.rounding:
        drive, own = program.around(own, free.rates)
    base = own(free.rates) if drive is None else drive

    def from_rest(own: Drive, base: State, state: State, rates: Rates) -> State:
        return tree.add(tree.sub(own(rates), base), state)

    return field._replace(drive=Partial(from_rest, own, base, free.state))


def nudged_field(
    field: Field, cost_gradient: CostGradient, beta: Inexact[Array, '']
) -> Field:
    """Returns F^β = F − β ∂C/∂s; β is complex only for states that are complex."""

    def nudged(own: Drive, gradient: CostGradient, rates: Rates) -> State:
        return jax.tree.map(lambda d, g: d - beta * g, own(rates), gradient(rates))

    return field._replace(drive=Partial(nudged, field.drive, cost_gradient))


def with_response(field: Field, response: Response) -> Field:
    """Returns the field as one whose response to a nudge is measured from u*.

    Its sweeps go layer by layer in the order in which the nudge reaches them, so that
    after one sweep every layer has responded.

    Args:
      field: with the nudge, or the source of a linear solve.
      response: where it starts from, and who feeds whom.
    """
    return field._replace(
        blocks=wiring.outward(response.feeders, response.pushed), response=response
    )


def response(
    feeding: Callable[[Rates], State],
    readers: frozenset[str],
    nudge: Rates,
    *,
    origin: State,
    rates: Rates,
    drive: State,
) -> Response:
    """Returns what responses of a field to a nudge are measured by.

    Args:
      feeding: its drive without the nudge; only who feeds whom is used.
      readers: the layers that the cost reads, from `readers`.
      nudge: ∂C/∂s at s*.
      origin: u*.
      rates: s*.
      drive: D(s*).
    """
    fed = wiring.feeders(feeding, rates)
    names = wiring.reached(fed, readers)
    return Response(
        origin=origin,
        rates=rates,
        drive=drive,
        feeders={name: fed[name] & set(names) for name in names},
        pushed={
            name: jnp.any((nudge[name] != 0).reshape(len(nudge[name]), -1), axis=1)
            for name in sorted(readers)
        },
    )


def cost_gradient(
    system: System, params: Params, y: Float[Array, 'B classes']
) -> CostGradient:
    """Returns s ↦ ∂C/∂s of every example, for real or complex rates."""

    def gradient(cost: Callable, y: Array, rates: Rates) -> Rates:
        costs, pullback = jax.vjp(lambda s: cost(params, s, y), rates)
        return pullback(jnp.ones_like(costs))[0]

    cost = system.cost if isinstance(system.cost, Partial) else Partial(system.cost)
    return Partial(gradient, cost, jnp.asarray(y))


def readers(
    system: System, params: Params, y: Float[Array, 'B classes'], rates: Rates
) -> frozenset[str]:
    """Returns the layers that the cost reads, where a nudge enters."""
    return wiring.readers(lambda s: system.cost(params, s, y), rates)


def relax(
    system: System, params: Params, x: Float[Array, 'B ...'], solve: Solver
) -> Equilibrium:
    """Returns the free equilibrium: from rest to F(u*) = 0 under the clamped input.

    Args:
      system: what moves.
      params: θ.
      x: clamped inputs.
      solve: a solver of `eqprop_jax.solvers`.

    Raises:
      TypeError: where it is differentiated, in either mode; see `undifferentiated`.
      ValueError: for a batch of no examples.
    """
    if jnp.shape(x)[:1] == (0,):
        raise ValueError('a batch has at least one example, and this one has none')
    params, x = undifferentiated((params, x))
    injection = system.inject(params, x)
    free = solve(free_field(system, params, injection), system.rest(injection))
    return free._replace(injection=injection)


@jax.custom_jvp
def undifferentiated(values: Any) -> Any:
    """Returns the values; raises TypeError where JAX differentiates through here.

    A loop that begins at its solution ends at once, whatever its derivative has still
    to move, so that what JAX would make of it is silently wrong.
    """
    return values


@undifferentiated.defjvp
def _refuse(values: tuple, changes: tuple) -> tuple[Any, Any]:
    del values, changes
    raise TypeError(
        'the loop by which a network settles is not differentiated: eqprop_jax.relax '
        'has the derivatives of the equilibrium, of any order, and eqprop_jax.loss and '
        'eqprop_jax.block have first derivatives in reverse mode, by an estimator'
    )


def injected(
    system: System, params: Params, x: Float[Array, 'B ...'], free: Equilibrium
) -> Injection:
    """Returns the injection of the free phase, computed anew only if it has none."""
    return system.inject(params, x) if free.injection is None else free.injection


def slopes(system: System, state: State, held: State | None = None) -> State:
    """Returns σ′(u), the diagonal of Λ⁻¹, with the structure of the state.

    Units that bounds hold (`Equilibrium.held`) do not respond: their slope is 0.
    """
    ones = jax.tree.map(jnp.ones_like, state)
    slopes = jax.jvp(system.rates, (state,), (ones,))[1]
    if held is None:
        return slopes
    return jax.tree.map(lambda h, slope: jnp.where(h, 0, slope), held, slopes)


def signed(system: System, response: Rates) -> Rates:
    """Returns ς ⊙ δ, with the signs of the system's layers: the adjoint's δ.

    Where ς J is symmetric and the cost reads layers of sign +1 only, the response of
    the dynamics (J − Λ) δ = g and the exact adjoint differ by these signs alone:
    Jᵀ = ς J ς, so that (Jᵀ − Λ) ς δ = ς g = g.

    Args:
      system: what moves; without a signature nothing changes.
      response: δ, or rates shaped like it.
    """
    if system.signature is None:
        return response
    signs = dict(system.signature)
    return {
        name: layer if signs[name] > 0 else -layer for name, layer in response.items()
    }


def check_real(name: str, state: State) -> None:
    """Raises TypeError if a state that has to be real is complex."""
    if tree.is_complex(state):
        raise TypeError(f'{name} takes a real state: pass the free equilibrium')
