"""A run that has ended, built again, or parts of it with other numbers, to measure it.

Networks are evaluated by other solvers than the run's, and bias reports hold its
estimator against the same one settled more tightly.
"""

from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
from absl import logging

from eqprop_jax import checkpoint, records
from eqprop_jax.analysis import methods
from eqprop_jax.analysis.methods import Method
from eqprop_jax.config import registry, schema
from eqprop_jax.config.build import experiment
from eqprop_jax.config.schema import ConfigError
from eqprop_jax.training import legs, state
from eqprop_jax.training.state import Experiment, TrainState
from eqprop_jax.types import Solver, System


def restored(
    workdir: records.Folder, *, best: bool = False
) -> tuple[Experiment, TrainState]:
    """Returns the run in a workdir, built, and its state.

    Args:
      workdir: of a run that has ended.
      best: as in `checkpoint.restore`.

    Raises:
      CheckpointError: as `checkpoint.restore`.
      ConfigError: as `experiment`.
      NotPreparedError: likewise.
      WorkdirError: if the workdir has no configuration that can be read.
    """
    values = records.read_config(workdir)
    if maker := values.get('made_by'):
        raise ConfigError(
            f'{workdir} holds a run made by {maker}, which no configuration describes: '
            'build its parts again, and call eqprop_jax.checkpoint.restore'
        )
    built = experiment(ml_collections.ConfigDict(values))
    here = state.rests_on(built)
    for name, message in (
        (state.DATA, 'was trained on other data than these'),
        (state.PLUGINS, 'was trained with other plugins than these'),
    ):
        if records.changed(workdir, {name: here.get(name)}):
            logging.warning('%s %s', workdir, message)
    like = jax.eval_shape(lambda: state.init_state(built))
    accepts = legs.of(built)
    return built, checkpoint.restore(workdir, like, best=best, accepts=accepts)


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
    own, replaced = built.config['solver'], {'name': name, 'tol': tol}
    section = own | {key: new for key, new in replaced.items() if new is not None}
    bound = section.pop(_bound(own['name']), None)
    if max_steps is not None:
        bound = max_steps
    if bound is not None:
        section[_bound(section['name'])] = bound
    schema.refuse(registry.problems('solver', section))
    registry.warn('solver', section)
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
    own = _own(system, tight, built.config['estimator'])
    return settled, {'this run': own._replace(estimate=built.estimate), **others}


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


def _own(system: System, tight: Solver, values: Mapping[str, Any]) -> Method:
    """Returns a run's estimator, settled more tightly, as a method to report on."""
    name, part = values['name'], registry.ESTIMATORS[values['name']]
    taken = {key: values[key] for key in part.keys if key in values}
    if name == 'oscillation':
        return methods.online_method(system, **taken)
    if 'contour' in part.needs:
        settled = registry.estimator(system, tight, values)
        return methods.contour_method(
            system,
            tight,
            contour=registry.contour(values),
            correction=taken.get('correction'),
        )._replace(settled=settled)
    if name == 'bptt':
        costs, more = (2,), {'num_steps': 20 * values.get('num_steps', 20)}
    else:
        costs, more = (1,), {'max_steps': 20 * values.get('max_steps', 500)}
        more['tol'] = min(values.get('tol', 1e-6), 1e-6)
    settled = registry.estimator(system, tight, {**values, **more})
    adjoint = name != 'tangent' or methods.finds_adjoint(system, None)
    return Method(settled, adjoint, settled, costs)
