"""The two biases of a nudged gradient, and an estimate in continuous time."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from eqprop_jax import dynamics, tree
from eqprop_jax.analysis import convergence
from eqprop_jax.solvers._sweeps import make_sweep
from eqprop_jax.types import Rates, State
from experiments.exhibits.network import Network, cosines, plain

SHOWN = 40  # times in a turn


def two_biases_data(
    tied: Network,
    untied: Network,
    by_angle: Mapping[float, Network],
    *,
    radii: Sequence[float],
    num_points: Sequence[int] = (1, 2, 4, 6),
    durations: Sequence[float] = (25.0, 100.0, 400.0),
    radius: float = 0.5,
) -> dict[str, Any]:
    """Returns what Fig. 2 of Laborieux and Zenke 2024 shows, and the correction.

    The error over |β| of a tied and of an untied network; the cosines of the response
    to the exact error vector, example by example, for every angle and, at the last one,
    for every layer; and the estimate of a nudge that turns while the untied network
    moves, in continuous time.

    Args:
      tied: with a symmetric Jacobian, in float64.
      untied: without.
      by_angle: untied networks, at many examples, by the angle of their feedback in
        degrees.
      radii: |β|, rising.
      num_points: N.
      durations: of a turn, in time constants of the units.
      radius: |β| of the nudge that turns.

    References:
      Laborieux and Zenke 2024, https://arxiv.org/abs/2309.02214
    """
    exact = untied.exact()
    pairs = [(net.response(), net.exact()) for net in by_angle.values()]
    corrected = convergence.by_radius(
        *untied, reference=exact, radii=radii, num_points=(4,)
    )
    return {
        'radii': plain(radii),
        'errors': {
            'tied': _by_radius(tied, tied.exact(), radii, num_points),
            'untied': _by_radius(untied, exact, radii, num_points)
            | {'N = 4, corrected': plain(corrected['N = 4'])},
        },
        'angles': [float(angle) for angle in by_angle],
        'cosines': [plain(cosines(*pair), digits=4) for pair in pairs],
        'layers': {
            name: plain(cosines(*(error[name] for error in pairs[-1])), digits=4)
            for name in tree.natural_order(exact)
        },
        'turning': turning(untied, radius=radius, durations=durations),
    }


def turning(
    network: Network,
    *,
    radius: float,
    durations: Sequence[float],
    step_size: float = 0.25,
    num_turns: int = 4,
    num_units: int = 2,
) -> dict[str, Any]:
    """Returns the running estimate of a network that moves while its nudge turns.

        du/dt = F(u) − β(t) ∂C/∂s,    β(t) = r e^{2πi t/T},    δ(t) = ⟨Re s/β⟩_t

    The mean is over the time since the end of a first turn, which is not averaged, and
    is δ after whole turns, up to the slowness error: a mean over the whole circle.
    Time is in units of the time constant, one step is `step_size` of it (Euler).

    Args:
      network: at its free equilibrium, where it starts.
      radius: r.
      durations: T, in time constants.
      step_size: ε.
      num_turns: that are averaged.
      num_units: shown of the first and of the last layer: those with the largest |δ|.

    Returns:
      `errors`, for each duration over `turns` (times t/T) the relative `error` of all
      units to the response at β → 0; and `units`, with the `estimate` over the turns of
      the last duration, and the `exact` response.
    """
    response = network.response()
    names = tree.natural_order(response)
    units = [
        (layer, int(unit))
        for layer in (names[0], names[-1])
        for unit in np.argsort(-np.abs(response[layer][0]))[:num_units]
    ]
    system, params, batch, free, _ = network
    field = dynamics.free_field(system, params, system.inject(params, batch.x))
    gradient = dynamics.cost_gradient(system, params, batch.y)

    def one(duration: float) -> tuple[dict[str, list[float]], list[list[float]]]:
        count = round(duration / step_size)

        def step(carry: tuple[State, Rates], index: Array) -> tuple:
            state, total = carry
            beta = radius * jnp.exp(2j * jnp.pi * (index % count) / count)
            nudged = dynamics.nudged_field(field, gradient, beta)
            nudged, sweep = make_sweep(nudged, state, 'synchronous', step_size, None)
            state = sweep(nudged, state)
            averaged = index >= count
            response_now = tree.real(tree.scale(1 / beta, nudged.rates(state)))
            total = tree.add(total, tree.scale(averaged, response_now))
            mean = tree.scale(1 / jnp.maximum(index - count + 1, 1), total)
            error = tree.norm(tree.sub(mean, response)) / tree.norm(response)
            shown = jnp.stack([mean[layer][0, unit] for layer, unit in units])
            return (state, total), (error, shown)

        start = (tree.to_complex(free.state), tree.zeros_like(free.rates))
        steps = jnp.arange((1 + num_turns) * count)
        run = jax.jit(lambda start: lax.scan(step, start, steps)[1])
        errors, curves = map(np.asarray, run(start))
        every = max(1, count // SHOWN)
        places = np.arange(every - 1, num_turns * count, every)
        columns = {
            'turns': plain((places + 1) / count),
            'error': plain(errors[count + places]),
        }
        return columns, [plain(curve) for curve in curves[count + places].T]

    errors, estimates = zip(*map(one, durations), strict=True)
    return {
        'radius': radius,
        'durations': [float(duration) for duration in durations],
        'errors': list(errors),
        'units': [
            {
                'layer': layer,
                'unit': unit,
                'estimate': estimate,
                'exact': plain([response[layer][0, unit]])[0],
            }
            for (layer, unit), estimate in zip(units, estimates[-1], strict=True)
        ],
    }


def _by_radius(
    network: Network,
    exact: Rates,
    radii: Sequence[float],
    num_points: Sequence[int],
) -> dict[str, list[float]]:
    errors = convergence.by_radius(
        *network,
        reference=exact,
        radii=radii,
        num_points=num_points,
        correction=None,
    )
    return {f'N = {count}': plain(errors[f'N = {count}']) for count in num_points}
