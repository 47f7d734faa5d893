"""Secants of the last sweeps, and the step that they propose.

With f = G(u) − u what a sweep moves and ΔF, ΔG the differences of the last m sweeps,

    ΔG γ        γ = argmin |f − ΔF γ|² + λ |ΔF|² |γ|²

is what `solvers.anderson` takes off G(u), for every example by itself. Of complex
states γ is real and both parts count relative to their own size: the Jacobian at small
nudges is almost real, and the imaginary part, which may be a thousand times smaller
than the real one, is what is to be found.

Three rules keep the steps on the way of the plain relaxation. Far from rest, where the
past says little, the first sweeps go alone. A step has to go along with the sweep's own
move, ⟨f − ΔG γ, f⟩ > 0, or it is the sweep's: the secant from one side of an unstable
equilibrium leads back to it. And an example whose residual has grown forgets the past.

References:
  Anderson 1965, https://doi.org/10.1145/321296.321305
  Walker and Ni 2011, https://doi.org/10.1137/10078356X
"""

import functools
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from eqprop_jax import tree
from eqprop_jax.types import State

NEAR = 0.1  # relative residual down to which sweeps go alone
PATIENCE = 10  # but not for more of them than these


class Memory(NamedTuple):
    """The last m sweeps of every example; real and imaginary parts are kept apart."""

    moves: tuple[Float[Array, 'B m n'], ...]
    """ΔF."""
    ends: tuple[Float[Array, 'B m n'], ...]
    """ΔG."""
    gram: tuple[Float[Array, 'B m m'], ...]
    """ΔFᵀ ΔF."""
    move: tuple[Float[Array, 'B n'], ...]
    """f of the last sweep."""
    end: tuple[Float[Array, 'B n'], ...]
    """G of the last sweep."""
    residual: Float[Array, ' B']
    """|f| / |u| of the last sweep."""
    age: Int[Array, ' B']
    """Sweeps since the past was forgotten."""


def mix(
    memory: Memory,
    start: tuple[Array, ...],
    end: tuple[Array, ...],
    step: Int[Array, ''],
    regularization: float,
) -> tuple[tuple[Float[Array, 'B n'], ...], Memory]:
    """Returns ΔG γ, zero where a step has to go alone, and the memory of it.

    u and G(u) are as `flatten` returns them; `step` counts the sweeps before this one.
    """
    depth = memory.gram[0].shape[1]
    move = tree.sub(end, start)
    residual = jnp.max(jnp.stack(jax.tree.map(relative, move, start)), axis=0)
    far = (residual > NEAR) & (step < PATIENCE)
    grown = ~(residual < memory.residual)
    age = jnp.where(grown | far, 0, memory.age)
    slot = (step - 1) % depth
    change = tree.sub(move, memory.move)
    moves = store(memory.moves, change, slot)
    ends = store(memory.ends, tree.sub(end, memory.end), slot)
    rows = jax.tree.map(products, moves, change)
    gram = store(store(memory.gram, rows, slot), rows, slot, axis=2)
    sweeps_ago = (step - 1 - jnp.arange(depth)) % depth
    known = sweeps_ago[None] < age[:, None]
    scales = [1 / squares(part) for part in start]
    matrix = weighted(scales, gram)
    right = weighted(scales, jax.tree.map(products, moves, move))
    gamma = coefficients(matrix, right, known, regularization)
    shift = jax.tree.map(lambda past: combined(past, gamma), ends)
    ahead = jax.tree.map(lambda f, s: jnp.sum((f - s) * f, axis=1), move, shift)
    along = weighted(scales, ahead) > 0
    shift = tree.select(along, shift, tree.zeros_like(shift))
    return shift, Memory(moves, ends, gram, move, end, residual, age + 1)


def store(past: tuple, new: tuple, slot: Int[Array, ''], axis: int = 1) -> tuple:
    """Returns the past with what is at a place of the axis replaced, of each part."""
    return jax.tree.map(
        lambda p, n: lax.dynamic_update_index_in_dim(p, n, slot, axis), past, new
    )


