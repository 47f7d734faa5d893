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
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from eqprop_jax import dynamics, nudges, tree
from eqprop_jax.estimators import _local_rule as local_rule
from eqprop_jax.estimators import _phases as phases
from eqprop_jax.estimators import _points as points
from eqprop_jax.estimators._contour import check_correction, corrected_field
from eqprop_jax.estimators._turning import Turning, averages, turn
from eqprop_jax.noise import Disturb, disturbance
from eqprop_jax.noise import check as check_noise
from eqprop_jax.solvers._sweeps import check_options
from eqprop_jax.types import (
    Batch,
    Equilibrium,
    Estimate,
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


@dataclasses.dataclass(frozen=True, eq=False)
class Oscillation:
    """An online estimator: for one batch as any other, or through a stream of them.

    Built by `oscillation`, whose arguments its fields are.
    """

    system: System
    nudge: Turning
    periods: int
    burn_in: int
    correction: str | None
    noise: float
    from_rest: bool
    tol: float

    def start(self, params: Params, x: Array, state: State | None = None) -> Stream:
        """Returns a stream that begins in a given real state, or at rest."""
        if state is None:
            state = self.system.rest(self.system.inject(params, x))
        free = tree.real(self.system.rates(state))
        if np.iscomplexobj(self.nudge.points) and not tree.is_complex(state):
            state = points.as_complex(state)
        return Stream(state, free)

    def run(
        self, params: Params, batch: Batch, stream: Stream, rng: jax.Array | None
    ) -> tuple[Estimate, Stream]:
        """Returns the estimate of a batch that a stream goes on with, and the stream.

        Raises:
          ValueError: for a correction without burn-in, or noise without a key.
        """
        if self.correction and not self.burn_in:
            raise ValueError(NEEDS_BURN_IN)
        injection = self.system.inject(params, batch.x)
        return self._go_on(params, batch, injection, stream, rng)

    def __call__(
        self, params: Params, batch: Batch, free: Equilibrium, rng: jax.Array | None
    ) -> Estimate:
        """Returns the estimate for a batch, from the free equilibrium or from rest."""
        dynamics.check_real('an estimator', free.state)
        injection = dynamics.injected(self.system, params, batch.x, free)
        state = self.system.rest(injection) if self.from_rest else free.state
        stream = self.start(params, batch.x, state)
        estimate = self._go_on(params, batch, injection, stream, rng)[0]
        if self.from_rest:
            return estimate
        settled = jnp.all(estimate.info.residual <= self.tol, axis=0) & free.converged
        converged = tree.mean_of(batch.counted, settled)
        return estimate._replace(info=estimate.info._replace(converged=converged))

    def _go_on(
        self,
        params: Params,
        batch: Batch,
        injection: Injection,
        stream: Stream,
        rng: jax.Array | None,
    ) -> tuple[Estimate, Stream]:
        system, (state, free) = self.system, stream
        average = functools.partial(
            averages,
            self.nudge,
            cost_gradient=dynamics.cost_gradient(system, params, batch.y),
            readers=dynamics.readers(system, params, batch.y, free),
        )
        first, second = self._noise(batch, rng)
        num_turns = self.burn_in + self.periods
        field = dynamics.free_field(system, params, injection)
        if self.correction:
            if self.burn_in:
                state, free, _, _ = average(
                    field, state, num_turns=self.burn_in, num_averaged=1, disturb=first
                )
            num_turns += self.burn_in
            field = corrected_field(system, params, injection, free, self.correction)
        state, free, error, residual = average(
            field,
            state,
            num_turns=self.burn_in + self.periods,
            num_averaged=self.periods,
            disturb=second,
        )
        if self.correction is None:
            error = dynamics.signed(system, error)
        grads = local_rule.local_gradient(system, params, batch, free, error)
        sweeps = num_turns * self.nudge.steps_per_point
        settled = jnp.all(residual <= self.tol, axis=0)
        info = Info(
            residual=residual,
            num_steps=jnp.full(residual.shape, sweeps, jnp.int32),
            converged=tree.mean_of(batch.counted, settled),
            skipped=jnp.zeros(()),
            kept=batch.counted,
        )
        return Estimate(grads, error, info), Stream(state, free)

    def _noise(self, batch: Batch, rng: jax.Array | None) -> list[Disturb]:
        """Returns the noise before a correction has set in, and after."""
        if not self.noise:
            return [lambda number, state: state] * 2
        if rng is None:
            raise ValueError('noise needs a key: pass rng')
        keys = jax.random.split(rng)
        return [disturbance(self.noise, key, batch.numbers) for key in keys]


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
      order: of a sweep, as in `solvers.relaxation`, like `step_size` and `clip`.
      step_size: ε.
      clip: bounds.
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
    betas = turn(radius, num_points)
    phases.check(system, nudges.circle(radius, num_points))
    check_options(order, step_size, clip, tol, steps_per_point, bound='steps_per_point')
    for name, value, least in (('periods', periods, 1), ('burn_in', burn_in, 0)):
        if not (int(value) == value and value >= least):
            raise ValueError(f'{name} is an integer from {least} on, not {value}')
    check_correction(correction)
    check_noise(noise)
    if from_rest and correction and not burn_in:
        raise ValueError(NEEDS_BURN_IN)
    return Oscillation(
        system=system,
        nudge=Turning(betas, steps_per_point, (order, step_size, clip)),
        periods=periods,
        burn_in=burn_in,
        correction=correction,
        noise=noise,
        from_rest=from_rest,
        tol=tol,
    )
