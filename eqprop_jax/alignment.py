"""How far paired weights are from each other's transpose, and how to change it.

Credit flows correctly under plain EP while feedback weights are the transposes of
the forward ones; the angle between the two says how far a network is from that.

    rotation         puts them at a given angle
    Kolen–Pollack    gives both the same local gradient and the same decay λ, so that
                     what they differ by dies out: with plain SGD of rate η
                     (W − Bᵀ)(t) = (1 − ηλ)^t (W − Bᵀ)(0)

References:
  Kolen and Pollack 1994, https://doi.org/10.1109/ICNN.1994.374486
  Laborieux et al. 2021 (KP-VF), https://arxiv.org/abs/2006.03824
  Laborieux and Zenke 2024, Fig. 3, https://arxiv.org/abs/2309.02214
"""

import jax
import jax.numpy as jnp
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
        '/'.join(map(str, pair[1])): linear.angle(
            _target(params, pair), tree.get(params, pair[1])
        )
        for pair in system.pairs
    }


def overall_angle(system: System, params: Params) -> Float[Array, '']:
    """Returns the angle in degrees between all paired weights, taken as two vectors.

    Args:
      system: what moves; its `pairs` say which weights belong together.
      params: θ.

    Raises:
      ValueError: if the system has no pairs.
    """
    _check_pairs(system, 'take the angle of')
    forward, feedback = (
        jnp.concatenate([weights.ravel() for weights in side])
        for side in zip(
            *(
                (_target(params, pair), tree.get(params, pair[1]))
                for pair in system.pairs
            ),
            strict=True,
        )
    )
    return linear.angle(forward, feedback)


def kolen_pollack(system: System, grads: Params) -> Params:
    """Returns gradients in which both weights of a pair have the sum of the two.

        g_W ← g_W + g_Bᵀ,    g_B ← (g_W + g_Bᵀ)ᵀ

    Both sums are local: each synapse needs the activities at its own two ends, and
    those of its partner have the same two. With the same decay and the same optimizer
    for both, the difference of the weights obeys an equation without the gradient: the
    law above under SGD and under AdamW; with momentum it is a damped oscillator that
    decays, too. Adam with the decay inside the gradient breaks it.

    Args:
      system: what moves; its `pairs` say which weights belong together.
      grads: of the cost, like params; left alone. A penalty on what the weights of a
        pair differ by (homeostasis) pulls them in opposite directions, and the sum of
        its gradients is 0: add it afterwards.

    Raises:
      ValueError: if the system has no pairs.
    """
    _check_pairs(system, 'align')
    for pair in system.pairs:
        forward, feedback, transpose = pair
        own = tree.get(grads, feedback)
        shared = tree.get(grads, forward) + (own.T if transpose else own)
        grads = tree.replace(grads, forward, shared)
        grads = tree.replace(grads, feedback, shared.T if transpose else shared)
    return grads


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
    _check_pairs(system, 'rotate')
    for index, pair in enumerate(system.pairs):
        key = jax.random.fold_in(rng, index)
        weights = linear.rotate(key, _target(params, pair), degrees)
        params = tree.replace(params, pair[1], weights)
    return params


def _check_pairs(system: System, action: str) -> None:
    if not system.pairs:
        raise ValueError(
            f'the system has no paired weights to {action}: tied feedback has no '
            'weights of its own, loops have no counterpart, and a single layer no '
            'feedback; use feedback="free" and two layers or more'
        )


def _target(params: Params, pair: Pair) -> Array:
    forward, _, transpose = pair
    weights = tree.get(params, forward)
    return weights.T if transpose else weights
