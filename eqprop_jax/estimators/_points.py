"""The points of a contour as nudges: signs, types, and what a device has of them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Inexact, Int

from eqprop_jax import tree
from eqprop_jax.nudges import Contour
from eqprop_jax.types import State


class Nudges(NamedTuple):
    """Some nudges of a contour, all real or all complex, [P]; or one of them, []."""

    beta: Inexact[Array, '*P']
    weight: Inexact[Array, '*P']
    number: Int[Array, '*P']
    """Place in the contour."""


def parts(
    contour: Contour, axis_name: str | None
) -> list[tuple[Contour, Int[np.ndarray, ' P']]]:
    """Returns the real and the complex nudges apart, with their places in the contour.

    Of several devices all run one program, in which they are one part.
    """
    places = np.arange(len(contour.points))
    if axis_name is not None:
        return [(contour, places)]
    real = contour.on_axis
    own = [places[mask] for mask in (real, ~real) if mask.any()]
    return list(zip(contour.parts(), own, strict=True))


def of_device(nudges: Nudges, axis_name: str) -> Nudges:
    """Returns a device's share of the nudges, padded with some of weight 0."""
    devices, count = lax.axis_size(axis_name), len(nudges.beta)
    if devices > count:
        raise ValueError(
            f'{count} nudges cannot be divided among {devices} devices: take as many '
            'devices as nudges, or fewer'
        )
    share = -(-count // devices)
    padding = jax.tree.map(lambda values: values[: share * devices - count], nudges)
    padding = padding._replace(weight=jnp.zeros_like(padding.weight))
    first = share * lax.axis_index(axis_name)

    def mine(values: Array, more: Array) -> Array:
        values = jnp.concatenate([values, more])
        return lax.dynamic_slice_in_dim(values, first, share)

    return jax.tree.map(mine, nudges, padding)


def gathered(values: Array, count: int, axis_name: str | None) -> Array:
    """Returns the values of all devices' nudges, [P, ...], without those of padding."""
    if axis_name is None:
        return values
    return lax.all_gather(values, axis_name, tiled=True)[:count]


def sign(contour: Contour, rng: jax.Array | None) -> Array | float:
    """Returns the sign that a batch draws, or 1; ValueError where it has no key."""
    if not contour.random_sign:
        return 1.0
    if rng is None:
        raise ValueError('random signs need a key: pass rng')
    return jax.random.rademacher(rng, (), jnp.float32)


def cast(
    part: Contour, numbers: np.ndarray, sign: Array | float, start: State
) -> Nudges:
    """Returns the nudges in the precision of the state they will act on."""
    dtype = jnp.result_type(*jax.tree.leaves(start))
    points, weights = (
        jnp.asarray(values) if isinstance(values, jax.Array) else np.asarray(values)
        for values in part[:2]
    )
    points, weights = points.astype(dtype), weights.astype(dtype)
    sign = jnp.asarray(sign, points.real.dtype)
    return Nudges(sign * points, sign * weights, jnp.asarray(numbers))


def as_complex(state: State) -> State:
    """Returns a real state as a complex one; TypeError where its type has none."""
    for leaf in jax.tree.leaves(state):
        if leaf.dtype not in (jnp.float32, jnp.float64):
            raise TypeError(
                f'there is no complex {leaf.dtype}: use a real nudge (one_sided, '
                'random_sign, symmetric), or float32'
            )
    return tree.to_complex(state)
