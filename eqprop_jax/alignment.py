"""How far paired weights are from each other's transpose, and how to set it.

Credit flows correctly under plain EP while feedback weights are the transposes of
the forward ones; the angle between the two says how far a network is from that.

References:
  Laborieux and Zenke 2024, Fig. 3, https://arxiv.org/abs/2309.02214
"""

import jax
from jaxtyping import Array, Float

from eqprop_jax import linear, tree
from eqprop_jax.types import Pair, Params, System

angle = linear.angle
rotation = linear.rotate


def angles(system: System, params: Params) -> dict[str, Float[Array, '']]:
    """Returns the angle in degrees of every pair, {'layer/feedback': angle}.

    Args:
      system: what moves; its `pairs` say which weights belong together.
      params: θ.
    """
    return {
        '/'.join(pair[1]): linear.angle(
            _target(params, pair), tree.get(params, pair[1])
        )
        for pair in system.pairs
    }


def rotate_feedback(
    system: System, params: Params, rng: jax.Array, degrees: float
) -> Params:
    """Returns params with every paired feedback weight at an angle to its partner.

        B = cos(degrees) Wᵀ + sin(degrees) ‖W‖ R,   R random, ‖R‖ = 1, R ⊥ Wᵀ

    Args:
      system: what moves; its `pairs` say which weights belong together.
      params: θ; left alone.
      rng: key of the random directions.
      degrees: the angle, 0 to 180.

    Raises:
      ValueError: if the system has no pairs, or the angle is out of range.
    """
    if not system.pairs:
        raise ValueError(
            'the system has no paired weights to rotate: tied feedback has no weights '
            'of its own, loops have no counterpart, and a single layer no feedback; '
            'use feedback="free" and two layers or more'
        )
    for index, pair in enumerate(system.pairs):
        key = jax.random.fold_in(rng, index)
        weights = linear.rotate(key, _target(params, pair), degrees)
        params = tree.replace(params, pair[1], weights)
    return params


def _target(params: Params, pair: Pair) -> Array:
    forward, _, transpose = pair
    weights = tree.get(params, forward)
    return weights.T if transpose else weights
