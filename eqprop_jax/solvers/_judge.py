"""How far from rest a sweep left every layer, from how far it moved them.

Where a sweep moves layer l by m_l, and moves shrink by the factor ρ from one sweep to
the next, what is left to move is the rest of a geometric series:

    |e_l| ≈ |m_l| ρ/(1 − ρ)        ρ = A_t / A_{t−1},   A_t = max_l |m_l| / size_l

It takes no further evaluation of the drive, and means the same at every step size. ρ is
that of the whole only where every sweep carries the signal through all layers, as
sweeps under a nudge do (`wiring.outward`). Where it takes several, a change comes to
each layer in its turn, and no less than m_l is taken to be left. An example is as
settled as its worst layer is:

    residual = max_l |e_l| / size_l

    phase              size_l
    free               |u_l|
    nudged, linear     |Re[w (u_l − u_l*)]|, what the contour reads of the response, or
                       that of another nudge of it, if that is longer

Moves in the part of a complex state that the contour does not read count by what they
turn into, which is added to |m_l| / size_l.

A layer that moves for the first time moves by all of its size: nothing is settled while
a signal is still on its way, nor after a first sweep, from which ρ is not known.

Three cases have a rule of their own. In a free phase a layer may be zero at rest, as
the errors of predictive coding are, and never settle relative to itself: there |u_l|
beside the other layers, unit by unit, is taken if it is the smaller residual. Under a
real nudge a response that is shorter than the rounding of u* is lost: that much counts
as left to move. And once all moves are of a few roundings, their growth means nothing,
and no more than m_l is left; an example whose moves do not shrink is stuck, and stops.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from eqprop_jax import tree
from eqprop_jax.solvers._lengths import (
    NOISY,
    measured,
    ratio,
    roundings,
)
from eqprop_jax.types import Field, State


class Pace(NamedTuple):
    """How the moves of the last sweeps shrank, for every example."""

    last: Float[Array, ' B']
    """A_t."""
    before: Float[Array, ' B']
    """A_{t−1}."""
    rate: Float[Array, ' B']
    """ρ: the larger of that of the last sweep and the mean of the last two."""


class Verdict(NamedTuple):
    """What is known of every example after a sweep."""

    residual: Float[Array, ' B']
    """max_l |e_l| / size_l; NaN once the state overflows."""
    stuck: Bool[Array, ' B']
    """Whether rounding keeps it from settling any further."""
    pace: Pace
    """For the next sweep."""


def still(state: State) -> Verdict:
    """Returns the verdict on examples that have not moved yet."""
    leaf = jax.tree.leaves(state)[0]
    unknown = jnp.full(leaf.shape[0], jnp.inf, leaf.real.dtype)
    pace = Pace(jnp.zeros_like(unknown), unknown, unknown)
    return Verdict(unknown, jnp.zeros(unknown.shape, bool), pace)


def judge(
    field: Field, state: State, move: State, pace: Pace, *, through: bool
) -> Verdict:
    """Returns how far from rest a sweep left each example.

    Args:
      field: in which it moves.
      state: u after the sweep.
      move: by how much the sweep moved it.
      pace: of the sweeps before.
      through: whether a sweep under a nudge carries it through all layers.
    """
    free = field.response is None
    size, length, aside, noise = lax.stop_gradient(measured(field, state, move))
    step = ratio(length, size) + aside
    largest = jnp.max(step, axis=0)
    eps = roundings(field, size.dtype)
    noisy = jnp.all((length <= NOISY * noise) & (aside <= NOISY * eps), axis=0)
    stuck = noisy & ~(largest < pace.last)
    rate = ratio(largest, pace.last)
    rate = jnp.maximum(rate, jnp.sqrt(ratio(largest, pace.before)))
    rate = jnp.where(noisy & jnp.isfinite(pace.rate), pace.rate, rate)
    factor = jnp.where(rate < 1, rate / (1 - rate), jnp.inf)
    factor = factor if through and not free else jnp.maximum(factor, 1)
    resting = stuck | (noisy & (rate >= 1))  # moves of rounding alone, of no ρ
    left = jnp.where(resting[None] | (step == 0), step, step * factor[None])
    left = jnp.where((pace.last == 0)[None] & ~resting[None] & (step > 0), 1, left)
    if free:
        beside = noise / eps
        remains = jnp.where(size > 0, left * size, length)  # a layer may end at 0
        left = jnp.minimum(left, ratio(jnp.maximum(size, remains), beside))
    else:
        left = jnp.maximum(left, ratio(noise, size))
        left = jnp.where((size > 0) | (length > 0), left, 0)  # see `lost_in_rounding`
    finite = jnp.all(jnp.isfinite(size + length), axis=0)
    residual = jnp.where(finite, jnp.max(left, axis=0), jnp.nan)
    before = jnp.where(pace.last > 0, pace.last, jnp.inf)
    return Verdict(residual, stuck, Pace(largest, before, rate))


def usable(residual: Float[Array, '*P B']) -> Bool[Array, '*P B']:
    """Returns whether no more is left to move than has moved, in any layer.

    A state with a residual above 1 does not show where it is going. After a single
    sweep, from which ρ is not known yet, the residual is 1.
    """
    return residual <= 1  # False for NaN


def lost_in_rounding(field: Field, state: State) -> Bool[Array, ' B']:
    """Returns which examples have a layer whose response is lost in rounding.

    A real nudge has reached the layer, and it has moved by less than u* is rounded by,
    or not at all. A layer that the nudge has not reached (units above it are saturated,
    weights are zero, the cost is at its minimum) has rightly not moved.

    Args:
      field: of a nudged phase.
      state: where it ended.
    """
    response = field.response
    if response is None or tree.is_complex(state):
        return jnp.zeros(jax.tree.leaves(state)[0].shape[0], bool)

    def some(a: Array) -> Bool[Array, ' B']:
        return jnp.any((a != 0).reshape(a.shape[0], -1), axis=1)

    pushed = response.pushed
    size, _, _, noise = measured(field, state, tree.zeros_like(state))
    still = dict(zip(response.feeders, size < noise, strict=True))

    def lost() -> Bool[Array, ' B']:
        shift = tree.sub(field.rates(state), response.rates)
        called = jax.jvp(field.drive, (response.rates,), (shift,))[1]
        each = [
            still[name] & (some(called[name]) | pushed.get(name, False))
            for name in still
        ]
        return jnp.any(jnp.stack(each), axis=0)

    silent = jnp.any(jnp.stack(list(still.values())), axis=0)
    return lax.cond(jnp.any(silent), lost, lambda: jnp.zeros_like(silent))
