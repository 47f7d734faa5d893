"""Says what biases the gradient of a trained run, and what would help.

    eqprop-diagnose --workdir=runs/digits

Restores the run's network and measures, on some of its training images, every
estimator against exact recurrent backprop: layer by layer, and cause by cause. Leaves
bias.json and bias.png in the workdir.
"""

from eqprop_jax.cli import command

import jax
from absl import flags

from eqprop_jax import analysis, config, records, training
from eqprop_jax.figures import bias
from eqprop_jax.training.state import KIND

WORKDIR = command.define_path(
    'workdir', None, 'Folder of a run that has ended.', required=True
)
NUM_EXAMPLES = flags.DEFINE_integer(
    'num_examples', 100, 'Training images to measure on.', lower_bound=1
)
REPEATS = flags.DEFINE_integer(
    'repeats', 5, 'Timed calls of every estimator; 0: none.', lower_bound=0
)
ONLY = flags.DEFINE_string('only', '', 'Estimators whose name matches this expression.')
SEED = flags.DEFINE_integer('seed', 0, 'Of probes, random signs and noise.')
command.define_cache()


@command.told
def main(argv: list[str]) -> None:
    """Restores a run, reports on its gradient and draws the report."""
    command.begin(argv)
    workdir = records.folder(WORKDIR.value)
    experiment, state = config.restored(workdir)
    settled, methods = config.bias_methods(experiment)
    methods = command.matching(ONLY, methods)
    print(
        f'measuring {len(methods)} estimators, each of which is compiled first: '
        f'{", ".join(methods)}',
        flush=True,
    )
    report = analysis.bias(
        experiment.system,
        state.params,
        training.first_examples(experiment, NUM_EXAMPLES.value),
        experiment.solve,
        settled=settled,
        methods=methods,
        rng=jax.random.key(SEED.value, impl=KIND),
        repeats=REPEATS.value,
    )
    try:
        records.write_bias(workdir, analysis.as_dict(report))
        path = bias.draw(workdir)
    except OSError as error:
        command.fail(str(error))
    print(table(report))
    print(f'\nbias.json and {path.name} are in {workdir}')


def table(report: analysis.Report) -> str:
    """Returns a report as text: the network, the methods, and what to do."""
    width = max(map(len, report.methods))
    lines = [
        f'symmetric share {report.symmetric_share:.3f}, spectral radius '
        f'{report.spectral_radius:.3f}, distance to instability {report.margin:.3f}, '
        f'{100 * report.unsettled:.3g} % of the examples not at equilibrium',
    ]
    if report.unsolved:
        lines.append(
            f'no reference for {100 * report.unsolved:.3g} % of the examples: no '
            'settled equilibrium, or no adjoint'
        )
    lines.append(
        f'stopping the free phase where it does changes the exact gradient by '
        f'{100 * report.free_phase:.2g} %'
    )
    if report.angles:
        angles = ', '.join(f'{name} {a:.1f}°' for name, a in report.angles.items())
        lines.append(f'angles of paired weights: {angles}')
    layer = max(len(method.worst.layer) for method in report.methods.values())
    lines += [
        '',
        f'{"":{width}}  {"δ of the worst layer":{layer + 19}}  δ of all layers',
        f'{"":{width}}  {"":{layer}}     error  cosine     error  cosine  settling'
        '     nudge  asymmetry  evaluations  milliseconds',
    ]
    for name, method in report.methods.items():
        worst = method.worst
        numbers = [
            f'{worst.layer:{layer}}{worst.error:10.2e}{worst.cosine:8.4f}',
            f'{method.error["total"]:10.2e}{method.cosine["total"]:8.4f}',
        ]
        for cause in ('settling', 'nudge'):
            numbers.append(f'{getattr(method, cause)["total"]:10.2e}')
        numbers.append(f'{method.asymmetry["total"]:11.2e}')
        known = method.evaluations is not None
        numbers.append(f'{method.evaluations:13.1f}' if known else f'{"":13}')
        timed = method.seconds is not None
        numbers.append(f'{1e3 * method.seconds:14.1f}' if timed else '')
        lines.append(f'{name:{width}}  ' + ''.join(numbers))
    return '\n'.join([*lines, '', next(iter(report.methods.values())).sentence])


def run() -> None:
    """The command."""
    command.run(main)
