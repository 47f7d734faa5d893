"""One sweep over the units of a field.

    u_k ← clip(u_k + ε (D_k(σ(u)) − u_k))

All units at once ('synchronous') or block after block, each seeing what the blocks
before it just did ('alternating'). Blocks that do not feed themselves are solved
exactly by a step of ε = 1, which damps the oscillations of period two that symmetric
networks fall into under synchronous updates (Gauss–Seidel against Jacobi).

Every block asks for its own part of D alone (`eqprop_jax._program`).
"""

from collections.abc import Callable, Collection
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array

from eqprop_jax import _program as program
from eqprop_jax import tree
from eqprop_jax._program import Drive
from eqprop_jax.types import Field, Rates, State

ORDERS = ('alternating', 'synchronous')
ONE_BLOCK = ((),)  # of a plain function: nothing is known of what feeds what


class Sweep(NamedTuple):
    """u ↦ u after the blocks of a field have moved in turn."""

    blocks: tuple[tuple[str, ...], ...]
    """One after the other; (): a state without layers, which moves as a whole."""
    step_size: float
    """ε."""
    clip: tuple[float, float] | None
    """Bounds, or None."""

    @property
    def names(self) -> list[str]:
        """The layers that are swept."""
        return [name for block in self.blocks for name in block]

    def __call__(self, field: Field, state: State) -> State:
        """Returns the state after one sweep of the field."""
        if not self.blocks:
            return jax.tree.map(self._move, state, field.drive(field.rates(state)))
        part = prepared(field, state).drive
        assert isinstance(part, program.Program)
        for block in self.blocks:
            drive = part(field.rates(state), block)
            state = state | {n: self._move(state[n], drive[n]) for n in block}
        return state

    def clipped(self, state: State) -> State:
        """Returns the state brought into the bounds."""
        bounds = self.clip
        return (
            state
            if bounds is None
            else jax.tree.map(lambda u: jnp.clip(u, *bounds), state)
        )

    def _move(self, u: Array, drive: Array) -> Array:
        moved = drive if self.step_size == 1 else u + self.step_size * (drive - u)
        return self.clipped(moved)


def make_sweep(
    field: Field,
    state: State,
    order: str,
    step_size: float,
    clip: tuple[float, float] | None,
) -> tuple[Field, Sweep]:
    """Returns the field as a solver with bounds sees it, and how it is swept.

    Args:
      field: what moves the state.
      state: the layers to be swept; only their shapes and types are used.
      order: 'alternating' or 'synchronous'.
      step_size: ε.
      clip: bounds, or None.

    Raises:
      TypeError: if a complex state is to be clipped.
      ValueError: if the field's blocks do not partition the layers that move.
    """
    if clip is not None and tree.is_complex(state):
        raise TypeError(
            f'clip={clip} is not holomorphic: leave clip out, or use a real nudge '
            '(one_sided, random_sign, symmetric)'
        )
    sweep = Sweep(_blocks(field, state, order), step_size, clip)
    return prepared(_held(field, sweep), state), sweep


def prepared(field: Field, state: State) -> Field:
    """Returns the field with its drive traced, for sweeps of such states in a loop."""
    if isinstance(field.drive, program.Program):
        return field
    return field._replace(drive=program.of(field.drive, field.rates(state)))


def _blocks(field: Field, state: State, order: str) -> tuple[tuple[str, ...], ...]:
    if not isinstance(state, dict) or field.blocks == ONE_BLOCK:
        return ()
    names = state if field.response is None else field.response.feeders
    blocks = field.blocks or tuple((name,) for name in tree.natural_order(names))
    _check_blocks(blocks, names)
    return (tuple(names),) if order == 'synchronous' else blocks


def _held(field: Field, sweep: Sweep) -> Field:
    """Returns an anchored field that keeps holding units at the bounds of a solver.

    Anchoring makes u* a point of rest. A unit that is driven beyond a bound rests there
    anyway, and moves only once a nudge outweighs the rest of its drive, D − clip(D).
    """
    if sweep.clip is None or field.response is None:
        return field
    beyond = tree.sub(field.response.drive, sweep.clipped(field.response.drive))

    def drive(own: Drive, beyond: State, rates: Rates) -> State:
        return tree.add(own(rates), beyond)

    return field._replace(drive=Partial(drive, field.drive, beyond))


def held(field: Field, sweep: Sweep, rates: Rates) -> State | None:
    """Returns which units the bounds of a solver hold in a free phase, or None."""
    if sweep.clip is None or field.response is not None:
        return None
    drive = field.drive(rates)
    return jax.tree.map(jnp.not_equal, drive, sweep.clipped(drive))


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
    """Returns `as_field`; ValueError if it has noise, under which nothing settles."""
    field = as_field(field)
    if field.disturb is not None:
        raise ValueError(
            'under noise nothing settles to a tolerance: take a fixed number of sweeps '
            '(solvers.unrolled; name="unrolled" in a configuration)'
        )
    return field


def _check_blocks(blocks: tuple[tuple[str, ...], ...], state: Collection[str]) -> None:
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
    """Raises ValueError, naming the option, unless all are as `relaxation` has them.

    What the caller calls `max_steps` is the bound. The value of a tolerance that JAX
    traces is not known.
    """
    if order not in ORDERS:
        raise ValueError(f'no order {order!r}; choose from {", ".join(ORDERS)}')
    if not step_size > 0:
        raise ValueError(f'step_size has to be positive, not {step_size}')
    if clip is not None and not (len(clip) == 2 and clip[0] < clip[1]):
        raise ValueError(f'clip is (low, high) with low < high, not {clip}')
    if not tree.is_traced(tol) and not tol > 0:
        raise ValueError(f'tol has to be positive, not {tol}')
    if not (int(max_steps) == max_steps and max_steps >= 1):
        raise ValueError(f'{bound} has to be a positive integer, not {max_steps}')
