"""Nudged equilibria on a contour, which the contour estimators have in common."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Inexact, Int

from eqprop_jax import dynamics, program, tree
from eqprop_jax.dynamics import CostGradient
from eqprop_jax.noise import Disturb
from eqprop_jax.nudges import Contour
from eqprop_jax.solvers.lengths import lengths
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


class Phase(NamedTuple):
    """The equilibria under some nudges of a contour, all real or all complex."""

    weights: Inexact[Array, ' P']
    """w_k of each nudge."""
    nudged: Equilibrium
    """Leaves [P, B, ...]."""


def check(system: System, contour: Contour) -> None:
    """Raises ValueError for complex nudges of a system that is not holomorphic."""
    if contour.is_complex and not system.holomorphic:
        raise ValueError(
            'this contour has complex nudges, and the system is not holomorphic (its '
            'activation, pooling, cost or drive is not analytic): use one_sided, '
            'random_sign or symmetric, or a holomorphic activation such as "sigmoid" '
            'or "dsilu" and, where there is pooling, "softmax"'
        )


def answer(
    system: System,
    params: Params,
    batch: Batch,
    injection: Injection,
    free: Equilibrium,
    field: Field,
) -> Response:
    """Returns what the answers of nudged phases are measured by.

    Args:
      system: what moves.
      params: θ.
      batch: its targets.
      injection: `system.inject(params, batch.x)`.
      free: the free equilibrium.
      field: F of the nudged phases, any correction included.
    """
    return dynamics.response(
        field.drive,
        dynamics.readers(system, params, batch.y, free.rates),
        dynamics.cost_gradient(system, params, batch.y)(free.rates),
        origin=free.state,
        rates=free.rates,
        drive=system.drive(params, injection, free.rates),  # of clipped solvers alone
    )


def relax(
    field_at: Callable[[Equilibrium], Field],
    cost_gradient: CostGradient,
    anchor: Equilibrium,
    free: Equilibrium,
    answer: Response,
    solve: Solver,
    contour: Contour,
    rng: jax.Array | None,
    *,
    batched: bool | None,
    warm_start: bool,
    axis_name: str | None,
    noise: Callable[[Array, Array], Disturb] | None = None,
) -> tuple[Phase, ...]:
    """Relaxes F − β_k ∂C/∂s from the free equilibrium, for every nudge of a contour.

    Args:
      field_at: u* ↦ F, anchored there; u* is complex where the nudges are.
      cost_gradient: from `dynamics.cost_gradient`.
      anchor: u*, real.
      free: where phases start, real; u* but for noise.
      answer: what the answers are measured by.
      solve: relaxes each phase.
      contour: the nudges; real and complex ones are relaxed apart, in their types.
      rng: key of a random sign; None if the contour has none.
      batched: relax the nudges together (`vmap`), or one after the other (`lax.scan`);
        None: the latter on a CPU.
      warm_start: if one after the other, from the second on start where the first
        points to.
      axis_name: of devices that divide the nudges among them, each relaxing its own;
        real nudges are then relaxed as complex ones where there are both, since all
        devices run one program. None: no such axis.
      noise: (number of the nudge, β) ↦ its noise; None: none.

    Raises:
      TypeError: if the free state is complex, or nudges are and it is half precision.
      ValueError: if a random sign has no key, or there are fewer nudges than devices.
    """
    dynamics.check_real('an estimator', free.state)
    sign: Array | float = 1.0
    if contour.random_sign:
        if rng is None:
            raise ValueError('random signs need a key: pass rng')
        sign = jax.random.rademacher(rng, (), jnp.float32)

    together = jax.default_backend() != 'cpu' if batched is None else batched

    def relax_part(part: Contour, numbers: Int[np.ndarray, ' P']) -> Phase:
        start, at = free.state, anchor
        if part.is_complex:
            start, *own = map(as_complex, (start, anchor.state, anchor.rates))
            at = at._replace(state=own[0], rates=own[1])
        field = field_at(at)
        field = field._replace(drive=program.of(field.drive, at.rates))
        points, weights = _cast(part, sign, start)
        which = jnp.asarray(numbers)
        if axis_name is not None:
            points, weights, which = _share(points, weights, which, axis_name)

        def one(
            nudge: tuple[Array, Array, Array], start: State, **others: Any
        ) -> tuple[Equilibrium, Float[Array, 'B L']]:
            """Returns the equilibrium, and how long the answer of each layer is."""
            beta, weight, number = nudge
            nudged = dynamics.nudged_field(field, cost_gradient, beta)
            if noise is not None:
                nudged = nudged._replace(disturb=noise(number, beta))
            own = answer._replace(**others)
            if part.is_complex:  # a device's fillers have the weight 0
                own = own._replace(weight=jnp.where(weight == 0, 1, weight))
            nudged = dynamics.answering(nudged, own)
            found = solve(nudged, start)
            return found, lengths(nudged, found.state).T

        nudges = (points, weights, which)
        if len(points) == 1:
            only = one(jax.tree.map(lambda values: values[0], nudges), start)[0]
            return Phase(weights, jax.tree.map(lambda leaf: leaf[None], only))
        if together:
            side_by_side = functools.partial(one, together=NUDGES)
            every = jax.vmap(side_by_side, (0, None), axis_name=NUDGES)
            return Phase(weights, every(nudges, start)[0])

        size = (len(free.converged), len(answer.feeders))
        scale = jnp.zeros(size, points.real.dtype)
        return Phase(weights, _in_turn(one, nudges, start, scale, warm_start))

    positions = np.arange(len(contour.points))
    if axis_name is not None:
        return (relax_part(contour, positions),)
    real = np.imag(contour.points) == 0
    own = [positions[mask] for mask in (real, ~real) if mask.any()]
    return tuple(map(relax_part, contour.parts(), own))


def _in_turn(
    one: Callable[..., tuple[Equilibrium, Float[Array, 'B L']]],
    nudges: tuple[Array, Array, Array],
    start: State,
    scale: Float[Array, 'B L'],
    warm_start: bool,
) -> Equilibrium:
    """Relaxes one nudge after the other, each told how long the answers before were.

    Args:
      one: (nudge, where it starts, scale=...) ↦ its equilibrium and its answer.
      nudges: points, weights and numbers, [P].
      start: u*.
      scale: zeros, in the type of lengths.
      warm_start: start all but the first where the first one points to.
    """
    points, _, numbers = nudges

    def relaxed(carry: tuple, nudge: tuple) -> tuple[tuple, Equilibrium]:
        first, scale = carry
        begin = start
        if warm_start:
            begin = extrapolated(*first, start, nudge[0] / points[0])
        found, length = one(nudge, begin, scale=scale)
        if warm_start:
            now, own = nudge[2] == numbers[0], (found.state, found.converged)
            first = jax.tree.map(lambda a, b: jnp.where(now, a, b), own, first)
        known = jnp.where(found.converged[:, None], length, 0)
        return (first, jnp.maximum(scale, known)), found

    nothing = start, jnp.zeros(len(scale), bool)
    return lax.scan(relaxed, (nothing, scale), nudges)[1]


def extrapolated(
    nudged: State, settled: Bool[Array, ' B'], free: State, ratio: Inexact[Array, '']
) -> State:
    """Returns u* + ρ (u(β) − u*): where to start for the nudge ρβ, up to O(β²).

    An example that has not settled under β starts at u*.

    Args:
      nudged: u(β).
      settled: whether it has settled there.
      free: u*.
      ratio: ρ.
    """
    there = jax.tree.map(lambda u, u0: u0 + ratio * (u - u0), nudged, free)
    return tree.select(settled, there, free)


def settled(
    phases: tuple[Phase, ...], contour: Contour, axis_name: str | None
) -> tuple[Float[Array, 'P B'], Int[Array, 'P B'], Bool[Array, ' B']]:
    """Returns residuals, steps, and whether all phases of an example converged.

    Args:
      phases: from `relax`.
      contour: its nudges.
      axis_name: as there.
    """

    def of_all(name: str) -> Array:
        values = jnp.concatenate([getattr(phase.nudged, name) for phase in phases])
        if axis_name is None:
            return values
        return lax.all_gather(values, axis_name, tiled=True)[: len(contour.points)]

    return of_all('residual'), of_all('num_steps'), jnp.all(of_all('converged'), axis=0)


def response(phases: tuple[Phase, ...], free: Rates, axis_name: str | None) -> Rates:
    """Returns δ = Σ_k Re[w_k (s(β_k) − s*)], leaves [B, ...].

    Args:
      phases: from `relax`.
      free: s*.
      axis_name: as in `relax`.
    """

    def layer(weights: Array, s: Array, s_free: Array) -> Array:
        shift = _sum(weights.real, s.real - s_free[None])
        return shift - _sum(weights.imag, s.imag) if jnp.iscomplexobj(s) else shift

    error = tree.zeros_like(free)
    for weights, nudged in phases:
        part = jax.tree.map(
            lambda s, s_free, w=weights: layer(w, s, s_free), nudged.rates, free
        )
        error = tree.add(error, part)
    return error if axis_name is None else lax.psum(error, axis_name)


def _sum(weights: Array, values: Array) -> Array:
    """Returns Σ_k w_k v_k, at full precision."""
    return jnp.tensordot(weights, values, 1, precision=lax.Precision.HIGHEST)


def as_complex(state: State) -> State:
    """Returns a real state as a complex one; TypeError where its type has none."""
    for leaf in jax.tree.leaves(state):
        if leaf.dtype not in (jnp.float32, jnp.float64):
            raise TypeError(
                f'there is no complex {leaf.dtype}: use a real nudge (one_sided, '
                'random_sign, symmetric), or float32'
            )
    return tree.to_complex(state)


def _share(
    points: Array, weights: Array, numbers: Array, axis_name: str
) -> tuple[Array, Array, Array]:
    """Returns a device's share of the nudges, filled up by some of weight 0."""
    devices, count = lax.axis_size(axis_name), len(points)
    if devices > count:
        raise ValueError(
            f'{count} nudges cannot be divided among {devices} devices: take as many '
            'devices as nudges, or fewer'
        )
    share = -(-count // devices)
    fillers = share * devices - count
    points = jnp.concatenate([points, points[:fillers]])
    numbers = jnp.concatenate([numbers, numbers[:fillers]])
    weights = jnp.concatenate([weights, jnp.zeros_like(weights[:fillers])])
    first = share * lax.axis_index(axis_name)

    def mine(values: Array) -> Array:
        return lax.dynamic_slice_in_dim(values, first, share)

    return mine(points), mine(weights), mine(numbers)


def _cast(part: Contour, sign: Array | float, start: State) -> tuple[Array, Array]:
    """Points and weights in the precision of the state they will act on."""
    dtype = jnp.result_type(*jax.tree.leaves(start))
    points, weights = (np.asarray(values).astype(dtype) for values in part[:2])
    sign = jnp.asarray(sign, points.real.dtype)
    return sign * points, sign * weights
