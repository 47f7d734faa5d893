"""Online: the nudge turns while the network runs, and two running averages learn.

    β(t) = r ω_k,  ω_k = e^{2πik/N},  k = 0, 1, ..., N − 1, 0, 1, ...

Each of the N points is held for a number of sweeps; what the rates have come to by
then enters two averages over whole turns, which need no free phase:

    mean of s          = s* + O(r^N)       the free point
    mean of Re(s/β)    = δ  + O(r^N)       the error vector

provided that the network follows the nudge. What it lags behind is the slowness error,
which falls geometrically with the sweeps per point; noise in the dynamics averages out
over turns. With one sweep per point and many points the nudge turns continuously.

The antisymmetric correction refers to the free point, which is not known here: the
average over the last turn of an uncorrected burn-in takes its place.

References:
  Laborieux and Zenke 2022, section 3.3, https://arxiv.org/abs/2209.00530
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from eqprop_jax import dynamics, nudges, tree, wiring
from eqprop_jax.dynamics import CostGradient
from eqprop_jax.estimators import local_rule, phases
from eqprop_jax.estimators.contour import check_correction, corrected_field
from eqprop_jax.noise import Disturb, disturbance
from eqprop_jax.noise import check as check_noise
from eqprop_jax.solvers.lengths import worst
from eqprop_jax.solvers.sweeps import check_options, make_sweep
from eqprop_jax.types import (
    Batch,
    Equilibrium,
    Estimate,
    Field,
    Info,
    Injection,
    Params,
    Rates,
    State,
    System,
)

NEEDS_BURN_IN = (
    'the correction refers to the free point, which the burn-in has to find: set '
    'burn_in to 1 or more'
)


class Stream(NamedTuple):
    """What a network that never stops carries from one input to the next."""

    state: State
    """u, complex if the nudge is; leaves [B, ...]."""
    free: Rates
    """The latest estimate of the free point s*, real; leaves [B, ...]."""


@dataclasses.dataclass(frozen=True)
class Oscillation:
    """An online estimator: for one batch as any other, or through a stream of them."""

    start: Callable[..., Stream]
    """(params, x, state=None) -> Stream, from the given state or from rest."""
    run: Callable[..., tuple[Estimate, Stream]]
    """(params, batch, stream, rng) -> (Estimate, Stream)."""
    estimate: Callable[[Params, Batch, Equilibrium, jax.Array | None], Estimate]
    """What a call does."""

    def __call__(
        self, params: Params, batch: Batch, free: Equilibrium, rng: jax.Array | None
    ) -> Estimate:
        """Returns the estimate for a batch, from the free equilibrium or from rest."""
        return self.estimate(params, batch, free, rng)


def oscillation(
    system: System,
    *,
    radius: float,
    num_points: int,
    steps_per_point: int = 20,
    periods: int = 1,
    burn_in: int = 1,
    correction: str | None = None,
    noise: float = 0.0,
    from_rest: bool = False,
    order: str = 'alternating',
    step_size: float = 1.0,
    clip: tuple[float, float] | None = None,
    tol: float = 1e-4,
) -> Oscillation:
    """Online equilibrium propagation, with the local (vector-field) rule.

    Error: O(r^N) in δ and in s*, the slowness error, O(noise / (r √(N periods))), and
    without correction that of the asymmetry, as in `contour`.

    Args:
      system: what moves.
      radius: r of the nudge's circle, positive.
      num_points: N, at least 2; with 2 the nudge is ±r and everything stays real.
      steps_per_point: sweeps at each point; positive.
      periods: turns that are averaged over; positive.
      burn_in: turns before those, which are not; 0 or more. With a correction there
        are as many again after it has set in, and 0 is for a start from the free
        equilibrium only, which it then refers to.
      correction: None, 'antisymmetric' or 'adjoint', as in `contour`.
      noise: standard deviation of what is added to every potential after every sweep,
        Gaussian and independent (to real and imaginary parts each); needs a key.
      from_rest: start every batch from rest, as published, and not from the free
        equilibrium that the estimator is given.
      order: of a sweep, as in `solvers.relaxation`.
      step_size: as in `solvers.relaxation`.
      clip: as in `solvers.relaxation`.
      tol: what a visit to a point may leave to move, |F^β|, relative to what it has
        moved, in the worst layer, to count as settled.

    Returns:
      estimate(params, batch, free, rng) -> Estimate, with `start` and `run` for
      streams. `info` has a row for each point of the last turn.

    Raises:
      ValueError: for a number outside its range, an unknown order or correction,
        complex points on a system that is not holomorphic, or a correction without
        burn-in where the free point is not known.
    """
    points = _points(radius, num_points)
    phases.check(system, nudges.circle(radius, num_points))
    check_options(order, step_size, clip, tol, steps_per_point, bound='steps_per_point')
    _check(periods, burn_in, correction, noise)
    is_complex = np.iscomplexobj(points)
    if from_rest and correction and not burn_in:
        raise ValueError(NEEDS_BURN_IN)

    def start(params: Params, x: Array, state: State | None = None) -> Stream:
        if state is None:
            state = system.rest(system.inject(params, x))
        free = tree.real(system.rates(state))
        if is_complex and not tree.is_complex(state):
            state = phases.as_complex(state)
        return Stream(state, free)

    def noise_of(batch: Batch, rng: jax.Array | None) -> Disturb:
        if rng is None or not noise:
            return lambda number, state: state
        return disturbance(noise, rng, batch.numbers)

    def turns(
        field: Field,
        cost_gradient: CostGradient,
        readers: frozenset[str],
        state: State,
        num_turns: int,
        num_averaged: int,
        disturb: Disturb,
    ) -> tuple[State, Rates, Rates, Float[Array, 'N B']]:
        """Runs whole turns; returns the state, both averages, and the residuals.

        The averages are over the last `num_averaged` turns, the residuals are those at
        the end of each visit of the last one.
        """
        fed = wiring.feeders(field.drive, field.rates(state))
        reached = wiring.reached(fed, readers)
        field = dynamics.near(field, field.rates(state))
        betas = jnp.asarray(points, jnp.result_type(*jax.tree.leaves(state)))
        num_visits = num_turns * num_points
        first_averaged = (num_turns - num_averaged) * num_points
        share = 1 / (num_averaged * num_points)

        def visit(carry: tuple, index: Array) -> tuple:
            begin, free, error = carry
            beta = betas[index % num_points]
            nudged = dynamics.nudged_field(field, cost_gradient, beta)
            sweep = make_sweep(nudged, begin, order, step_size, clip)

            def step(number: Array, state: State) -> State:
                return disturb(index * steps_per_point + number, sweep(state))

            state = lax.fori_loop(0, steps_per_point, step, begin)
            rates = nudged.rates(state)

            def left() -> Array:
                gap = tree.sub(projected(nudged.drive(rates)), state)
                return worst(reached, 1 / beta, begin, state, gap)

            gap = lax.cond(
                index >= num_visits - num_points,
                left,
                lambda: jnp.zeros_like(tree.per_example_norm(state)),
            )
            weight = jnp.where(index >= first_averaged, share, 0.0)
            free = tree.add(free, tree.scale(weight, tree.real(rates)))
            response = tree.real(tree.scale(1 / beta, rates))
            error = tree.add(error, tree.scale(weight, response))
            return (state, free, error), gap

        def projected(drive: State) -> State:
            if clip is None:
                return drive
            return jax.tree.map(lambda d: jnp.clip(d, *clip), drive)

        zero = tree.zeros_like(tree.real(state))
        (state, free, error), gaps = lax.scan(
            visit, (state, zero, zero), jnp.arange(num_visits)
        )
        return state, free, error, gaps[-num_points:]

    def run(
        params: Params, batch: Batch, stream: Stream, rng: jax.Array | None
    ) -> tuple[Estimate, Stream]:
        if correction and not burn_in:
            raise ValueError(NEEDS_BURN_IN)
        return go_on(params, batch, system.inject(params, batch.x), stream, rng)

    def estimate(
        params: Params, batch: Batch, free: Equilibrium, rng: jax.Array | None
    ) -> Estimate:
        dynamics.check_real('an estimator', free.state)
        injection = dynamics.injected(system, params, batch.x, free)
        state = system.rest(injection) if from_rest else free.state
        stream = start(params, batch.x, state)
        grads, error, info = go_on(params, batch, injection, stream, rng)[0]
        if not from_rest:
            settled = jnp.all(info.residual <= tol, axis=0) & free.converged
            converged = tree.mean_of(batch.counted, settled)
            info = info._replace(converged=converged)
        return Estimate(grads, error, info)

    def go_on(
        params: Params,
        batch: Batch,
        injection: Injection,
        stream: Stream,
        rng: jax.Array | None,
    ) -> tuple[Estimate, Stream]:
        if noise and rng is None:
            raise ValueError('noise needs a key: pass rng')
        field = dynamics.free_field(system, params, injection)
        gradient = dynamics.cost_gradient(system, params, batch.y)
        keys = (None, None) if rng is None else jax.random.split(rng)
        readers = dynamics.readers(system, params, batch.y, stream.free)
        first, second = (noise_of(batch, key) for key in keys)
        state, free = stream
        if correction:
            if burn_in:
                state, free, _, _ = turns(
                    field, gradient, readers, state, burn_in, 1, first
                )
            field = corrected_field(system, params, injection, free, correction)
        state, free, error, residual = turns(
            field, gradient, readers, state, burn_in + periods, periods, second
        )
        if correction is None:
            error = dynamics.signed(system, error)
        grads = local_rule.local_gradient(system, params, batch, free, error)
        num_turns = periods + burn_in * (2 if correction else 1)
        info = Info(
            residual=residual,
            num_steps=jnp.full(residual.shape, num_turns * steps_per_point, jnp.int32),
            converged=tree.mean_of(batch.counted, jnp.all(residual <= tol, axis=0)),
            skipped=jnp.zeros(()),
            count=jnp.sum(batch.counted),
        )
        return Estimate(grads, error, info), Stream(state, free)

    return Oscillation(start, run, estimate)


def _points(radius: float, num_points: int) -> np.ndarray:
    """Returns the nudges of one turn, counterclockwise from r; real if N is 2."""
    half = nudges.circle(radius, num_points)  # checks both
    if num_points < 2:
        raise ValueError(
            'num_points has to be at least 2: the error vector is read off from the '
            'turning nudge, without a free phase'
        )
    below = np.conj(half.points[half.points.imag > 0])[::-1]
    return np.concatenate([half.points, below])


def _check(periods: int, burn_in: int, correction: str | None, noise: float) -> None:
    for name, value, least in (('periods', periods, 1), ('burn_in', burn_in, 0)):
        if not (int(value) == value and value >= least):
            raise ValueError(f'{name} is an integer from {least} on, not {value}')
    check_correction(correction)
    check_noise(noise)