def products(past: Float[Array, 'B m n'], f: Float[Array, 'B n']) -> Array:
    """Returns ⟨past_j, f⟩ for every j, [B, m]."""
    return jnp.einsum('bmn,bn->bm', past, f, precision=lax.Precision.HIGHEST)


def combined(past: Float[Array, 'B m n'], gamma: Float[Array, 'B m']) -> Array:
    """Returns Σ_j γ_j past_j, [B, n]."""
    return jnp.einsum('bmn,bm->bn', past, gamma, precision=lax.Precision.HIGHEST)


def weighted(scales: list[Float[Array, ' B']], parts: tuple[Array, ...]) -> Array:
    """Returns the sum of the parts, each times its scale."""
    terms = [
        scale.reshape((-1,) + (1,) * (part.ndim - 1)) * part
        for scale, part in zip(scales, parts, strict=True)
    ]
    return functools.reduce(operator.add, terms)


def coefficients(
    gram: Float[Array, 'B m m'],
    right: Float[Array, 'B m'],
    known: Bool[Array, 'B m'],
    regularization: float,
) -> Float[Array, 'B m']:
    """Returns γ from ΔFᵀ ΔF, ΔFᵀ f and λ; zero for sweeps that are not known."""
    gram = jnp.where(known[:, :, None] & known[:, None], gram, 0)
    eye = jnp.eye(gram.shape[1], dtype=gram.dtype)
    size = jnp.trace(gram, axis1=1, axis2=2)[:, None]
    ridge = regularization * size + jnp.finfo(gram.dtype).tiny
    diagonal = jnp.where(known, ridge, 1)[:, :, None] * eye[None]
    return solve_positive(gram + diagonal, jnp.where(known, right, 0))


def solve_positive(
    matrix: Float[Array, 'B m m'], right: Float[Array, 'B m']
) -> Float[Array, 'B m']:
    """Returns the solutions of small positive definite systems, by elimination.

    For a handful of unknowns a library's call for every matrix costs more than this.
    """
    rows = jnp.concatenate([matrix, right[:, :, None]], axis=2)
    size = right.shape[1]
    for k in range(size):
        pivot = rows[:, k] / rows[:, k, k, None]
        rows = rows - rows[:, :, k, None] * pivot[:, None]
        rows = rows.at[:, k].set(pivot)
    return rows[:, :, size]


def flatten(state: State) -> tuple[Float[Array, 'B n'], ...]:
    """Returns every example as a vector, or as two: its real and imaginary parts."""
    whole = jax.vmap(lambda one: ravel_pytree(one)[0])(state)
    return (whole.real, whole.imag) if jnp.iscomplexobj(whole) else (whole,)


def unflatten(parts: tuple[Float[Array, 'B n'], ...], like: State) -> State:
    """Returns what `flatten` would make these vectors of."""
    whole = parts[0] if len(parts) == 1 else lax.complex(*parts)
    unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], like))[1]
    return jax.vmap(unravel)(whole)


def relative(move: Float[Array, 'B n'], u: Float[Array, 'B n']) -> Array:
    """Returns |f| / |u| of every example, [B]; infinite at u = 0."""
    length, size = (jnp.sqrt(jnp.sum(part**2, axis=1)) for part in (move, u))
    return jnp.where(length > 0, length / size, 0)


def squares(part: Float[Array, 'B n']) -> Float[Array, ' B']:
    """Returns |u|² of every example; 1 where nothing is there to compare with."""
    square = jnp.sum(part**2, axis=1)
    return jnp.where(square > 0, square, 1)


def empty(parts: tuple[Float[Array, 'B n'], ...], depth: int) -> Memory:
    """Returns the memory before the first sweep."""
    past = tuple(
        jnp.zeros((len(part), depth, part.shape[1]), part.dtype) for part in parts
    )
    count = len(parts[0])
    return Memory(
        moves=past,
        ends=past,
        gram=tuple(jnp.zeros((len(part), depth, depth), part.dtype) for part in parts),
        move=tree.zeros_like(parts),
        end=tree.zeros_like(parts),
        residual=jnp.full(count, jnp.inf, parts[0].dtype),
        age=jnp.zeros(count, jnp.int32),
    )
