"""How far from rest a sweep left every layer, from how far it moved them.

Where a sweep moves layer l by m_l, and moves shrink by the factor ρ from one sweep to
the next, what is left to move is the rest of a geometric series:

    |e_l| ≈ |m_l| ρ/(1 − ρ)        ρ = A_t / A_{t−1},   A_t = max_l |m_l| / size_l

It takes no further evaluation of the drive, and means the same at every step size. ρ is
that of the whole only where every sweep carries the signal through all layers, as
sweeps under a nudge do (`wiring.outward`). Where it takes several, a change comes to
each layer in its turn, and no less than m_l is taken to be left. An example is as
settled as its worst layer:

    residual = max_l |e_l| / size_l

    phase              size_l
    free               |u_l|
    nudged, linear     |Re[w (u_l − u_l*)]|, what the contour reads of the answer, or
                       that of another nudge of it, if that is longer

What moves in the part of a complex state that the contour does not read counts by what
it turns into, and is added to |m_l| / size_l.

A layer that moves for the first time moves by all of its size: nothing is settled while
a signal is still on its way, nor after a first sweep, which tells no ρ.

Three cases need a rule of their own. In a free phase a layer may be zero at rest, as
the errors of predictive coding are, and never settle relative to itself: there |u_l|
beside the other layers, unit by unit, is taken if it is the smaller residual. Under a
real nudge an answer that is shorter than the rounding of u* is lost: that much counts
as left to move. And once all moves are of a few roundings and do not shrink any more,
an example is stuck, and stops.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from eqprop_jax import tree
from eqprop_jax.types import Field, Response, State

NOISY = 32  # roundings: moves no longer than these may be of rounding alone


class Pace(NamedTuple):
    """How the moves of the last sweeps shrank, for every example."""

    last: Float[Array, ' B']
    """A_t."""
    before: Float[Array, ' B']
    """A_{t−1}."""
    rate: Float[Array, ' B']
    """ρ: the larger of that of the last sweep and the mean of the last two."""


class Verdict(NamedTuple):
    """What a sweep says of every example."""

    residual: Float[Array, ' B']
    """max_l |e_l| / size_l; NaN once the state overflows."""
    stuck: Bool[Array, ' B']
    """Whether rounding keeps it from settling any further."""
    pace: Pace
    """For the next sweep."""


def still(state: State) -> Verdict:
    """Returns that of examples that have not moved yet."""
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
    size, length, aside, noise = lax.stop_gradient(_measured(field, state, move))
    step = _ratio(length, size) + aside
    largest = jnp.max(step, axis=0)
    eps = roundings(field, size.dtype)
    noisy = jnp.all((length <= NOISY * noise) & (aside <= NOISY * eps), axis=0)
    stuck = noisy & ~(largest < pace.last)
    rate = _ratio(largest, pace.last)
    rate = jnp.maximum(rate, jnp.sqrt(_ratio(largest, pace.before)))
    rate = jnp.where(noisy & jnp.isfinite(pace.rate), pace.rate, rate)
    factor = jnp.where(rate < 1, rate / (1 - rate), jnp.inf)
    factor = factor if through and not free else jnp.maximum(factor, 1)
    left = jnp.where(stuck[None] | (step == 0), step, step * factor[None])
    left = jnp.where((pace.last == 0)[None] & ~stuck[None] & (step > 0), 1, left)
    if free:
        beside = noise / eps
        remains = jnp.where(size > 0, left * size, length)  # a layer may end at 0
        left = jnp.minimum(left, _ratio(jnp.maximum(size, remains), beside))
    else:
        left = jnp.maximum(left, _ratio(noise, size))
        left = jnp.where((size > 0) | (length > 0), left, 0)  # see `unanswered`
    finite = jnp.all(jnp.isfinite(size + length), axis=0)
    residual = jnp.where(finite, jnp.max(left, axis=0), jnp.nan)
    before = jnp.where(pace.last > 0, pace.last, jnp.inf)
    return Verdict(residual, stuck, Pace(largest, before, rate))


def answered(residual: Float[Array, '*P B']) -> Bool[Array, '*P B']:
    """Returns whether the state is any answer at all, where phases did not settle.

    Above 1 what is left to move, as estimated, is more than what is there in some
    layer, and a state says nothing of where it is going. After a single sweep, which
    tells no ρ, the residual is 1, and the state is kept.
    """
    return residual <= 1  # False for NaN


def unanswered(field: Field, state: State) -> Bool[Array, ' B']:
    """Returns which examples have a layer that was called upon and did not move.

    The answer of such a layer to a real nudge is shorter than its rounding. A layer
    that nothing has called upon (units above it are saturated, weights are zero, the
    cost is at its minimum) has rightly not moved.

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
    size = _of_contour(response, lengths(field, state))
    still = dict(zip(response.feeders, size == 0, strict=True))

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


def worst(
    layers: list[str], weight: Array, origin: State, state: State, left: State
) -> Float[Array, ' B']:
    """Returns max_l |Re[w e_l]| / |Re[w (u_l − u_l*)]|.

    Args:
      layers: those that count.
      weight: w.
      origin: u*.
      state: u.
      left: e, what is left to move.
    """
    answer = [state[name] - origin[name] for name in layers]
    size, length = _norms(
        *(_read(weight, part) for part in (answer, [left[name] for name in layers]))
    )
    return jnp.max(_ratio(length, size), axis=0)


