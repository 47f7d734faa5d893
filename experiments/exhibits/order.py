"""How the worst layer's error falls from sweep to sweep, by the order of sweeps."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eqprop_jax import dynamics, tree
from eqprop_jax.estimators._contour import corrected_field
from eqprop_jax.estimators._phases import response_at
from eqprop_jax.solvers import unrolled
from experiments.exhibits.network import Network, plain

RADIUS = 1e-6  # of the complex step, whose own error is that squared


def order_data(
    networks: Mapping[str, Network], *, num_sweeps: int = 18
) -> dict[str, Any]:
    """Returns the worst layer's error of δ after each sweep, of a corrected phase.

    In the order of the nudge, layer after layer from the top, and in two blocks of odd
    and even layers, that of the last layer first. A sweep is the same products in
    either.

    Args:
      networks: chains by name, in float64.
      num_sweeps: how many to follow.
    """
    curves = {
        name: {
            order: plain(errors(network, order == 'odd and even', num_sweeps))
            for order in ('from the top', 'odd and even')
        }
        for name, network in networks.items()
    }
    return {'sweeps': list(range(1, num_sweeps + 1)), 'curves': curves}


def errors(network: Network, in_halves: bool, num_sweeps: int) -> Float[Array, ' T']:
    """Returns max_l |δ_l − δ_l*| / |δ_l*| over the batch, after each sweep.

    Args:
      network: a chain.
      in_halves: sweep by odd and even layers; False: from the top.
      num_sweeps: T.
    """
    system, params, batch, free, _ = network
    injection = system.inject(params, batch.x)
    field = corrected_field(system, params, injection, free.rates, 'adjoint', free)
    gradient = dynamics.cost_gradient(system, params, batch.y)
    response = response_at(system, params, batch, injection, free, field)
    nudged = dynamics.nudged_field(field, gradient, jnp.asarray(1j * RADIUS))
    nudged = dynamics.with_response(nudged, response)
    if in_halves:
        top = nudged.blocks[0][0]
        halves = sorted(system.blocks, key=lambda block: top not in block)
        nudged = nudged._replace(blocks=tuple(halves))
    solve = unrolled(num_steps=num_sweeps, order='alternating', keep_trajectory=True)
    visited = jax.jit(lambda u: solve(nudged, u).trajectory)(
        tree.to_complex(free.state)
    )
    ratios = []
    for name, wanted in network.exact().items():
        found = visited[name].imag[1:] / RADIUS
        gap = jnp.sqrt(jnp.sum((found - wanted[None]) ** 2, axis=(1, 2)))
        ratios.append(gap / jnp.linalg.norm(wanted))
    return jnp.max(jnp.stack(ratios), axis=0)
