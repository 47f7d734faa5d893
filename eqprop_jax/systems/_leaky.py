"""Leaky integrators with clipped potentials: the model of vector-field EP.

    du_l/dt = s_{l−1} W_l + b_l + s_{l+1} B_l − u_l        s = ρ(u),  s_0 = x

with ρ the hard sigmoid and forward and feedback weights of their own. Potentials are
kept in [0, 1], where ρ(u) = u, by a solver that clips them after every Euler step,

    u ← clip(u + ε F(u), 0, 1)        solvers.relaxation(step_size=ε, clip=(0, 1))

and the rates settle to the same values without the clipping, only later. The rule of
the 2018 paper is one update at the end of a second phase with a single real nudge,

    ΔW_ij ∝ (u_i^β − u_i*)/β · ρ(u_j*)       estimators.contour, one_sided, random_sign

in which the post-synaptic potential moves as in spike-timing-dependent plasticity.

References:
  Scellier et al. 2018, https://arxiv.org/abs/1808.04873
"""

from collections.abc import Sequence

import jax
from flax.linen import initializers
from jaxtyping import Array

from eqprop_jax.systems import _chain as chain
from eqprop_jax.systems import _layered as layered
from eqprop_jax.systems._activations import Activation
from eqprop_jax.systems._sizes import check_feedback
from eqprop_jax.types import Params, System


def leaky(
    sizes: Sequence[int],
    *,
    activation: str | Activation = 'hard_sigmoid',
    angle: float | None = None,
    forward_scale: float = 1.0,
) -> System:
    """A layered network of leaky integrators, with the squared error on its outputs.

    Weights are drawn uniformly, ±√(6 / (fan in + fan out)) (Glorot), those of forward
    and feedback synapses independently.

    Args:
      sizes: inputs, then the layers from bottom to top; the last holds the classes.
      activation: name of ρ, see `activations`, or an `Activation`.
      angle: the angle in degrees (0 to 180) between feedback and transposed forward
        weights at initialisation, at equal norm; None draws them independently.
      forward_scale: positive; of the forward weights above the first layer, after
        that. Smaller ones leave more of their direction to learning, which the plain
        rule turns towards the feedback (Lillicrap et al. 2016,
        https://doi.org/10.1038/ncomms13276).

    Returns:
      The system, with layers 'layer_1', 'layer_2', ...

    Raises:
      ValueError: for an unknown activation, a size that is no positive integer, too few
        sizes, an angle outside 0 to 180, or a scale that is not positive.
    """
    if not forward_scale > 0:
        raise ValueError(f'forward_scale has to be positive, not {forward_scale}')
    check_feedback('free', angle)
    layers, read = layered.stack(sizes, 'squared_error', None)
    layers = [layer._replace(draw=initializers.glorot_uniform()) for layer in layers]
    back = chain.between(layers, tied=False, angle=angle, to_target=True)
    system = chain.network(layers, back, chain.parities(layers), activation, read)

    def init(rng: jax.Array, x: Array) -> Params:
        params = system.init(rng, x)
        for layer in layers[1:]:
            params[layer.name]['kernel'] *= forward_scale
        return params

    return system._replace(init=init)
