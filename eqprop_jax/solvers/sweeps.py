"""One sweep over the units of a field, and how far from rest it leaves them.

    u_k ← clip(u_k + ε (D_k(σ(u)) − u_k))

All units at once ('synchronous') or block after block, each seeing what the blocks
before it just did ('alternating'). Blocks that do not feed themselves are solved
exactly by a step of ε = 1, which damps the oscillations of period two that symmetric
networks fall into under synchronous updates (Gauss–Seidel against Jacobi).

The residual needs D at the state after the sweep. The drive of the first block is the
next sweep's first move, and those of the others have the same inputs as the moves just
made wherever no later block feeds them, so the compiler shares them: an exact residual
costs nothing on chains.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eqprop_jax import tree
from eqprop_jax.types import Field, State

ORDERS = ('alternating', 'synchronous')
ONE_BLOCK = ((),)  # of a plain function: nothing is known of what feeds what


def make_sweep(
    field: Field,
    state: State,
    order: str,
    step_size: float,
    clip: tuple[float, float] | None,
) -> Callable[[State, State], tuple[State, State]]:
    """Returns (state, drive at it) ↦ (state after one sweep, drive at that).

    Args:
      field: what moves the state.
      state: where the sweeps start; only its structure is used.
      order: 'alternating' or 'synchronous'.
      step_size: ε.
      clip: bounds, or None.

    Raises:
      TypeError: if a complex state is to be clipped.
    """
    move, blocks = make_move(state, step_size, clip), sequence(field, state, order)
    return lambda state, drive: update(field, state, drive, blocks, move)


def sequence(field: Field, state: State, order: str) -> tuple[tuple[str, ...], ...]:
    """Returns the blocks of a sweep, one after the other; (): all units at once.

    Args:
      field: whose blocks they are.
      state: the layers to be swept.
      order: 'alternating' or 'synchronous'.

    Raises:
      ValueError: if the field's blocks do not partition the state.
    """
    if not isinstance(state, dict) or field.blocks == ONE_BLOCK:
        return ()
    blocks = field.blocks or tuple((name,) for name in tree.natural_order(state))
    check_blocks(blocks, state)
    return () if order == 'synchronous' or len(blocks) < 2 else blocks


def make_move(
    state: State, step_size: float, clip: tuple[float, float] | None
) -> Callable[[Array, Array], Array]:
    """Returns (u, D) ↦ clip(u + ε (D − u)) of one layer.

    Raises:
      TypeError: if a complex state is to be clipped.
    """
    if clip is not None and tree.is_complex(state):
        raise TypeError(
            f'clip={clip} is not holomorphic: leave clip out, or use a real nudge '
            '(one_sided, random_sign, symmetric)'
        )

    def move(u: Array, drive: Array) -> Array:
        moved = drive if step_size == 1 else u + step_size * (drive - u)
        return moved if clip is None else jnp.clip(moved, *clip)

    return move


def update(
    field: Field,
    state: State,
    drive: State,
    blocks: tuple[tuple[str, ...], ...],
    move: Callable[[Array, Array], Array],
) -> tuple[State, State]:
    """Returns the state after the blocks have moved in turn, and the drive at it.

    Args:
      field: what moves them.
      state: u.
      drive: D at u; that of the first block is enough.
      blocks: from `sequence`, or some of them.
      move: from `make_move`.
    """
    if not blocks:
        state = jax.tree.map(move, state, drive)
        return state, field.drive(field.rates(state))
    for block in blocks:
        moved = {name: move(state[name], drive[name]) for name in block}
        state = {**state, **moved}
        drive = field.drive(field.rates(state))
    return state, drive


def projection(clip: tuple[float, float] | None) -> Callable[[State], State]:
    """Returns the map of a drive into the bounds, where a clipped state can follow."""
    if clip is None:
        return lambda drive: drive
    return lambda drive: jax.tree.map(lambda d: jnp.clip(d, *clip), drive)


def relative_residual(drive: State, state: State) -> Float[Array, ' B']:
    """Returns |D − u| / (|u| + tiny) of every example; NaN once |u| overflows.

    Of complex states the larger of the ratios of the real and the imaginary parts: a
    small imaginary nudge moves little but the imaginary part, which would otherwise
    pass for settled before it has moved.
    """
    if tree.is_complex(state):
        parts = [
            relative_residual(part(drive), part(state))
            for part in (tree.real, tree.imag)
        ]
        return jnp.maximum(*parts)
    size = tree.per_example_norm(state)
    distance = tree.per_example_norm(tree.sub(drive, state))
    ratio = distance / (size + jnp.finfo(size.dtype).tiny)
    return jnp.where(jnp.isfinite(size), ratio, jnp.nan)


def as_field(field: Field | Callable[[State], State]) -> Field:
    """Returns the field itself, or a plain u ↦ du/dt as a field of one block."""
    if isinstance(field, Field):
        return field
    return Field(
        drive=lambda u: tree.add(field(u), u),
        rates=lambda u: u,
        blocks=ONE_BLOCK,
    )


def without_noise(field: Field | Callable[[State], State]) -> Field:
    """Returns `as_field` for a solver that ends at a tolerance.

    Raises:
      ValueError: if the field has noise, under which nothing settles.
    """
    field = as_field(field)
    if field.disturb is not None:
        raise ValueError(
            'under noise nothing settles to a tolerance: take a fixed number of sweeps '
            '(solvers.unrolled; name="unrolled" in a configuration)'
        )
    return field


def check_blocks(blocks: tuple[tuple[str, ...], ...], state: State) -> None:
    """Raises ValueError, naming the layers, unless the blocks partition the state."""
    listed = [name for block in blocks for name in block]
    for problem, names in (
        ('lack', set(state) - set(listed)),
        ('name the unknown', set(listed) - set(state)),
        ('repeat', {name for name in listed if listed.count(name) > 1}),
    ):
        if names:
            raise ValueError(
                f'blocks {blocks} {problem} {", ".join(map(repr, sorted(names)))}: '
                f'each of the layers {", ".join(state)} stands in one block, as in '
                f'{tuple((name,) for name in state)}'
            )


def check_options(
    order: str,
    step_size: float,
    clip: tuple[float, float] | None,
    tol: float,
    max_steps: int,
    bound: str = 'max_steps',
) -> None:
    """Raises ValueError, naming the option, unless all lie in their ranges.

    Args:
      order: see `relaxation`.
      step_size: see `relaxation`.
      clip: see `relaxation`.
      tol: see `relaxation`.
      max_steps: see `relaxation`.
      bound: what the caller calls `max_steps`.
    """
    if order not in ORDERS:
        raise ValueError(f'no order {order!r}; choose from {", ".join(ORDERS)}')
    if not step_size > 0:
        raise ValueError(f'step_size has to be positive, not {step_size}')
    if clip is not None and not (len(clip) == 2 and clip[0] < clip[1]):
        raise ValueError(f'clip is (low, high) with low < high, not {clip}')
    if not tol > 0:
        raise ValueError(f'tol has to be positive, not {tol}')
    if not (int(max_steps) == max_steps and max_steps >= 1):
        raise ValueError(f'{bound} has to be a positive integer, not {max_steps}')
