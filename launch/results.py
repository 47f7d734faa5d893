"""The table of results: from records in results/, and records from sweeps.

    python launch/results.py                        # prints the table
    python launch/results.py --document=README.md   # writes it between its marks,
                                                    # and tables of the benchmark
    python launch/results.py --config=configs/table1_fmnist.py \
        --collect=runs/table1 --hardware='2 cores of an AMD EPYC, float32'

The last command writes results/table1_fmnist.json from a sweep that has ended, with its
PUBLISHED numbers and its CURVES, metrics over epochs for figures; of
--config=FILE:VARIANT it is results/FILE_VARIANT.json, without PUBLISHED numbers, which
are of the setting as published. Rows and seeds that were there stay, unless the sweep
has them or changed the row. Which records are lines of the table, and in what order, is
in results/table.json.
"""

import checkout as checkout
from eqprop_jax.cli import command

import pathlib
import runpy

from absl import app, flags

from eqprop_jax import records
from experiments import results
from experiments.benchmark import report

DATA = command.define_path('data', 'results', 'Folder of the records.')
DOCUMENT = command.define_path('document', '', 'Document to write the table into.')
COLLECT = command.define_path('collect', '', 'Workdir of a sweep to make a record of.')
CONFIG = command.define_path('config', '', 'Its configuration.')
HARDWARE = flags.DEFINE_string('hardware', '', 'What it ran on, in words.')


@command.told
def main(argv: list[str]) -> None:
    """Collects a sweep, or makes the table."""
    command.begin(argv)
    try:
        if COLLECT.value:
            print(_collect())
            return
        if not DOCUMENT.value:
            print(results.table(DATA.value))
            return
        path = pathlib.Path(DOCUMENT.value)
        path.write_text(_written(path.read_text('utf-8')), 'utf-8')
        print(path)
    except (OSError, ValueError) as error:
        command.fail(str(error))


def _written(text: str) -> str:
    """Returns a document with its tables made anew.

    Raises:
      ValueError: if it has marks for none.
    """
    timed = '<!-- benchmark ' in text
    if timed:
        rows = records.read_data(DATA.value, 'benchmark')['rows']
        text = report.written(text, rows)
    if timed and results.BEGIN not in text:
        return text
    return results.written(text, results.table(DATA.value))


def _collect() -> records.Path:
    """Writes the record of a sweep; returns its path."""
    file, _, variant = CONFIG.value.partition(':')
    path = pathlib.Path(file)
    if not path.is_file():
        command.fail('--collect needs the file of the sweep: --config=configs/NAME.py')
    if not HARDWARE.value:
        command.fail('say by --hardware what it ran on')
    module = runpy.run_path(str(path))
    record = results.collect(
        COLLECT.value,
        CONFIG.value,
        published={} if variant else module.get('PUBLISHED', {}),
        hardware=HARDWARE.value,
        curves=module.get('CURVES', ()),
    )
    name = f'{path.stem}_{variant}' if variant else path.stem
    if (pathlib.Path(DATA.value) / f'{name}.json').exists():
        record = results.merged(records.read_data(DATA.value, name), record)
    return records.write_data(DATA.value, name, record)


if __name__ == '__main__':
    app.run(main)
