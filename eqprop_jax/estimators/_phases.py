"""Nudged phases: equilibria at the points of a contour, and the δ read off from them.

    δ = Σ_k Re[w_k (s(β_k) − s*)]

Real and complex nudges are relaxed apart, in their own types: together (`vmap`), one
after the other (`lax.scan`), or divided among devices (`estimators._points`).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Inexact, Int

from eqprop_jax import _parts as parts
from eqprop_jax import _program as program
from eqprop_jax import dynamics, tree
from eqprop_jax.dynamics import CostGradient
from eqprop_jax.estimators import _points as points
from eqprop_jax.estimators._local_rule import Outcome
from eqprop_jax.noise import Disturb
from eqprop_jax.nudges import Contour
from eqprop_jax.solvers._lengths import lengths
from eqprop_jax.types import (
    Batch,
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

NUDGES = 'nudges'  # axis of those that are relaxed together
FREE = 2**31 - 1  # number of the free phase among those with noise


class Phase(NamedTuple):
    """The equilibria under some nudges of a contour, all real or all complex."""

    weights: Inexact[Array, ' P']
    """w_k of each nudge."""
    nudged: Equilibrium
    """Leaves [P, B, ...]."""


class Ways(NamedTuple):
    """How the nudges of a contour are relaxed; see `estimators.contour`."""

    solve: Solver
    contour: Contour
    batched: bool | None = None
    warm_start: bool = False
    axis_name: str | None = None


class Common(NamedTuple):
    """What the nudged phases of a batch have in common."""

    free: Equilibrium
    """u*, which the field is anchored at."""
    origin: Equilibrium
    """Where phases start, and δ is the difference to; u* but for noise."""
    field_at: Callable[[Equilibrium], Field]
    """u* ↦ F anchored there; u* is complex where the nudges are."""
    gradient: CostGradient
    response: Response
    noise_of: Callable[[Any, Any], Disturb] | None
    """(number of a phase, β) ↦ its noise."""


def relax(
    system: System,
    ways: Ways,
    params: Params,
    batch: Batch,
    injection: Injection,
    free: Equilibrium,
    field_at: Callable[[Equilibrium], Field],
    rng: jax.Array | None,
    noise_of: Callable[[Any, Any], Disturb] | None = None,
) -> tuple[Outcome, tuple[Phase, ...], Rates]:
    """Relaxes F − β_k ∂C/∂s from the free equilibrium, for every nudge of a contour.

    Returns the outcome, the phases, and the rates that they started from: with noise
    those at the end of one more free phase. Raises TypeError for a complex free state,
    or complex nudges in half precision; ValueError for random signs without a key, or
    fewer nudges than devices.
    """
    dynamics.check_real('an estimator', free.state)
    sign = points.sign(ways.contour, rng)
    field, origin = field_at(free), free
    response = response_at(system, params, batch, injection, free, field)
    if noise_of is not None:
        origin = ways.solve(field._replace(disturb=noise_of(FREE, 0.0)), free.state)
        response = response._replace(origin=origin.state, rates=origin.rates)
    gradient = dynamics.cost_gradient(system, params, batch.y)
    common = Common(free, origin, field_at, gradient, response, noise_of)
    phases = tuple(
        _phase(ways, common, part, numbers, sign)
        for part, numbers in points.parts(ways.contour, ways.axis_name)
    )
    error = response_of(phases, origin.rates, ways.axis_name)

    def of_all(name: str) -> Array:
        values = jnp.concatenate([getattr(phase.nudged, name) for phase in phases])
        return points.gathered(values, len(ways.contour.points), ways.axis_name)

    residual, num_steps, converged = map(of_all, ('residual', 'num_steps', 'converged'))
    outcome = Outcome(error, residual, num_steps, jnp.all(converged, axis=0))
    return outcome, phases, origin.rates


def response_at(
    system: System,
    params: Params,
    batch: Batch,
    injection: Injection,
    free: Equilibrium,
    field: Field,
) -> Response:
    """Returns what the responses of a field to a nudge are measured by, from u*."""
    return dynamics.response(
        field.drive,
        dynamics.readers(system, params, batch.y, free.rates),
        dynamics.cost_gradient(system, params, batch.y)(free.rates),
        origin=free.state,
        rates=free.rates,
        drive=system.drive(params, injection, free.rates),  # of clipped solvers alone
    )


def _phase(
    ways: Ways,
    common: Common,
    part: Contour,
    numbers: Int[np.ndarray, ' P'],
    sign: Array | float,
) -> Phase:
    """Returns the equilibria under some nudges."""
    free, start = common.free, common.origin.state
    if part.is_complex:
        start, state, rates = map(points.as_complex, (start, free.state, free.rates))
        free = free._replace(state=state, rates=rates)
    field = common.field_at(free)
    field = field._replace(drive=program.of(field.drive, free.rates))
    nudges = points.cast(part, numbers, sign, start)
    if ways.axis_name is not None:
        nudges = points.of_device(nudges, ways.axis_name)

    def one(
        nudge: points.Nudges, start: State, **known: Any
    ) -> tuple[Equilibrium, Float[Array, 'B L']]:
        """Returns the equilibrium, and how long the response of each layer is."""
        nudged = dynamics.nudged_field(field, common.gradient, nudge.beta)
        if common.noise_of is not None:
            disturb = common.noise_of(nudge.number, nudge.beta)
            nudged = nudged._replace(disturb=disturb)
        response = common.response._replace(**known)
        if part.is_complex:  # what pads a device's share has the weight 0
            weight = jnp.where(nudge.weight == 0, 1, nudge.weight)
            response = response._replace(weight=weight)
        nudged = dynamics.with_response(nudged, response)
        found = ways.solve(nudged, start)
        return found, lengths(nudged, found.state).T

    on_cpu = jax.default_backend() == 'cpu'
    together = not on_cpu if ways.batched is None else ways.batched
    if len(nudges.beta) == 1:
        only = one(jax.tree.map(lambda values: values[0], nudges), start)[0]
        found = jax.tree.map(lambda leaf: leaf[None], only)
    elif together:
        every = functools.partial(one, together=NUDGES)
        found = jax.vmap(every, (0, None), axis_name=NUDGES)(nudges, start)[0]
    else:
        size = len(free.converged), len(common.response.feeders)
        scale = jnp.zeros(size, nudges.beta.real.dtype)
        found = _in_turn(one, nudges, start, scale, ways.warm_start)
    return Phase(nudges.weight, found)


def check(system: System, contour: Contour, **others: Any) -> None:
    """Raises ValueError for complex nudges of a system that is not holomorphic."""
    parts.check(system=system, contour=contour, **others)
    if contour.is_complex and not system.holomorphic:
        raise ValueError(
            'this contour has complex nudges, and the system is not holomorphic (its '
            'activation, pooling, cost or drive is not analytic): use one_sided, '
            'random_sign or symmetric, or a holomorphic activation such as "sigmoid" '
            'or "dsilu" and, where there is pooling, "softmax"'
        )


def response_of(
    phases: tuple[Phase, ...], free: Rates, axis_name: str | None = None
) -> Rates:
    """Returns δ = Σ_k Re[w_k (s(β_k) − s*)], leaves [B, ...]."""

    def total(weights: Array, values: Array) -> Array:
        return jnp.tensordot(weights, values, 1, precision=lax.Precision.HIGHEST)

    def layer(weights: Array, s: Array, s_free: Array) -> Array:
        shift = total(weights.real, s.real - s_free[None])
        return shift - total(weights.imag, s.imag) if jnp.iscomplexobj(s) else shift

    error = tree.zeros_like(free)
    for weights, nudged in phases:
        one = functools.partial(layer, weights)
        error = tree.add(error, jax.tree.map(one, nudged.rates, free))
    return error if axis_name is None else lax.psum(error, axis_name)


def _in_turn(
    one: Callable[..., tuple[Equilibrium, Float[Array, 'B L']]],
    nudges: points.Nudges,
    start: State,
    scale: Float[Array, 'B L'],
    warm_start: bool,
) -> Equilibrium:
    """Relaxes one nudge after the other, each with the lengths of earlier responses."""

    def relaxed(carry: tuple, nudge: points.Nudges) -> tuple[tuple, Equilibrium]:
        first, scale = carry
        begin = start
        if warm_start:
            begin = _extrapolated(*first, start, nudge.beta / nudges.beta[0])
        found, length = one(nudge, begin, scale=scale)
        if warm_start:
            now, own = nudge.number == nudges.number[0], (found.state, found.converged)
            first = jax.tree.map(lambda a, b: jnp.where(now, a, b), own, first)
        known = jnp.where(found.converged[:, None], length, 0)
        return (first, jnp.maximum(scale, known)), found

    nothing = start, jnp.zeros(len(scale), bool)
    return lax.scan(relaxed, (nothing, scale), nudges)[1]


def _extrapolated(
    nudged: State, settled: Bool[Array, ' B'], free: State, ratio: Inexact[Array, '']
) -> State:
    """Returns where to start for ρβ: u* + ρ (u(β) − u*), or u* where not settled."""
    there = jax.tree.map(lambda u, u0: u0 + ratio * (u - u0), nudged, free)
    return tree.select(settled, there, free)
