"""The updates of EP and those of BPTT, step by step."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from eqprop_jax import tree
from eqprop_jax.analysis._processes import distances, processes
from experiments.exhibits.network import Network, plain


def processes_data(
    networks: Mapping[str, Network],
    *,
    num_steps: int = 60,
    step_size: float = 0.25,
    num_synapses: int = 2,
) -> dict[str, Any]:
    """Returns the updates of EP and those of BPTT, step by step.

    Args:
      networks: layered ones of the same sizes, in float64, by name.
      num_steps: T.
      step_size: ε.
      num_synapses: shown of each layer.
    """

    def one(network: Network) -> dict[str, Any]:
        system, params, batch, free, _ = network
        run = jax.jit(
            lambda params, free: processes(
                system, params, batch, free, num_steps=num_steps, step_size=step_size
            )
        )
        series = run(params, free)
        return {
            'layers': {
                layer: _synapses(
                    series.ep[layer]['kernel'],
                    series.bptt[layer]['kernel'],
                    num_synapses,
                )
                for layer in tree.natural_order(free.state)
            },
            'distance': plain(distances(series.ep, series.bptt)),
        }

    return {
        'step_size': step_size,
        'times': plain(step_size * np.arange(num_steps)),
        'networks': {name: one(network) for name, network in networks.items()},
    }


def _synapses(
    ep: Float[Array, 'T m n'], bptt: Float[Array, 'T m n'], count: int
) -> list[dict[str, Any]]:
    """Returns both series for the synapses with the largest of BPTT, one for a unit."""
    peaks = np.abs(np.asarray(bptt)).max(axis=0)
    units = np.argsort(-peaks.max(axis=0))[:count]
    return [
        {
            'from': int(source),
            'to': int(unit),
            'ep': plain(ep[:, source, unit]),
            'bptt': plain(bptt[:, source, unit]),
        }
        for unit, source in zip(units, peaks[:, units].argmax(axis=0), strict=True)
    ]
