"""Evaluates a trained run, by its own solver or by another.

    eqprop-evaluate --workdir=runs/digits --solver=anderson --tol=1e-5

Restores the run's network, lets it settle on every example of a split, and says how
many it gets wrong, how far from equilibrium they were left and how many sweeps that
took, beside what the run itself wrote down when it ended. With --json also class by
class.
"""

from eqprop_jax.cli import command

from collections.abc import Mapping
from typing import Any

from absl import flags

from eqprop_jax import _disk as disk
from eqprop_jax import _evaluation as evaluation
from eqprop_jax import config, records
from eqprop_jax.records import files

# Ranges are checked below, in one line, and not by the flags.
WORKDIR = command.define_path(
    'workdir', None, 'Folder of a run that has ended.', required=True
)
SPLIT = flags.DEFINE_string(
    'split', 'test', 'test, eval (the held-out examples) or train.'
)
BEST = flags.DEFINE_bool(
    'best', False, 'Take the checkpoint of the least held-out error, not the last one.'
)
SOLVER = flags.DEFINE_string('solver', None, "Instead of the run's: solver.name.")
TOL = flags.DEFINE_float('tol', None, "Instead of the run's: solver.tol.")
MAX_STEPS = flags.DEFINE_integer(
    'max_steps', None, "Instead of the run's: solver.max_steps."
)
BATCH_SIZE = flags.DEFINE_integer('batch_size', 500, 'Examples relaxed at a time.')
JSON = command.define_path('json', None, 'File that the numbers are written to.')
command.define_cache()

SPLITS = {'test': 'test', 'eval': 'held_out', 'train': 'train'}  # as records call them
# Name, key of the summary, factor and format.
ROWS = (
    ('error, %', 'error', 100, '.2f'),
    ('top-5 error, %', 'top_5_error', 100, '.2f'),
    ('mean loss', 'loss', 1, '.4f'),
    ('residual, median', 'median_residual', 1, '.1e'),
    ('residual, 99th percentile', 'residual_99', 1, '.1e'),
    ('residual, maximum', 'max_residual', 1, '.1e'),
    ('sweeps, mean', 'free_steps', 1, '.2f'),
    ('sweeps, 99th percentile', 'free_steps_99', 1, '.0f'),
    ('sweeps, maximum', 'max_free_steps', 1, '.0f'),
    ('settled to tol, %', 'converged', 100, '.2f'),
)


@command.told
def main(argv: list[str]) -> None:
    """Restores a run, evaluates it and prints the table."""
    command.begin(argv)
    _check_flags()
    workdir = records.folder(WORKDIR.value)
    experiment, state = config.restored(workdir, best=BEST.value)
    section, solve = config.other_solver(
        experiment, name=SOLVER.value, tol=TOL.value, max_steps=MAX_STEPS.value
    )
    recorded = _recorded(workdir, 'best' if BEST.value else 'last', SPLIT.value)
    split = getattr(experiment.dataset, SPLITS[SPLIT.value])
    if not len(split.labels):
        command.fail(
            f'{workdir} has no held-out examples: choose --split=test or train'
        )
    examples = evaluation.evaluate(
        experiment, state.params, split, solve, batch_size=BATCH_SIZE.value
    )
    found = evaluation.summarize(examples, experiment.dataset.num_classes)
    settings = ', '.join(f'{key}={value}' for key, value in section.items())
    print(
        f'{found.num_examples} examples ({SPLIT.value}) after step {state.step} of '
        f'{experiment.num_steps}, solver: {settings}\n'
    )
    print(table(found, recorded))
    if JSON.value:
        data = {
            'workdir': str(workdir),
            'split': SPLIT.value,
            'step': int(state.step),
            'solver': section,
            **records.provenance(),
            'found': found._asdict(),
            'recorded': recorded,
        }
        try:
            disk.write_whole(JSON.value, files.dumps(data, indent=1) + '\n')
        except OSError as error:
            command.fail(f'cannot write --json={JSON.value} ({error})')
        print(f'\nwritten to {JSON.value}')


def table(found: evaluation.Summary, recorded: Mapping[str, Any] | None) -> str:
    """Returns a summary as text, beside what the run recorded where it did."""
    values, recorded = found._asdict(), recorded or {}
    width = max(len(name) for name, *_ in ROWS)
    lines = [f'{"":{width}}        here        summary.json'] if recorded else []
    for name, key, factor, form in ROWS:
        if values[key] is None:
            continue
        here = f'{factor * values[key]:{form}}'
        spread = f' ± {100 * found.standard_error:.2f}' if key == 'error' else ''
        there = recorded.get(key)
        there = '' if there is None else f'{factor * there:{form}}'
        lines.append(f'{name:{width}}  {here:>10}{spread:8}{there:>12}'.rstrip())
    return '\n'.join(lines)


def _recorded(workdir: records.Path, key: str, split: str) -> dict[str, Any] | None:
    """Returns what summary.json has of a split, None without any."""
    path = workdir / records.SUMMARY
    if not path.exists():
        return None
    row = records.read_data(workdir, 'summary').get(key)
    found = row.get(split, {}) if isinstance(row, dict) else None
    known = [name for _, name, *_ in ROWS]
    if not isinstance(found, dict) or not all(
        isinstance(found.get(name), int | float | None) for name in known
    ):
        raise records.WorkdirError(f'{path} is damaged (in {key!r})')
    return found or None


def _check_flags() -> None:
    """Ends with a message if a flag is outside its range."""
    if SPLIT.value not in SPLITS:
        command.fail(f'--split={SPLIT.value}: choose from {", ".join(SPLITS)}')
    if BATCH_SIZE.value < 1:
        command.fail(
            f'--batch_size has to be a positive integer, not {BATCH_SIZE.value}'
        )
    command.check_file(JSON)


def run() -> None:
    """The command."""
    command.run(main)
