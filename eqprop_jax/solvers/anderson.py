"""Anderson mixing: each step looks back at how the last ones changed what is left.

With G(u) the state after a sweep from u, f = G(u) − u, and the differences of the last
m sweeps as columns, a step is

    u ← G(u) − ΔG γ        γ = argmin |f − ΔF γ|² + λ |ΔF|² |γ|²

of every example for itself: where G is affine it is GMRES, and where it is not, a
secant method. A slow mode is extrapolated, one that changes sign at every sweep is
averaged away: undamped synchronous sweeps that swing between two states settle.

Blocks that do not feed themselves are solved by their move. The first block is then a
function of the others, which alone are mixed: what is mixed is shorter, and a step
costs the products of one sweep, its exact residual included.

Three rules keep it on the way of the plain relaxation. Far from rest, where the past
says little, the first sweeps go alone. A step has to go along with the sweep's own
move, ⟨f − ΔG γ, f⟩ > 0, or it is the sweep's: the secant from one side of an unstable
equilibrium leads back to it. And an example whose residual has grown forgets the past.

Of complex states γ is real and both parts count relative to their own size: the
Jacobian at small nudges is almost real, and the imaginary part, which may be a thousand
times smaller than the real one, is what is to be found.

References:
  Anderson 1965, https://doi.org/10.1145/321296.321305
  Walker and Ni 2011, https://doi.org/10.1137/10078356X
"""

import functools
import math
import operator
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from eqprop_jax import tree
from eqprop_jax.solvers.settle import Progress, compact_here, settle
from eqprop_jax.solvers.sweeps import (
    as_field,
    check_options,
    make_move,
    projection,
    sequence,
    update,
)
from eqprop_jax.types import Equilibrium, Field, Solver, State

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
    """What it started from."""
    age: Int[Array, ' B']
    """Sweeps since the past was forgotten."""


def anderson(
    *,
    depth: int = 5,
    regularization: float = 1e-7,
    order: str = 'alternating',
    step_size: float = 1.0,
    clip: tuple[float, float] | None = None,
    tol: float = 1e-4,
    max_steps: int = 250,
    compact: bool | None = None,
) -> Solver:
    """Relaxation with Anderson mixing, to the same equilibria.

    Stopping, residuals and the independence of examples are those of `relaxation`. It
    pays where plain sweeps are slow (tied weights, strong feedback); where they take
    half a dozen, mixing costs more than it saves.

    Args:
      depth: m, the sweeps looked back to; positive. Memory grows with it.
      regularization: λ, relative; not negative.
      order: as in `relaxation`.
      step_size: as in `relaxation`.
      clip: as in `relaxation`; mixed states, too, are brought into these bounds.
      tol: as in `relaxation`.
      max_steps: as in `relaxation`.
      compact: as in `relaxation`.

    Returns:
      solve(field, state) -> Equilibrium, as that of `relaxation`.

    Raises:
      ValueError: for an unknown order, or a number outside its range.
    """
    check_options(order, step_size, clip, tol, max_steps)
    if not (int(depth) == depth and depth >= 1):
        raise ValueError(f'depth has to be a positive integer, not {depth}')
    if not 0 <= regularization < math.inf:
        raise ValueError(
            f'regularization has to be finite and not negative, not {regularization}'
        )

    def solve(field: Field | Callable[[State], State], state: State) -> Equilibrium:
        field = as_field(field)
        move, blocks = make_move(state, step_size, clip), sequence(field, state, order)
        solved: tuple[tuple[str, ...], ...] = ()
        if field.blocks and blocks and step_size == 1 and clip is None:
            solved, blocks = blocks[:1], blocks[1:]
        bounded = projection(clip)

        def mixed(state: State) -> State:
            """Returns the layers that are mixed."""
            if not solved:
                return state
            return {name: u for name, u in state.items() if name not in solved[0]}

        def advance(
            field: Field, progress: Progress, residual: Float[Array, ' B'], step: Array
        ) -> Progress:
            swept, _ = update(field, progress.state, progress.drive, blocks, move)
            target = mixed(swept)
            end = flatten(target)
            start = flatten(mixed(progress.state))
            shift, memory = mix(progress.memory, start, end, residual, step)
            target = bounded(tree.sub(target, unflatten(shift, target)))
            state = {**swept, **target} if solved else target
            drive = field.drive(field.rates(state))
            if solved:
                state, drive = update(field, state, drive, solved, move)
            return Progress(state, drive, memory)

        return settle(
            field,
            state,
            advance,
            empty(flatten(mixed(state)), depth),
            reachable=bounded,
            tol=tol,
            max_steps=max_steps,
            compact=compact_here(compact),
        )

    def mix(
        memory: Memory,
        start: tuple[Array, ...],
        end: tuple[Array, ...],
        residual: Float[Array, ' B'],
        step: Int[Array, ''],
    ) -> tuple[tuple[Array, ...], Memory]:
        """Returns ΔG γ, and the memory with this sweep in it."""
        move = tree.sub(end, start)
        far = (residual > NEAR) & (step < PATIENCE)
        grown = ~(residual < memory.residual)
        age = jnp.where(grown | far, 0, memory.age)
        slot = (step - 1) % depth
        change = tree.sub(move, memory.move)
        moves = store(memory.moves, change, slot)
        ends = store(memory.ends, tree.sub(end, memory.end), slot)
        rows = jax.tree.map(products, moves, change)
        gram = jax.tree.map(
            lambda gram, row: lax.dynamic_update_index_in_dim(
                lax.dynamic_update_index_in_dim(gram, row, slot, axis=1),
                row,
                slot,
                axis=2,
            ),
            memory.gram,
            rows,
        )
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

    return solve


def store(past: tuple, new: tuple, slot: Int[Array, '']) -> tuple:
    """Returns the past with a column replaced, of each part."""
    return jax.tree.map(
        lambda p, n: lax.dynamic_update_index_in_dim(p, n, slot, axis=1), past, new
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
    """Returns γ, zero for sweeps that are not known.

    Args:
      gram: ΔFᵀ ΔF.
      right: ΔFᵀ f.
      known: which columns of ΔF count.
      regularization: λ.
    """
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
    leaves = [leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(state)]
    whole = jnp.concatenate(leaves, axis=1)
    return (whole.real, whole.imag) if jnp.iscomplexobj(whole) else (whole,)


def unflatten(parts: tuple[Float[Array, 'B n'], ...], like: State) -> State:
    """Returns what `flatten` would make these vectors of."""
    whole = parts[0] if len(parts) == 1 else jax.lax.complex(*parts)
    leaves, structure = jax.tree.flatten(like)
    ends = [math.prod(leaf.shape[1:]) for leaf in leaves]
    cuts = [sum(ends[: index + 1]) for index in range(len(ends) - 1)]
    pieces = jnp.split(whole, cuts, axis=1)
    return structure.unflatten(
        piece.reshape(leaf.shape) for piece, leaf in zip(pieces, leaves, strict=True)
    )


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
