"""What a run is made of, built again with other numbers, to measure it by.

Networks are evaluated by other solvers than the run's, and bias reports hold its
estimator against the same one settled more tightly.
"""

from collections.abc import Mapping
from typing import Any

from eqprop_jax.analysis import methods
from eqprop_jax.analysis.methods import Method
from eqprop_jax.config import registry, schema
from eqprop_jax.training.state import Experiment
from eqprop_jax.types import Solver, System


def other_solver(
    built: Experiment,
    *,
    name: str | None = None,
    tol: float | None = None,
    max_steps: int | None = None,
) -> tuple[dict[str, Any], Solver]:
    """Returns the section of a run's solver with some values replaced, and the solver.

    What bounds the sweeps of a solver that stops by itself is the number of them for
    'unrolled', which calls it `num_steps`, and the other way round.

    Args:
      built: from `experiment`.
      name: a key of `registry.SOLVERS`; None: the run's.
      tol: relative error of the worst layer at which an example is settled; None:
        the run's.
      max_steps: bound on the number of sweeps; None: the run's.

    Raises:
      ConfigError: for an unknown name, or a value out of range.
    """
    own = built.config['solver']
    section = dict(own)
    if name is not None:
        section['name'] = name
    if tol is not None:
        section['tol'] = tol
    bound = section.pop(_bound(own['name']), None)
    if max_steps is not None:
        bound = max_steps
    if bound is not None:
        section[_bound(section['name'])] = bound
    schema.refuse(registry.problems('solver', section))
    return section, registry.solver('solver', section)


def bias_methods(built: Experiment) -> tuple[Solver, dict[str, Method]]:
    """Returns what `analysis.bias` needs to report on a run.

    Args:
      built: from `experiment`.

    Returns:
      A solver that settles the free phase more tightly than the run's, and the
      methods: the run's own estimator, 'this run', and those of `default_methods` with
      the run's solver for the nudged phases.
    """
    section = built.config['nudged_solver']
    system = registry.system(built.config['system'])  # in full precision
    settled = registry.solver('solver', _tighter(built.config['solver']))
    nudged = registry.solver('nudged_solver', section)
    tight = registry.solver('nudged_solver', _tighter(section))
    others = methods.default_methods(
        system, nudged, tight, step_size=section.get('step_size', 1.0)
    )
    return settled, {'this run': _own(built, system, nudged, tight), **others}


def _bound(name: str) -> str:
    """Returns what a solver calls the bound on its sweeps."""
    return 'num_steps' if name == 'unrolled' else 'max_steps'


def _tighter(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a solver's section with a hundredth of the tolerance, and more steps.

    Single precision gains nothing below a tolerance of 1e-6.
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
    name, part = values['name'], registry.ESTIMATORS[values['name']]
    correction = values.get('correction') if 'correction' in part.keys else None
    adjoint = methods.finds_adjoint(system, correction)
    if 'contour' in part.needs:
        contour = registry.contour(values)
        costs = methods.row_costs(system, contour, correction)
        settled = registry.estimator(system, tight, values)
        disc = methods.disc_check(system, tight, contour, correction)
        return Method(built.estimate, adjoint, settled, costs, disc)
    if name == 'oscillation':
        turns = {key: values[key] for key in ('periods', 'burn_in') if key in values}
        costs = methods.online_costs(system, values['num_points'], correction, **turns)
        slower = 10 * values.get('steps_per_point', 20)
        values |= {'steps_per_point': slower, 'noise': 0.0}
        settled = registry.estimator(system, nudged, values)
        return Method(built.estimate, adjoint, settled, costs)
    if name == 'bptt':
        values['num_steps'] = 20 * values.get('num_steps', 20)
    else:
        values['tol'] = min(values.get('tol', 1e-6), 1e-6)
        values['max_steps'] = 20 * values.get('max_steps', 500)
    settled = registry.estimator(system, nudged, values)
    costs = (2,) if name == 'bptt' else (1,)  # forward and backward
    adjoint |= name != 'tangent'
    return Method(built.estimate, adjoint, settled, costs)
