"""How long layers are, and their moves: what `solvers._judge` compares.

The length of a layer depends on the phase:

    free phase        |u_l|
    nudged, linear    |Re[w (u_l − u_l*)]|, what the contour reads of the response, or
                      that of another nudge of it, if that is longer
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from eqprop_jax import tree
from eqprop_jax.types import Field, Response, State

NOISY = 32  # roundings: moves no longer than these may be of rounding alone


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


def worst(
    layers: list[str], weight: Array, origin: State, state: State, left: State
) -> Float[Array, ' B']:
    """Returns max_l |Re[w e_l]| / |Re[w (u_l − u_l*)]|, with e what is left to move."""
    shift = [state[name] - origin[name] for name in layers]
    size, length = _norms(
        *(_read(weight, part) for part in (shift, [left[name] for name in layers]))
    )
    return jnp.max(ratio(length, size), axis=0)


def measured(
    field: Field, state: State, move: State
) -> tuple[Float[Array, 'L B'], ...]:
    """Returns size, length and rounding of every layer, and what moves aside.

    That is the part of a complex move that the contour does not read. It turns into the
    part that is read where the nudge turns it, and by the curvature of σ in proportion
    to the response, so that it counts by its absolute length there.
    """
    response = field.response
    coarse = roundings(field, jax.tree.leaves(state)[0].real.dtype)
    if response is not None:
        origin, names = response.origin, list(response.feeders)
        start, moves = ([part[name] for name in names] for part in (origin, move))
        weight = response.weight
        weight = jnp.ones((), start[0].dtype) if weight is None else weight
        shift = [state[name] - origin[name] for name in names]
        size, length = _norms(_read(weight, shift), _read(weight, moves))
        size = of_contour(response, size)
        share = jnp.abs(weight.real) / jnp.abs(weight)  # of u*, which is real
        eps = float(jnp.finfo(size.dtype).eps)
        rounding = share * _rounding(start, _norms(start, start)[0], eps)
        noise = rounding + coarse * size
        if not jnp.iscomplexobj(moves[0]):
            return size, length, jnp.zeros_like(size), noise
        other = _norms(_read(1j * weight, moves), _read(1j * weight, moves))[0]
        turned = jnp.array([[name in response.pushed] for name in names])
        aside = other / jnp.asarray(np.sqrt(_counts(moves)), other.dtype)
        aside += jnp.where(turned, ratio(other, size) / jnp.abs(weight), 0)
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


def of_contour(response: Response, size: Float[Array, 'L B']) -> Float[Array, 'L B']:
    """Returns the length of the longest known response to any nudge of the contour."""
    if response.scale is not None:
        size = jnp.maximum(size, response.scale.T)
    if response.together is not None:
        finite = jnp.where(jnp.isfinite(size), size, 0)
        size = jnp.maximum(size, lax.pmax(finite, response.together))
    return size


def roundings(field: Field, dtype: Any) -> float:
    """Returns ε: the rounding of the numbers, or that of products, if it is coarser.

    Where moves are shorter than the rounding of factors, which flip one by one, no
    sweep need shorten them: `NOISY` times ε is that.
    """
    return max(float(jnp.finfo(dtype).eps), field.rounding / NOISY)


def ratio(a: Array, b: Array) -> Array:
    """Returns a/b; 0 for 0/0."""
    return jnp.where(a == 0, 0, a / b)


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


def _rounding(leaves: list[Array], size: Float[Array, 'L B'], eps: float) -> Array:
    """Returns ε √n_l times the root mean square of all units, from |u_l|, [L, B]."""
    counts = _counts(leaves)
    largest = jnp.max(size, axis=0, keepdims=True)
    share = ratio(size, largest)
    mean = largest * jnp.sqrt(
        jnp.sum(share**2, axis=0, keepdims=True) / float(counts.sum())
    )
    return jnp.asarray(np.sqrt(counts) * eps, size.dtype) * mean


def _counts(leaves: list[Array]) -> np.ndarray:
    """Returns n_l, [L, 1]."""
    return np.array([[leaf[0].size] for leaf in leaves], float)
