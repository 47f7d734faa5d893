"""How patient the online estimator has to be, and how noise averages out."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from eqprop_jax import estimators, tree
from eqprop_jax.analysis import convergence
from eqprop_jax.nudges import Contour, circle, one_sided
from eqprop_jax.types import Rates
from experiments.exhibits.network import Network, plain, single


def oscillation_data(
    network: Network,
    *,
    sweeps: Sequence[int],
    periods: Sequence[int],
    rng: jax.Array,
    radius: float = 0.5,
    num_points: int = 4,
    noise: float = 0.04,
    steps_per_point: int = 20,
) -> dict[str, Any]:
    """Returns the error of the online estimator over its patience, and in noise.

    Over the sweeps per point it is held against the same points' estimate at
    equilibrium; in noise and float32, over the periods, against the response of the
    dynamics. Beside it stands one-sided nudging in the same noise, with r and r/5: a
    pair of phases, as long as the visits to two points, is a fraction of a period.

    Args:
      network: in float64.
      sweeps: per point.
      periods: of the nudge, averaged over.
      rng: key of the noise.
      radius: r.
      num_points: N.
      noise: of every sweep.
      steps_per_point: sweeps per point in noise.
    """
    points: dict[str, Any] = {'radius': radius, 'num_points': num_points}
    noisy = single(network)
    limit = network.response()

    def at_equilibrium(nudges: Contour) -> Rates:
        return network(
            estimators.contour(network.system, network.solve, contour=nudges)
        )

    def bias(error: Rates) -> float:
        distance = tree.norm(tree.sub(error, limit)) / tree.norm(limit)
        return plain([distance])[0]

    def pairs(beta: float) -> dict[str, Any]:
        counts = np.array([1, *(num_points * count // 2 for count in periods)])
        errors = convergence.by_pairs(
            *noisy[:4],
            reference=limit,
            beta=beta,
            noise=noise,
            num_pairs=int(counts[-1]),
            steps_per_phase=steps_per_point,
            rng=rng,
        )
        return {
            'beta': beta,
            'periods': plain(2 * counts / num_points),
            'errors': plain(errors[counts - 1]),
            'at_equilibrium': bias(at_equilibrium(one_sided(beta))),
        }

    settled = at_equilibrium(circle(radius, num_points))
    patience = {
        name: convergence.by_patience(
            *net[:4], reference=settled, steps_per_point=sweeps, **points
        )
        for name, net in (('float64', network), ('float32', noisy))
    }
    online = [
        convergence.by_patience(
            *noisy[:4],
            reference=limit,
            steps_per_point=[steps_per_point],
            rng=rng,
            noise=noise,
            periods=count,
            **points,
        )[0]
        for count in periods
    ]
    return {
        **points,
        'sweeps': list(sweeps),
        'patience': {name: plain(errors) for name, errors in patience.items()},
        'noise': noise,
        'steps_per_point': steps_per_point,
        'online': {
            'periods': list(periods),
            'errors': plain(online),
            'at_equilibrium': bias(settled),
        },
        'one_sided': [pairs(beta) for beta in (radius, radius / 5)],
    }
