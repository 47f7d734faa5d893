"""What coarse products cost δ, layer by layer: float32, TF32 and bfloat16 side by side.

    python experiments/precision.py --config=configs/cifar10_conv_free.py:small \
        [--workdirs=RUN,RUN] [--json=results/precision.json] [--hardware=WORDS]

For the network of the configuration from its angle, and with tied feedback, at
initialisation and as trained in the workdirs (of runs of that configuration): the error
of δ in every layer against recurrent backprop, solved to 1e-6 in float32 at an
equilibrium settled to 1e-6, for

    complex step, corrected     radius and tolerance as configured
    two nudges of 1, tied       the published ones
    online, corrected           a nudge of 0.1 that turns in 16 steps, 40 sweeps each

Machines without a unit for a precision round the factors, and multiply in float32.
"""

import functools
import json
import pathlib
import sys
from typing import Any

import jax
from absl import app, flags
from ml_collections import config_flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import eqprop_jax as ep
from eqprop_jax._precision import ROUNDING
from eqprop_jax.analysis import layers
from eqprop_jax.config import build, rebuilt
from eqprop_jax.records.drawn import provenance
from eqprop_jax.training.diagnose import first_examples
from eqprop_jax.training.state import init_state

CONFIG = config_flags.DEFINE_config_file('config', None, 'A conv net on CIFAR-10.')
WORKDIRS = flags.DEFINE_list('workdirs', [], 'Runs whose parameters are measured, too.')
EXAMPLES = flags.DEFINE_integer('examples', 16, 'Training images of each measurement.')
JSON = flags.DEFINE_string('json', '', 'Where to write the record.')
HARDWARE = flags.DEFINE_string('hardware', '', 'What it runs on, in words.')

ONLINE: dict[str, Any] = {
    'radius': 0.1,
    'num_points': 16,
    'steps_per_point': 40,
    'periods': 1,
}


def methods(tied, nudged):
    """Returns {name: system ↦ estimator}."""
    contour = functools.partial(ep.estimators.contour, solve=nudged)
    step = ep.nudges.complex_step(1e-3)
    if tied:
        return {
            'two nudges of 1': lambda s: contour(s, contour=ep.nudges.symmetric(1.0)),
            'two nudges of 0.1': lambda s: contour(s, contour=ep.nudges.symmetric(0.1)),
            'complex step': lambda s: contour(s, contour=step),
        }
    return {
        'complex step, corrected': lambda s: contour(
            s, contour=step, correction='adjoint'
        ),
        'recurrent backprop': lambda s: ep.estimators.recurrent_backprop(
            s, tol=0.03, method='aitken', max_steps=100
        ),
        'online, corrected': lambda s: ep.estimators.oscillation(
            s, correction='adjoint', **ONLINE
        ),
    }


def plain(section):
    """Returns a section as its record has it."""
    return json.loads(json.dumps(section))


def measure(base, params, batch, solve, nudged, tied):
    """Yields the rows of one network."""

    @jax.jit
    def reference(params):
        tight = ep.solvers.aitken(tol=1e-6, max_steps=500)
        exact = ep.estimators.recurrent_backprop(
            base, tol=1e-6, method='aitken', max_steps=500
        )
        free = ep.relax(base, params, batch.x, tight)
        return free.converged, exact(params, batch, free, None)

    solved, exact = reference(params)
    solved &= exact.info.residual[0] <= 1e-5
    for name, make in methods(tied, nudged).items():
        for precision in ROUNDING:
            system = ep.systems.rounded(base, precision)

            @jax.jit
            def step(params, system=system, make=make):
                free = ep.relax(system, params, batch.x, solve)
                return free, make(system)(params, batch, free, None)

            free, found = step(params)
            counted = solved & free.converged
            own, wanted = (
                ep.tree.select(counted, error, ep.tree.zeros_like(error))
                for error in (found.error, exact.error)
            )
            errors = layers.errors(own, wanted)
            yield {
                'method': name,
                'precision': precision,
                'compared': int(counted.sum()),
                'free_steps': float(free.num_steps.mean()),
                'nudged_steps': float(found.info.num_steps.mean()),
                'settled': float(found.info.converged),
                'worst_error': float(max(errors.values())),
                **{f'error/{layer}': float(e) for layer, e in errors.items()},
            }


def main(argv):
    """Measures, prints and writes."""
    del argv
    rows = []
    for tied in (False, True):
        config = CONFIG.value.copy_and_resolve_references()
        if tied:
            config.system.feedback, config.system.angle = 'tied', None
            config.estimator.correction = None
        experiment = build.experiment(config)
        base, batch = experiment.system, first_examples(experiment, EXAMPLES.value)
        nudged = ep.solvers.aitken(
            tol=config.nudged_solver.tol, max_steps=config.nudged_solver.max_steps
        )
        networks = {'at initialisation': init_state(experiment).params}
        for workdir in WORKDIRS.value:
            own, state = rebuilt.restored(pathlib.Path(workdir))
            if plain(own.config['system']) == plain(experiment.config['system']):
                networks[f'after {own.num_epochs} epochs'] = state.params
        for when, params in networks.items():
            for row in measure(base, params, batch, experiment.solve, nudged, tied):
                row = {'feedback': 'tied' if tied else 'free', 'when': when, **row}
                rows.append(row)
                print(json.dumps(row), flush=True)
    if JSON.value:
        record = {
            'command': 'python experiments/precision.py '
            '--config=configs/cifar10_conv_free.py:small --workdirs=RUN,RUN',
            'hardware': HARDWARE.value,
            **provenance(),
            'examples': EXAMPLES.value,
            'rows': rows,
        }
        pathlib.Path(JSON.value).write_text(json.dumps(record, indent=1) + '\n')


if __name__ == '__main__':
    flags.mark_flag_as_required('config')
    app.run(main)
