"""Relaxation to a fixed point in one loop.

A sweep moves every unit once towards what it receives,

    u_k ← clip(u_k + ε (D_k(σ(u)) − u_k)),

all units at once ('synchronous') or block after block, each seeing what the blocks
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
from jax import lax
from jaxtyping import Array, Float

from eqprop_jax import tree
from eqprop_jax.types import Equilibrium, Field, Solver, State

ORDERS = ('alternating', 'synchronous')
ONE_BLOCK = ((),)  # of a plain function: nothing is known of what feeds what


def relaxation(
    *,
    order: str = 'alternating',
    step_size: float = 1.0,
    clip: tuple[float, float] | None = None,
    tol: float = 1e-4,
    max_steps: int = 250,
) -> Solver:
    """Sweeps until every example is settled, each stopping for itself.

    Example b stops after the first sweep with

        |F(u_b)| / (|u_b| + tiny) <= tol

    (of complex states both parts, each relative to its own size; see
    `relative_residual`) and is left alone from then on, so its result does not depend
    on its batch-mates. The loop ends when all have stopped or after `max_steps`. An
    example whose norm overflows or turns NaN stops there and counts as not converged.

    Args:
      order: 'alternating' (block after block) or 'synchronous'.
      step_size: ε, the fraction of the way to the drive; positive.
      clip: (low, high) kept by every potential after every move; real states only.
        The residual is then that of the projected field, clip(D) − u: a unit that is
        driven against a bound is at rest there.
      tol: relative residual at which an example is settled; positive. In float32
        below about 1e-6 is out of reach.
      max_steps: bound on the number of sweeps; positive.

    Returns:
      solve(field, state) -> Equilibrium. The field is a `Field`, or any function
      u ↦ du/dt of a pytree with leading batch axes, which then is swept synchronously.

    Raises:
      ValueError: for an unknown order, or a number outside its range.
    """
    check_options(order, step_size, clip, tol, max_steps)

    def solve(field: Field | Callable[[State], State], state: State) -> Equilibrium:
        field = as_field(field)
        sweep = make_sweep(field, state, order, step_size, clip)

        def unsettled(carry: tuple) -> Array:
            _, _, residual, _, step = carry
            return (step < max_steps) & jnp.any(residual > tol)

        def body(carry: tuple) -> tuple:
            state, drive, residual, num_steps, step = carry
            active = residual > tol
            moved, moved_drive = sweep(state, drive)
            state = tree.select(active, moved, state)
            drive = tree.select(active, moved_drive, drive)
            gap = relative_residual(reachable(drive), state)
            residual = jnp.where(active, gap, residual)
            return state, drive, residual, num_steps + active, step + 1

        drive = field.drive(field.rates(state))
        reachable = projection(clip)
        residual = jnp.full_like(relative_residual(drive, state), jnp.inf)
        num_steps = jnp.zeros(residual.shape, jnp.int32)
        carry = (state, drive, residual, num_steps, jnp.zeros((), jnp.int32))
        state, _, residual, num_steps, _ = lax.while_loop(unsettled, body, carry)
        return Equilibrium(
            state, field.rates(state), residual, num_steps, residual <= tol
        )

    return solve


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
    if clip is not None and tree.is_complex(state):
        raise TypeError(
            f'clip={clip} is not holomorphic: leave clip out, or use a real nudge '
            '(one_sided, random_sign, symmetric)'
        )
    layered = isinstance(state, dict) and field.blocks != ONE_BLOCK
    blocks = field.blocks
    if layered:
        blocks = blocks or tuple((name,) for name in tree.natural_order(state))
        check_blocks(blocks, state)

    def move(u: Array, drive: Array) -> Array:
        moved = drive if step_size == 1 else u + step_size * (drive - u)
        return moved if clip is None else jnp.clip(moved, *clip)

    def synchronous(state: State, drive: State) -> tuple[State, State]:
        state = jax.tree.map(move, state, drive)
        return state, field.drive(field.rates(state))

    def alternating(state: State, drive: State) -> tuple[State, State]:
        for block in blocks:
            moved = {name: move(state[name], drive[name]) for name in block}
            state = {**state, **moved}
            drive = field.drive(field.rates(state))
        return state, drive

    if order == 'synchronous' or len(blocks) < 2:
        return synchronous
    return alternating


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
