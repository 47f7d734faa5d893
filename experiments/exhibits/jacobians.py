"""Three Jacobians, and what their asymmetry does to the error vector."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from eqprop_jax import jacobian, tree
from experiments.exhibits.network import Network, cosines, plain


def jacobians_data(networks: Mapping[str, Network]) -> dict[str, Any]:
    """Returns J of one example, and both error vectors, for each of some networks.

    Fig. 1 of Laborieux and Zenke 2024 (https://arxiv.org/abs/2309.02214) sketches the
    three kinds: symmetric, not symmetric, and triangular, without feedback.

    Args:
      networks: of fewer than ten layers, in float64, by name.

    Returns:
      For each, layers from the input on: `layers` {name: units}, `jacobian` [n][n] of
      the first example, ∂D_i/∂s_j; `symmetric_share`, mean over the batch; the error
      vectors `exact` (recurrent backprop) and `response` (EP, β → 0) of the first
      example by layer, in units of the exact one's root mean square in that layer; and
      `cosine` of the two, mean over the batch.
    """
    return {'networks': {name: _one(network) for name, network in networks.items()}}


def _one(network: Network) -> dict[str, Any]:
    system, params, batch, free, _ = network
    J = jacobian.dense(system, params, batch.x, free.rates)
    exact, response = network.exact(), network.response()
    layers = tree.natural_order(free.rates)
    scale = {name: np.sqrt(np.mean(np.square(exact[name][0]))) for name in layers}
    return {
        'layers': {name: free.rates[name][0].size for name in layers},
        'jacobian': [plain(row, digits=3) for row in J[0]],
        'symmetric_share': plain([jacobian.share(J).mean()])[0],
        'exact': {name: plain(exact[name][0] / scale[name]) for name in layers},
        'response': {name: plain(response[name][0] / scale[name]) for name in layers},
        'cosine': plain([jnp.mean(cosines(response, exact))])[0],
    }
