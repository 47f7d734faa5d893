"""What the figures of the analysis show, measured on one network.

Each function returns plain values, as JSON has them, for the figure of the same name in
`eqprop_jax.figures`. References are in float64, which has to be enabled.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eqprop_jax import dynamics, estimators, tree
from eqprop_jax.analysis import convergence
from eqprop_jax.analysis.processes import distances, processes
from eqprop_jax.nudges import Contour, circle, one_sided
from eqprop_jax.solvers import relaxation
from eqprop_jax.types import (
    Batch,
    Equilibrium,
    Estimator,
    Params,
    Rates,
    Solver,
    System,
)

TOL = 1e-14  # of all that is referred to
MAX_STEPS = 5000


class Network(NamedTuple):
    """A network at its free equilibrium."""

    system: System
    params: Params
    batch: Batch
    free: Equilibrium
    solve: Solver

    def __call__(self, estimate: Estimator) -> Rates:
        """Returns the error vector that an estimator finds."""
        return jax.jit(estimate)(self.params, self.batch, self.free, None).error


def settle(
    system: System, params: Params, batch: Batch, solve: Solver | None = None
) -> Network:
    """Returns a network at its free equilibrium.

    Args:
      system: what moves.
      params: θ.
      batch: inputs and targets.
      solve: relaxes the free and the nudged phases; None: to 1e-14, in float64.
    """
    solve = solve or relaxation(tol=TOL, max_steps=MAX_STEPS)
    free = dynamics.relax(system, params, batch.x, solve)
    return Network(system, params, batch, free, solve)


def single(network: Network) -> Network:
    """Returns the network in float32, settled as tightly as that allows."""
    params, batch = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32), (network.params, network.batch)
    )
    solve = relaxation(tol=1e-7, max_steps=100)
    return settle(network.system, params, batch, solve)


def convergence_data(
    network: Network,
    *,
    radii: Sequence[float],
    num_points: Sequence[int] = (1, 2, 4, 6, 8),
) -> dict[str, Any]:
    """Returns the error of corrected contours over the radius, in two precisions.

    Args:
      network: in float64.
      radii: r, rising.
      num_points: N.
    """
    exact = network(
        estimators.recurrent_backprop(network.system, tol=TOL, max_steps=MAX_STEPS)
    )
    panels = {}
    for name, net in (('float32', single(network)), ('float64', network)):
        errors = convergence.by_radius(
            *net, reference=exact, radii=radii, num_points=num_points
        )
        orders = convergence.orders(errors, radii)
        panels[name] = {
            'errors': {curve: _plain(values) for curve, values in errors.items()},
            'orders': {curve: round(order, 3) for curve, order in orders.items()},
        }
    return {'radii': _plain(radii), 'panels': panels}


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
    limit = network(estimators.tangent(network.system, tol=TOL, max_steps=MAX_STEPS))

    def at_equilibrium(nudges: Contour) -> Rates:
        return network(
            estimators.contour(network.system, network.solve, contour=nudges)
        )

    def bias(error: Rates) -> float:
        distance = tree.norm(tree.sub(error, limit)) / tree.norm(limit)
        return _plain([distance])[0]

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
            'periods': _plain(2 * counts / num_points),
            'errors': _plain(errors[counts - 1]),
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
        'patience': {name: _plain(errors) for name, errors in patience.items()},
        'noise': noise,
        'steps_per_point': steps_per_point,
        'online': {
            'periods': list(periods),
            'errors': _plain(online),
            'at_equilibrium': bias(settled),
        },
        'one_sided': [pairs(beta) for beta in (radius, radius / 5)],
    }


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
            'distance': _plain(distances(series.ep, series.bptt)),
        }

    return {
        'step_size': step_size,
        'times': _plain(step_size * np.arange(num_steps)),
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
            'ep': _plain(ep[:, source, unit]),
            'bptt': _plain(bptt[:, source, unit]),
        }
        for unit, source in zip(units, peaks[:, units].argmax(axis=0), strict=True)
    ]


def _plain(values: Any) -> list[float]:
    """Returns numbers of six digits."""
    return [float(f'{value:.6g}') for value in np.asarray(values, float)]
