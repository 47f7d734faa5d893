"""Homeostasis of the Jacobian: a penalty on its asymmetry.

    L_homeo = ‖J − Jᵀ‖²_F / (2n)          per example, n units, J at the fixed point

Two unbiased estimates from ε ~ N(0, I), both of one product with J and one with Jᵀ:

    form          estimate                       of one draw
    published     (‖J ε‖² − εᵀ J² ε) / n         may be negative, and its gradient is
                                                 noisy even at symmetry
    difference    ‖J ε − Jᵀ ε‖² / (2n)           never negative; vanishes at symmetry
                                                 with its gradient

The equilibrium is a constant: no gradient flows through the relaxation. With it in the
loss, feedback weights are drawn towards symmetry and plain EP becomes less biased.

References:
  Laborieux and Zenke 2024, https://arxiv.org/abs/2309.02214
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eqprop_jax import jacobian, tree
from eqprop_jax.types import Batch, Equilibrium, Params, System

FORMS = ('difference', 'published')

Penalty = Callable[[Params, Batch, Equilibrium, jax.Array], Float[Array, '']]


def penalty(
    system: System, *, num_probes: int = 5, form: str = 'difference'
) -> Penalty:
    """Returns (params, batch, free, rng) -> the batch's mean of L_homeo, estimated.

    Differentiate it with respect to the params and add λ times the gradient to that
    of the cost.

    Args:
      system: what moves.
      num_probes: independent draws of ε for each example; positive. Published: 5.
      form: 'difference' or 'published'.

    Raises:
      ValueError: for an unknown form, or a number of probes that is not positive.
    """
    if form not in FORMS:
        raise ValueError(f'no form {form!r}; choose from {", ".join(FORMS)}')
    if not (int(num_probes) == num_probes and num_probes >= 1):
        raise ValueError(f'num_probes has to be a positive integer, not {num_probes}')

    def mean_penalty(
        params: Params, batch: Batch, free: Equilibrium, rng: jax.Array
    ) -> Float[Array, '']:
        rates = jax.lax.stop_gradient(free.rates)
        injection = system.inject(params, batch.x)
        J = jacobian.linearize(system, params, injection, rates)
        units = sum(leaf.size for leaf in jax.tree.leaves(rates)) // batch.x.shape[0]

        def one(key: jax.Array) -> Float[Array, ' B']:
            probe = tree.random_normal(key, rates)
            forward, backward = J.apply(probe), J.transpose(probe)
            if form == 'published':
                square = tree.per_example_vdot(forward, forward)
                return (square - tree.per_example_vdot(backward, forward)) / units
            difference = tree.sub(forward, backward)
            return tree.per_example_vdot(difference, difference) / (2 * units)

        return jnp.mean(jax.vmap(one)(jax.random.split(rng, num_probes)))

    return mean_penalty