def read(field: Field, part: State) -> list[Array]:
    """Returns what counts of a state or a move: of each layer a real array [B, ...].

    Under a nudge that is Re[w z] / |w| of the layers that it can reach; else all of z,
    first real parts and then imaginary ones.
    """
    response = field.response
    if response is not None:
        leaves = [part[name] for name in response.feeders]
        return leaves if response.weight is None else _read(response.weight, leaves)
    if tree.is_complex(part):
        return jax.tree.leaves(tree.real(part)) + jax.tree.leaves(tree.imag(part))
    return jax.tree.leaves(part)


def lengths(field: Field, state: State) -> Float[Array, 'L B']:
    """Returns |u_l|, or under a nudge that of what `read` returns of u − u*."""
    response = field.response
    if response is not None:
        state = {name: state[name] - response.origin[name] for name in response.feeders}
    layers = read(field, state)
    return _norms(layers, layers)[0]


def _of_contour(response: Response, size: Float[Array, 'L B']) -> Float[Array, 'L B']:
    """Returns the longest answer to any nudge, of those that are known."""
    if response.scale is not None:
        size = jnp.maximum(size, response.scale.T)
    if response.together is not None:
        finite = jnp.where(jnp.isfinite(size), size, 0)
        size = jnp.maximum(size, lax.pmax(finite, response.together))
    return size


def _measured(
    field: Field, state: State, move: State
) -> tuple[Float[Array, 'L B'], ...]:
    """Returns size, length and rounding of every layer, and what moves aside.

    That is the part of a complex move that the contour does not read. It turns into the
    part that is read where the nudge turns it, and by the curvature of σ in proportion
    to the answer, so that it counts by its absolute length there.
    """
    response = field.response
    coarse = roundings(field, jax.tree.leaves(state)[0].real.dtype)
    if response is not None:
        origin, names = response.origin, list(response.feeders)
        start, moves = ([part[name] for name in names] for part in (origin, move))
        weight = response.weight
        weight = jnp.ones((), start[0].dtype) if weight is None else weight
        answer = [state[name] - origin[name] for name in names]
        size, length = _norms(_read(weight, answer), _read(weight, moves))
        size = _of_contour(response, size)
        share = jnp.abs(weight.real) / jnp.abs(weight)  # of u*, which is real
        eps = float(jnp.finfo(size.dtype).eps)
        rounding = share * _rounding(start, _norms(start, start)[0], eps)
        noise = rounding + coarse * size
        if not jnp.iscomplexobj(moves[0]):
            return size, length, jnp.zeros_like(size), noise
        other = _norms(_read(1j * weight, moves), _read(1j * weight, moves))[0]
        turned = jnp.array([[name in response.pushed] for name in names])
        aside = other / jnp.asarray(np.sqrt(_counts(moves)), other.dtype)
        aside += jnp.where(turned, _ratio(other, size) / jnp.abs(weight), 0)
        return size, length, aside, noise
    parts = (tree.real, tree.imag) if tree.is_complex(state) else (lambda a: a,)
    each = []
    for part in parts:
        leaves, moves = (jax.tree.leaves(part(a)) for a in (state, move))
        size, length = _norms(leaves, moves)
        each.append((size, length, _rounding(leaves, size, coarse)))
    size, length, noise = (
        jnp.concatenate(values) for values in zip(*each, strict=True)
    )
    return size, length, jnp.zeros_like(size), noise


def _read(weight: Array, leaves: list[Array]) -> list[Array]:
    """Returns Re[w z] / |w|; real leaves as they are."""
    turn = weight / jnp.abs(weight)
    return [
        turn.real * leaf.real - turn.imag * leaf.imag
        if jnp.iscomplexobj(leaf)
        else leaf
        for leaf in leaves
    ]


def _norms(
    leaves: list[Array], moves: list[Array]
) -> tuple[Float[Array, 'L B'], Float[Array, 'L B']]:
    """Returns |u_l| and |m_l|; scaled, since squares of credit underflow in float32."""

    def one(leaf: Array, move: Array) -> tuple[Array, Array]:
        leaf, move = (value.reshape(value.shape[0], -1) for value in (leaf, move))
        scale = jnp.max(jnp.abs(leaf), axis=1, keepdims=True)
        scale = jnp.where((scale > 0) & (scale < 1), scale, 1)
        norms = (
            jnp.sqrt(jnp.sum((value / scale) ** 2, axis=1)) for value in (leaf, move)
        )
        size, length = (norm * scale[:, 0] for norm in norms)
        return size, length

    size, length = zip(*map(one, leaves, moves), strict=True)
    return jnp.stack(size), jnp.stack(length)


def roundings(field: Field, dtype: Any) -> float:
    """Returns ε: that of the numbers, or what products that are rounded come to.

    Where moves are shorter than the rounding of factors, which flip one by one, no
    sweep need shorten them: `NOISY` times ε is that.
    """
    return max(float(jnp.finfo(dtype).eps), field.rounding / NOISY)


def _rounding(leaves: list[Array], size: Float[Array, 'L B'], eps: float) -> Array:
    """Returns ε √n_l times the root mean square of all units, from |u_l|, [L, B]."""
    counts = _counts(leaves)
    largest = jnp.max(size, axis=0, keepdims=True)
    share = _ratio(size, largest)
    mean = largest * jnp.sqrt(
        jnp.sum(share**2, axis=0, keepdims=True) / float(counts.sum())
    )
    return jnp.asarray(np.sqrt(counts) * eps, size.dtype) * mean


def _counts(leaves: list[Array]) -> np.ndarray:
    """Returns n_l, [L, 1]."""
    return np.array([[leaf[0].size] for leaf in leaves], float)


def _ratio(a: Array, b: Array) -> Array:
    """Returns a/b; 0 for 0/0."""
    return jnp.where(a == 0, 0, a / b)
