"""A nudge that turns while the network runs, and averages over whole turns.

The nudge is held at each of its N points for some sweeps, turn after turn:

    β(t) = r ω_k,  ω_k = e^{2πik/N},  k = 0, 1, ..., N − 1, 0, 1, ...

    mean of s          = s* + O(r^N)       the free point
    mean of Re(s/β)    = δ  + O(r^N)       the error vector
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from eqprop_jax import _wiring as wiring
from eqprop_jax import dynamics, nudges, tree
from eqprop_jax.dynamics import CostGradient
from eqprop_jax.noise import Disturb
from eqprop_jax.solvers._lengths import worst
from eqprop_jax.solvers._sweeps import make_sweep
from eqprop_jax.types import Field, Rates, State


class Turning(NamedTuple):
    """A nudge that is held at each of its points for some sweeps."""

    points: np.ndarray
    """β of one turn, [N]."""
    steps_per_point: int
    sweep: tuple[str, float, tuple[float, float] | None]
    """Order, step size and bounds of a sweep."""


def turn(radius: float, num_points: int) -> np.ndarray:
    """Returns the nudges of one turn, counterclockwise from r; real if N is 2."""
    half = nudges.circle(radius, num_points)  # checks both
    if num_points < 2:
        raise ValueError(
            'num_points has to be at least 2: the error vector is read off from the '
            'turning nudge, without a free phase'
        )
    below = np.conj(half.points[half.points.imag > 0])[::-1]
    return np.concatenate([half.points, below])


def averages(
    nudge: Turning,
    field: Field,
    state: State,
    *,
    cost_gradient: CostGradient,
    readers: frozenset[str],
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
    betas = jnp.asarray(nudge.points, jnp.result_type(*jax.tree.leaves(state)))
    num_points = len(betas)
    num_visits = num_turns * num_points
    first_averaged = (num_turns - num_averaged) * num_points
    share = 1 / (num_averaged * num_points)

    def visit(carry: tuple, index: Array) -> tuple:
        begin, free, error = carry
        beta = betas[index % num_points]
        nudged = dynamics.nudged_field(field, cost_gradient, beta)
        nudged, sweep = make_sweep(nudged, begin, *nudge.sweep)

        def step(number: Array, state: State) -> State:
            number += index * nudge.steps_per_point
            return disturb(number, sweep(nudged, state))

        state = lax.fori_loop(0, nudge.steps_per_point, step, begin)
        rates = nudged.rates(state)

        def left() -> Array:
            gap = tree.sub(sweep.clipped(nudged.drive(rates)), state)
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

    zero = tree.zeros_like(tree.real(state))
    (state, free, error), gaps = lax.scan(
        visit, (state, zero, zero), jnp.arange(num_visits)
    )
    return state, free, error, gaps[-num_points:]
