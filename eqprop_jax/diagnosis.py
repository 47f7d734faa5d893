"""From a run to what `analysis.bias` reports on: its own estimator, and others."""

from collections.abc import Mapping
from typing import Any

from eqprop_jax import parts
from eqprop_jax.analysis import methods
from eqprop_jax.analysis.methods import Method
from eqprop_jax.training.state import Experiment
from eqprop_jax.types import Solver, System

CORRECTED = ('contour', 'oscillation')  # estimators that take a correction


def prepare(built: Experiment) -> tuple[Solver, dict[str, Method]]:
    """Returns what `analysis.bias` needs to report on a run.

    Args:
      built: from `build.experiment`.

    Returns:
      A solver that settles the free phase more tightly than the run's, and the
      methods: the run's own estimator, 'this run', and those of `default_methods` with
      the run's solver for the nudged phases.
    """
    values = built.config
    system = parts.system(values['system'])  # in full precision
    settled = parts.solver('solver', tighter(values['solver']))
    nudged, tight = (
        parts.solver('nudged_solver', section)
        for section in (values['nudged_solver'], tighter(values['nudged_solver']))
    )
    own = _own(built, system, nudged, tight)
    others = methods.default_methods(
        system,
        nudged,
        tight,
        step_size=values['nudged_solver'].get('step_size', 1.0),
    )
    return settled, {'this run': own, **others}


def tighter(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a solver's section with a hundredth of the tolerance, and more steps.

    Single precision gains nothing below a tolerance of 1e-6.

    Args:
      values: of a solver that stops by itself, or after a number of steps.
    """
    tight = dict(values)
    if 'tol' in tight:
        tight['tol'] = min(tight['tol'], max(tight['tol'] / 100, 1e-6))
    for key in ('max_steps', 'num_steps'):
        if tight.get(key):
            tight[key] *= 20
    return tight


def _own(built: Experiment, system: System, nudged: Solver, tight: Solver) -> Method:
    """Returns the run's own estimator as a method to report on."""
    values = dict(built.config['estimator'])
    name = values['name']
    correction = values.get('correction') if name in CORRECTED else None
    adjoint = methods.finds_adjoint(system, correction)
    if name in parts.NUDGED:
        contour = parts.contour(values)
        costs = methods.row_costs(system, contour, correction)
        settled = parts.estimator(system, tight, values)
        disc = methods.disc_check(system, tight, contour, correction)
        return Method(built.estimate, adjoint, settled, costs, disc)
    if name == 'oscillation':
        turns = {key: values[key] for key in ('periods', 'burn_in') if key in values}
        costs = methods.online_costs(system, values['num_points'], correction, **turns)
        slower = 10 * values.get('steps_per_point', 20)
        values |= {'steps_per_point': slower, 'noise': 0.0}
        settled = parts.estimator(system, nudged, values)
        return Method(built.estimate, adjoint, settled, costs)
    if name == 'bptt':
        values['num_steps'] = 20 * values.get('num_steps', 20)
    else:
        values['tol'] = min(values.get('tol', 1e-6), 1e-6)
        values['max_steps'] = 20 * values.get('max_steps', 500)
    settled = parts.estimator(system, nudged, values)
    costs = (2,) if name == 'bptt' else (1,)  # forward and backward
    adjoint |= name != 'tangent'
    return Method(built.estimate, adjoint, settled, costs)
