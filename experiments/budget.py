"""What a step costs on many chips, on paper: operations, memory, traffic.

A batch of B is divided among d groups (data sharding), the K phases of a contour among
the c chips of each group (contour sharding). With b = B / d a chip does

    operations    b (input + E_0 D + ⌈K/c⌉ κ E_1 D + rule)
    seconds       operations / (rate · b / (b + b_½))
    gradients     2 (d − 1)/d · 4 P bytes       ring all-reduce among the groups
    errors        2 (c − 1)/c · 4 U b bytes     that of δ among the chips of a group

with D the operations of one evaluation of the drive, E_0 and E_1 evaluations in the
free and in each nudged phase, κ = 2 for complex ones, P parameters, U units, and b_½
the examples at which a product runs at half of the chip's rate. Every chip of a group
relaxes the free phase and applies the rule: contour sharding shortens the nudged phases
alone, and pays where data sharding leaves too few examples on a chip.

Traffic is not taken to overlap with operations, and a step is compiled whole, so that
nothing waits for the host.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from eqprop_jax.estimators._local_rule import local_gradient
from eqprop_jax.types import Batch, Params, Rates, System
from experiments import flops

BYTES = 4  # of a float32 number
PER_PARAMETER = 3  # itself, its gradient, its momentum
PER_UNIT = 6  # state, drive and what is kept of both, injection, free rates


class Size(NamedTuple):
    """What a network costs for each example."""

    inject: int
    """Operations of the input's drive."""
    drive: int
    """Operations of D, real."""
    rule: int
    """Operations of the local rule."""
    params: int
    """P."""
    units: int
    """U."""


class Schedule(NamedTuple):
    """How a gradient is found."""

    free: float
    """E_0, evaluations of the drive."""
    nudged: float
    """E_1, those of each nudged phase."""
    phases: int = 1
    """K; circles of N points have N/2 + 1, conjugates being one. The two real ones are
    taken for as dear as the others."""
    is_complex: bool = True


class Chip(NamedTuple):
    """A machine of which there are many."""

    rate: float
    """Operations a second of large products."""
    memory: float
    """Bytes."""
    traffic: float
    """Bytes a second to the others."""
    half_rate: float = 1.0
    """b_½, examples."""


class Budget(NamedTuple):
    """What a step takes, of every chip."""

    groups: int
    """d."""
    sharing: int
    """c."""
    operations: float
    compute_seconds: float
    gradient_seconds: float
    error_seconds: float
    memory: float
    """Bytes, at one phase after the other."""

    @property
    def seconds(self) -> float:
        """Of a step."""
        return self.compute_seconds + self.gradient_seconds + self.error_seconds


def size(system: System, x_shape: tuple[int, ...], num_classes: int) -> Size:
    """Returns what a system costs, from its shapes alone: nothing is allocated.

    Args:
      system: what moves.
      x_shape: of one input.
      num_classes: of the targets.
    """
    x = jax.ShapeDtypeStruct((1, *x_shape), jnp.float32)
    y = jax.ShapeDtypeStruct((1, num_classes), jnp.float32)
    params = jax.eval_shape(system.init, jax.random.key(0), x)
    injection = jax.eval_shape(system.inject, params, x)
    rates = jax.eval_shape(lambda i: system.rates(system.rest(i)), injection)

    def rule(params: Params, x: Array, y: Array, rates: Rates) -> Params:
        return local_gradient(system, params, Batch(x, y), rates, rates)

    return Size(
        inject=flops.count(system.inject, params, x),
        drive=flops.count(system.drive, params, injection, rates),
        rule=flops.count(rule, params, x, y, rates),
        params=sum(leaf.size for leaf in jax.tree.leaves(params)),
        units=sum(leaf.size for leaf in jax.tree.leaves(rates)),
    )


def step(
    size: Size,
    schedule: Schedule,
    chip: Chip,
    batch_size: int,
    groups: int,
    sharing: int,
) -> Budget:
    """Returns the budget of a step on groups · sharing chips.

    Args:
      size: from `size`.
      schedule: of the gradient.
      chip: each of them.
      batch_size: B, of the whole batch.
      groups: d, at most B.
      sharing: c, at most K.

    Raises:
      ValueError: if a group has no example, or a chip no phase.
    """
    if not 1 <= groups <= batch_size:
        raise ValueError(f'{batch_size} examples cannot be divided among {groups}')
    if not 1 <= sharing <= schedule.phases:
        raise ValueError(f'{schedule.phases} phases cannot be divided among {sharing}')
    examples = math.ceil(batch_size / groups)
    kind = 2 if schedule.is_complex else 1
    nudged = math.ceil(schedule.phases / sharing) * kind * schedule.nudged
    each = size.inject + (schedule.free + nudged) * size.drive + size.rule
    operations = examples * each
    rate = chip.rate * examples / (examples + chip.half_rate)
    gradients = 2 * (groups - 1) / groups * BYTES * size.params
    errors = 2 * (sharing - 1) / sharing * BYTES * size.units * examples
    return Budget(
        groups=groups,
        sharing=sharing,
        operations=operations,
        compute_seconds=operations / rate,
        gradient_seconds=gradients / chip.traffic,
        error_seconds=errors / chip.traffic,
        memory=BYTES
        * (PER_PARAMETER * size.params + PER_UNIT * kind * size.units * examples),
    )


def best(
    size: Size, schedule: Schedule, chip: Chip, batch_size: int, chips: int
) -> Budget:
    """Returns the quickest step on that many chips, which may leave some idle.

    Args:
      size: as in `step`.
      schedule: as in `step`.
      chip: as in `step`.
      batch_size: as in `step`.
      chips: how many there are.

    Raises:
      ValueError: if the memory of a chip is too small for every division.
    """
    options = divisions(size, schedule, chip, batch_size, chips)
    fitting = [option for option in options if option.memory <= chip.memory]
    if not fitting:
        needed = min(option.memory for option in options)
        raise ValueError(
            f'a chip needs {needed:.3g} bytes and has {chip.memory:.3g}: take more '
            'chips, or a smaller batch'
        )
    return min(fitting, key=lambda option: option.seconds)


def divisions(
    size: Size, schedule: Schedule, chip: Chip, batch_size: int, chips: int
) -> list[Budget]:
    """Returns the budgets of 1, 2, ... chips that share a contour.

    Args:
      size: as in `step`.
      schedule: as in `step`.
      chip: as in `step`.
      batch_size: as in `step`.
      chips: how many there are; what does not divide them leaves some idle.
    """
    return [
        step(
            size, schedule, chip, batch_size, min(chips // sharing, batch_size), sharing
        )
        for sharing in range(1, min(schedule.phases, chips) + 1)
    ]


def turning_point(
    size: Size, schedule: Schedule, chip: Chip, batch_size: int, most: int = 2**14
) -> int | None:
    """Returns from how many chips on, in powers of two, sharing a contour is quicker.

    Whatever the memory: chips that are too few for a batch are so in either way.

    Args:
      size: as in `step`.
      schedule: as in `step`.
      chip: as in `step`.
      batch_size: as in `step`.
      most: chips that are tried; None is returned where data sharding wins up to them.
    """
    chips = 1
    while chips <= most:
        options = divisions(size, schedule, chip, batch_size, chips)
        if min(options, key=lambda option: option.seconds).sharing > 1:
            return chips
        chips *= 2
    return None
