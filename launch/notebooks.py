"""Makes notebooks/NAME.ipynb from notebooks/NAME.py, and runs it.

    python launch/notebooks.py                          # all of them
    python launch/notebooks.py --notebook=quick_start   # one
    python launch/notebooks.py --norun                  # the cells alone
    python launch/notebooks.py --check                  # runs them in short

The .py in jupytext's percent format is what is edited. Every notebook is run from top
to bottom in a fresh kernel. Its outputs are kept, so that the site can show them, but
not what is animated: of this the last frame is. Needs the extra [notebook].
"""

import checkout
from eqprop_jax.cli import command

import copy
import os
import sys
import time

import jupytext
import nbclient
import nbformat
from absl import app, flags

FOLDER = checkout.ROOT / 'notebooks'

NOTEBOOK = flags.DEFINE_multi_string(
    'notebook', [], 'Which ones, by name; none: all of them.'
)
RUN = flags.DEFINE_bool('run', True, 'Run them; if not, outputs are left as they are.')
CHECK = flags.DEFINE_bool(
    'check', False, 'Run a short version of them and leave the files alone.'
)

METADATA = {
    'jupytext': {'formats': 'ipynb,py:percent'},
    'kernelspec': {
        'display_name': 'Python 3',
        'language': 'python',
        'name': 'python3',
    },
    'language_info': {'name': 'python'},
}


@command.told
def main(argv: list[str]) -> None:
    """Makes and runs what is asked for."""
    command.begin(argv)
    known = sorted(path.stem for path in FOLDER.glob('*.py'))
    unknown = sorted(set(NOTEBOOK.value) - set(known))
    if unknown:
        command.fail(f'no notebook {unknown[0]!r}; choose from {known}')
    os.environ.pop('MPLBACKEND', None)  # figures go into the notebook
    if CHECK.value:
        os.environ['EQPROP_SMALL'] = '1'
    for name in NOTEBOOK.value or known:
        made = make(name)
        if RUN.value or CHECK.value:
            begin = time.perf_counter()
            outputs = run(made)
            print(f'{name}: {time.perf_counter() - begin:.0f} s', flush=True)
        else:
            outputs = old_outputs(name, made)
        if CHECK.value:
            continue
        for cell, output in zip(made.cells, outputs, strict=True):
            cell.update(output)
        nbformat.validate(made)
        nbformat.write(made, FOLDER / f'{name}.ipynb')


def make(name: str) -> nbformat.NotebookNode:
    """Returns the notebook of a source, without outputs and with nothing personal."""
    made = jupytext.read(FOLDER / f'{name}.py', fmt='py:percent')
    made.metadata = nbformat.from_dict(METADATA)
    made.nbformat, made.nbformat_minor = 4, 5
    for index, cell in enumerate(made.cells):
        cell.id, cell.metadata = f'{name.replace("_", "-")}-{index}', {}
    return made


def run(made: nbformat.NotebookNode) -> list[dict]:
    """Returns the outputs of every cell, in a fresh kernel; its warnings are shown."""
    executed = copy.deepcopy(made)
    client = nbclient.NotebookClient(
        executed,
        timeout=1800,
        kernel_name='python3',
        record_timing=False,
        resources={'metadata': {'path': str(FOLDER)}},
    )
    client.execute()
    outputs = []
    for cell in executed.cells:
        if cell.cell_type != 'code':
            outputs.append({})
            continue
        for output in cell.outputs:
            if output.get('name') == 'stderr':
                print(output.text, file=sys.stderr)
        kept = joined(cell.outputs)
        outputs.append({'outputs': kept, 'execution_count': cell.execution_count})
    return outputs


def joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Returns outputs without warnings and animations, and what is printed in one."""
    kept = []
    for output in outputs:
        if output.output_type != 'stream':
            if 'text/html' not in output.data:
                kept.append(output)
        elif output.name == 'stdout':
            if kept and kept[-1].output_type == 'stream':
                kept[-1].text += output.text
            else:
                kept.append(output)
    return kept


def old_outputs(name: str, made: nbformat.NotebookNode) -> list[dict]:
    """Returns the outputs that a notebook has, of the cells that have not changed."""
    path = FOLDER / f'{name}.ipynb'
    old = nbformat.read(path, as_version=4).cells if path.exists() else []
    by_source = {
        cell.source: {
            'outputs': cell.outputs,
            'execution_count': cell.execution_count,
        }
        for cell in old
        if cell.cell_type == 'code'
    }
    return [
        by_source.get(cell.source, {}) if cell.cell_type == 'code' else {}
        for cell in made.cells
    ]


if __name__ == '__main__':
    app.run(main)
