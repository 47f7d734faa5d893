"""Imports go down the floors only."""

import ast
import pathlib
import tomllib

import pytest

import eqprop_jax

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / 'eqprop_jax'

# Floor, and the modules of its own or a lower floor that it may not know.
FLOORS = {
    'types': 0,
    'tree': 0,
    '_disk': 0,
    '_axes': 0,
    '_wiring': 0,
    'linear': 0,
    '_precision': 0,
    '_lowered': 0,
    '_products': 0,
    '_program': 0,
    'dynamics': 0,
    'systems': 1,
    'solvers': 1,
    'noise': 1,
    'nudges': 1,
    '_parts': 0,
    'jacobian': 1,
    'estimators': 2,
    'homeostasis': 2,
    'alignment': 2,
    'analysis': 3,
    '_equilibrium': 3,
    'api': 4,
    'data': 3,
    'checkpoint': 3,
    'records': 3,
    'training': 4,
    '_evaluation': 5,
    'config': 5,
    'figures': 6,
    'cli': 7,
}
# On floor 3 these know floor 0 alone.
ISLANDS = {'data', 'checkpoint', 'records'}
# Libraries that only these modules import.
OWNERS = {
    'flax': {'systems', 'training'},
    'optax': {'training', 'tree'},
    'ml_collections': {'config', 'cli'},
    'absl': {'cli', 'config', 'training', 'data', 'records', 'checkpoint'},
    'tensorflow_datasets': {'data'},
    'sklearn': {'data'},
    'orbax': {'checkpoint'},
    'etils': {'checkpoint', '_disk', 'records'},
    'tensorboardX': {'records'},
    'matplotlib': {'figures'},
    'tqdm': {'training'},
}
# What is not installed with the library.
CHECKOUT = {'experiments', 'configs', 'launch', 'tests'}
# Launchers of what users of the library do; the others are of its experiments.
LAUNCHERS = ('train', 'sweep', 'evaluate', 'diagnose', 'prepare_data')

FIGURES = sorted((ROOT / 'experiments' / 'figures').glob('*.py'))


FOLDERS = sorted(
    path.name
    for path in PACKAGE.iterdir()
    if path.is_dir() and path.name[0] not in '_.'
)


def names(folder):
    """Returns the names that a folder's __init__ imports."""
    tree = ast.parse((folder / '__init__.py').read_text())
    found = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    return {alias.asname or alias.name for node in found for alias in node.names}


def modules():
    return [path for path in PACKAGE.rglob('*.py') if path != PACKAGE / '__init__.py']


def imports(path):
    """Yields the dotted names a file imports, `from a import b` as a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: relative import'
            yield from (f'{node.module}.{alias.name}' for alias in node.names)


def room(path):
    """Returns the top-level module that a file of the package belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def allowed(own, other):
    if own == other or FLOORS[own] == FLOORS[other] == 0:
        return True
    if own == 'figures':
        return other == 'records'
    if own in ISLANDS:
        return FLOORS[other] == 0
    return FLOORS[other] < FLOORS[own]


@pytest.mark.parametrize('path', modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path):
    own = room(path)
    assert own in FLOORS, f'{own} has no floor: give it one'
    for name in imports(path):
        top, *rest = name.split('.')
        if top == 'eqprop_jax':
            assert allowed(own, rest[0]), f'{path}: {own} may not import {rest[0]}'
        if top in OWNERS:
            assert own in OWNERS[top], f'{path}: {own} may not import {top}'
        assert top not in CHECKOUT, f'{path}: the library may not import {top}'


def test_what_has_no_underscore_is_the_api():
    """Files and folders of the package are its names; two are not imported by it."""
    public = {room(path) for path in modules() if not room(path).startswith('_')}
    others = {'cli', 'figures'}
    assert public == {*names(PACKAGE) & public, *others}
    functions = {'block', 'check', 'fit', 'loss', 'relax', 'value_and_grad'}
    functions |= {
        f'register_{part}' for part in ('cost', 'estimator', 'solver', 'system')
    }
    records = {'Aux', 'Batch', 'Equilibrium', 'Estimate', 'Estimator'}
    records |= {'Solver', 'System'}
    named = names(PACKAGE) - {'TYPE_CHECKING', 'Any'}
    assert named == public - others | functions | records
    assert set(dir(eqprop_jax)) == {*named, '__version__'}
    assert all(hasattr(eqprop_jax, name) for name in named)


@pytest.mark.parametrize('folder', ['', *FOLDERS])
def test_no_file_is_shadowed_by_a_function(folder):
    """`eqprop_jax.a.b` is one thing only."""
    place = PACKAGE / folder
    files = {path.stem for path in place.glob('*.py')}
    rooms = {path.name for path in place.iterdir() if path.is_dir()}
    for node in ast.parse((place / '__init__.py').read_text()).body:
        if isinstance(node, ast.ImportFrom):
            own = node.module == '.'.join(['eqprop_jax', folder]).rstrip('.')
            taken = {alias.asname or alias.name for alias in node.names}
            assert own or not taken & (files | rooms), (folder, taken)


@pytest.mark.parametrize('name', LAUNCHERS)
def test_users_launchers_need_no_experiments(name):
    tops = {name.split('.')[0] for name in imports(ROOT / 'launch' / f'{name}.py')}
    assert 'experiments' not in tops


@pytest.mark.parametrize('path', FIGURES, ids=lambda p: p.stem)
def test_figures_of_experiments_read_records_and_never_train(path):
    rooms = ('eqprop_jax.records', 'eqprop_jax.figures', 'experiments.figures')
    for name in imports(path):
        if name.startswith(('eqprop_jax', 'experiments', 'configs')):
            assert name.startswith(rooms), f'{path}: a figure may not import {name}'


def test_only_the_library_and_its_configurations_are_installed():
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())
    wheel = project['tool']['hatch']['build']['targets']['wheel']
    assert wheel == {
        'packages': ['eqprop_jax'],
        'force-include': {'configs': 'eqprop_jax/configs'},
    }


def test_configs_are_plain_records():
    """They have the defaults and variants of the library, and nothing that computes."""
    known = {'ml_collections', 'typing', 'collections'}
    library = {'eqprop_jax.config.defaults', 'eqprop_jax.config.variants'}
    for path in (ROOT / 'configs').glob('*.py'):
        names = set(imports(path)) - library
        assert {name.split('.')[0] for name in names} <= known, path


def test_a_config_is_read_where_a_run_is_built():
    """Whatever is above that, or below, has it from the fields of an experiment."""
    for path in modules():
        if room(path) in ('config', 'cli'):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            read = isinstance(node, ast.Subscript | ast.Attribute) and node.value
            is_config = isinstance(read, ast.Attribute) and read.attr == 'config'
            assert not is_config, f'{path}, line {node.lineno}'


def test_there_is_no_room_for_odds_and_ends():
    names = {path.stem for path in modules()}
    assert not names & {'utils', 'helpers', 'misc', 'common'}
