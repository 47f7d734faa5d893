"""The notebooks: both files of each are the same, and fit to be shown.

`launch/notebooks.py --check` runs them.
"""

import ast
import json
import pathlib
import re
import tomllib

import pytest

pytestmark = pytest.mark.whole

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / 'notebooks'
NAMES = [
    'quick_start',
    'where_does_the_bias_come_from',
    'homeostasis_and_correction',
    'write_your_own_system',
    'learning_online',
]
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
REPOSITORY = PROJECT['urls']['Repository']
COLAB = 'https://colab.research.google.com/'


def notebook(name):
    return json.loads((FOLDER / f'{name}.ipynb').read_text())


def code_cells(name):
    return [cell for cell in notebook(name)['cells'] if cell['cell_type'] == 'code']


def cells_of_source(text):
    """Returns the (type, source) of the cells of a script in the percent format."""
    _, *parts = re.split(r'^# %%', text, flags=re.MULTILINE)
    cells = []
    for part in parts:
        mark, _, body = part.partition('\n')
        assert mark in ('', ' [markdown]'), mark
        lines = body.strip('\n').split('\n')
        if mark:
            assert all(line == '#' or line.startswith('# ') for line in lines), part
            lines = [line[2:] for line in lines]
        cells.append(('markdown' if mark else 'code', '\n'.join(lines)))
    return cells


def test_every_notebook_has_a_source():
    for suffix in ('.py', '.ipynb'):
        assert {path.stem for path in FOLDER.glob(f'*{suffix}')} == set(NAMES)


@pytest.mark.parametrize('name', NAMES)
def test_both_files_have_the_same_cells(name):
    """After an edit of the .py, `make notebooks` makes them so again."""
    source = cells_of_source((FOLDER / f'{name}.py').read_text())
    cells = [(c['cell_type'], ''.join(c['source'])) for c in notebook(name)['cells']]
    assert len(cells) > 10
    assert cells == source


@pytest.mark.parametrize('name', NAMES)
def test_nothing_personal_is_kept(name):
    made = notebook(name)
    assert set(made['metadata']) == {'jupytext', 'kernelspec', 'language_info'}
    assert made['metadata']['language_info'] == {'name': 'python'}
    assert all(cell['metadata'] == {} for cell in made['cells'])
    text = (FOLDER / f'{name}.ipynb').read_text()
    assert not re.search(r'/(root|home|Users|tmp)/|site-packages|\.venv', text)


@pytest.mark.parametrize('name', NAMES)
def test_outputs_are_kept(name):
    cells = code_cells(name)
    counts = [cell['execution_count'] for cell in cells]
    assert counts == list(range(1, len(cells) + 1))  # run once, from top to bottom
    outputs = [output for cell in cells for output in cell['outputs']]
    kinds = {output['output_type'] for output in outputs}
    assert kinds == {'stream', 'display_data'}  # and no name of an object
    assert all(output.get('name') != 'stderr' for output in outputs)
    pictures = [o['data']['image/png'] for o in outputs if 'data' in o]
    drawn = sum('plt.subplots' in ''.join(cell['source']) for cell in cells)
    assert len(pictures) == drawn >= 2
    assert sum(map(len, pictures)) < 4 / 3 * 300_000  # base64


@pytest.mark.parametrize('name', NAMES)
def test_the_badge_opens_this_notebook(name):
    (kind, badge), (other, install), *rest = cells_of_source(
        (FOLDER / f'{name}.py').read_text()
    )
    assert (kind, other) == ('markdown', 'code')
    path = REPOSITORY.removeprefix('https://github.com/')
    target = f'{COLAB}github/{path}/blob/main/notebooks/{name}.ipynb'
    assert re.findall(r'\]\(([^)]+)\)$', badge) == [target]
    assert f"'git+{REPOSITORY}'" in install
    links = re.findall(r'\]\((?!https?:)([^)]+)\)', '\n'.join(s for _, s in rest))
    for link in links:
        assert (FOLDER / link).exists(), link


@pytest.mark.parametrize('name', NAMES)
def test_only_what_is_public_is_used(name):
    tree = ast.parse((FOLDER / f'{name}.py').read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            assert not re.match('_(?!_)', node.attr), node.attr
        if isinstance(node, ast.ImportFrom) and node.module.startswith('eqprop_jax'):
            assert (node.module, node.names[0].name) == ('eqprop_jax.figures', 'style')
