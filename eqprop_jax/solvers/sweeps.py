"""One sweep over the units of a field.

    u_k ← clip(u_k + ε (D_k(σ(u)) − u_k))

All units at once ('synchronous') or block after block, each seeing what the blocks
before it just did ('alternating'). Blocks that do not feed themselves are solved
exactly by a step of ε = 1, which damps the oscillations of period two that symmetric
networks fall into under synchronous updates (Gauss–Seidel against Jacobi).

Every block asks for its own part of D alone (`eqprop_jax.program`).
"""

from collections.abc import Callable, Collection

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array

from eqprop_jax import program, tree
from eqprop_jax.types import Field, State

ORDERS = ('alternating', 'synchronous')
ONE_BLOCK = ((),)  # of a plain function: nothing is known of what feeds what


def make_sweep(
    field: Field,
    state: State,
    order: str,
    step_size: float,
    clip: tuple[float, float] | None,
) -> Callable[[State], State]:
    """Returns u ↦ u after one sweep.

    Args:
      field: what moves the state.
      state: where the sweeps start; only its structure is used.
      order: 'alternating' or 'synchronous'.
      step_size: ε.
      clip: bounds, or None.

    Raises:
      TypeError: if a complex state is to be clipped.
    """
    field = prepared(held(field, clip), state)
    move, blocks = make_move(state, step_size, clip), sequence(field, state, order)
    return lambda state: update(field, state, blocks, move)


def prepared(field: Field, state: State) -> Field:
    """Returns the field with its drive traced, for sweeps in a loop.

    Args:
      field: what moves the state.
      state: where the sweeps start; only its shapes and types are used.
    """
    if isinstance(field.drive, program.Program):
        return field
    return field._replace(drive=program.of(field.drive, field.rates(state)))


def sequence(field: Field, state: State, order: str) -> tuple[tuple[str, ...], ...]:
    """Returns the blocks of a sweep, one after the other; (): a state without layers.

    Args:
      field: whose blocks they are.
      state: the layers to be swept.
      order: 'alternating' or 'synchronous'.

    Raises:
      ValueError: if the field's blocks do not partition the layers that move.
    """
    if not isinstance(state, dict) or field.blocks == ONE_BLOCK:
        return ()
    names = state if field.response is None else field.response.feeders
    blocks = field.blocks or tuple((name,) for name in tree.natural_order(names))
    check_blocks(blocks, names)
    return (tuple(names),) if order == 'synchronous' else blocks


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
    blocks: tuple[tuple[str, ...], ...],
    move: Callable[[Array, Array], Array],
) -> State:
    """Returns the state after the blocks have moved in turn.

    Args:
      field: what moves them, from `prepared`.
      state: u.
      blocks: from `sequence`, or some of them.
      move: from `make_move`.
    """
    if not isinstance(state, dict) or field.blocks == ONE_BLOCK:
        return jax.tree.map(move, state, field.drive(field.rates(state)))
    part = prepared(field, state).drive
    assert isinstance(part, program.Program)
    for block in blocks:
        drive = part(field.rates(state), block)
        state = state | {name: move(state[name], drive[name]) for name in block}
    return state


def held(field: Field, clip: tuple[float, float] | None) -> Field:
    """Returns an anchored field that keeps holding units at the bounds of a solver.

    Anchoring makes u* a point of rest. A unit that is driven beyond a bound rests there
    anyway, and moves only once a nudge outweighs the rest of its drive, D − clip(D).

    Args:
      field: of a nudged phase; others are returned as they are.
      clip: bounds, or None.
    """
    if clip is None or field.response is None:
        return field
    beyond = jax.tree.map(lambda d: d - jnp.clip(d, *clip), field.response.drive)
    return field._replace(
        drive=Partial(
            lambda drive, beyond, rates: tree.add(drive(rates), beyond),
            field.drive,
            beyond,
        )
    )


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


def check_blocks(blocks: tuple[tuple[str, ...], ...], state: Collection[str]) -> None:
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
