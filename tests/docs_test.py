"""The code of the site's pages runs, prints what they show, and all pages are found."""

import ast
import doctest
import importlib
import importlib.util
import pathlib
import pkgutil
import re

import jax
import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / 'docs'
PACKAGE = ROOT / 'eqprop_jax'
PAGES = {path.relative_to(DOCS).as_posix(): path for path in DOCS.rglob('*.md')}
SITE = yaml.safe_load((ROOT / 'mkdocs.yml').read_text())
# A block of Python, and the output that the page shows below it.
BLOCK = re.compile(r'```python\n(.*?)```(?:\n+```text\n(.*?)```)?', re.DOTALL)
NUMBER = re.compile(r'-?\d+(?:\.\d+)?(?:e[-+]?\d+)?')
GUIDES = (
    *('system', 'estimator', 'solver', 'plugins'),
    *('data', 'fit', 'trained', 'compose'),
)
# Pages whose blocks readme_test.py runs, as it does what is included from README.
ELSEWHERE = {'estimators.md': 2, 'speed.md': 1}


def hooks():
    spec = importlib.util.spec_from_file_location('docs_hooks', DOCS / 'hooks.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def text_of(page):
    """Returns a page with what it includes."""
    return hooks().expand(PAGES[page].read_text(), page)


def assert_shown(printed, shown):
    """Words have to be the same, numbers up to one of their last digit."""
    assert NUMBER.sub('#', printed) == NUMBER.sub('#', shown), printed
    pairs = zip(NUMBER.findall(printed), NUMBER.findall(shown), strict=True)
    for found, number in pairs:
        mantissa, _, power = number.partition('e')
        digits = len(mantissa.partition('.')[2])
        unit = 10.0 ** (int(power or 0) - digits) if digits or power else 0
        assert abs(float(found) - float(number)) <= 1.01 * unit, printed


@pytest.fixture
def restored(tmp_path, monkeypatch):
    """Pages may write files, and ask for double precision, which the tests have."""
    monkeypatch.chdir(tmp_path)
    yield
    jax.config.update('jax_enable_x64', True)


WITH_CODE = {page for page in PAGES if '```python' in PAGES[page].read_text()}


@pytest.mark.whole
@pytest.mark.parametrize('page', sorted(WITH_CODE - ELSEWHERE.keys()))
def test_the_code_of_a_page_runs(page, capsys, restored):
    """All blocks of a page, in one namespace; what they print is what is shown."""
    scope = {'__name__': page}
    for code, shown in BLOCK.findall(PAGES[page].read_text()):
        exec(code, scope)
        printed = capsys.readouterr().out
        if shown:
            assert_shown(printed, shown)


def test_the_code_of_a_page_is_found():
    concepts = {page for page in PAGES if page.startswith('concepts/')}
    guides = {f'howto/{name}.md' for name in GUIDES}
    assert (concepts | guides | ELSEWHERE.keys()) - {'concepts/index.md'} <= WITH_CODE
    for page, count in ELSEWHERE.items():
        assert PAGES[page].read_text().count('```python') == count, page


def entries(nav):
    """Yields the pages of a navigation."""
    for entry in nav:
        value = entry if isinstance(entry, str) else next(iter(entry.values()))
        if isinstance(value, str):
            yield value
        else:
            yield from entries(value)


def test_the_navigation_names_every_page_once():
    notebooks = (ROOT / 'notebooks').glob('*.ipynb')
    tutorials = [f'tutorials/{path.stem}.md' for path in notebooks]
    assert sorted(entries(SITE['nav'])) == sorted([*PAGES, *tutorials])


@pytest.mark.parametrize('page', sorted(PAGES))
def test_what_a_page_links_to_exists(page):
    text = re.sub(r'```.*?```', '', text_of(page), flags=re.DOTALL)
    for target in re.findall(r'\]\((?!https?:|#)([^)\s#]+)', text):
        assert (DOCS / page).parent.joinpath(target).exists(), target


def exported(name):
    """Returns the public names of a module, as a set."""
    folder = PACKAGE / name
    path = folder / '__init__.py' if folder.is_dir() else PACKAGE / f'{name}.py'
    return {
        alias.asname
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }


PUBLIC = sorted(
    {name for name in exported('') if (PACKAGE / name).is_dir()}
    | {name for name in exported('') if (PACKAGE / f'{name}.py').exists()}
    | {'cli', 'figures'}
)


def test_the_reference_has_a_page_for_every_public_module():
    pages = {path.stem for path in (DOCS / 'api').glob('*.md')} - {'index'}
    assert pages == set(PUBLIC)
    index = (DOCS / 'api' / 'index.md').read_text()
    for name in PUBLIC:
        assert f'({name}.md)' in index, name


@pytest.mark.parametrize('name', [name for name in PUBLIC if name != 'cli'])
def test_a_page_of_the_reference_has_every_public_name(name):
    text = (DOCS / 'api' / f'{name}.md').read_text()
    for path in re.findall(r'^::: ([\w.]+)$', text, re.MULTILINE):
        pkgutil.resolve_name(path)
    if (PACKAGE / name).is_dir():
        shown = set(re.findall(rf'^::: eqprop_jax\.{name}\.(\w+)$', text, re.MULTILINE))
        for members in re.findall(r'members: \[(.*?)\]', text, re.DOTALL):
            shown |= set(re.split(r',\s*', members))
        assert exported(name) <= shown


MODULES = sorted(
    path.relative_to(ROOT).with_suffix('').as_posix().replace('/', '.')
    for path in PACKAGE.rglob('*.py')
    if '>>>' in path.read_text()
)


@pytest.mark.parametrize('name', MODULES)
def test_the_examples_in_docstrings(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted
    assert not result.failed


def test_a_page_can_take_a_section_of_a_log():
    source = '# Log\n\n## Seen\n\n* one\n* two\n\n## Other\n'
    assert hooks().section(source, 'Seen') == '* one\n* two'
    with pytest.raises(ValueError, match='Unseen'):
        hooks().section(source, 'Unseen')


CONFIGS = sorted((ROOT / 'configs').glob('*.py'))
LOGS = sorted((ROOT / 'results' / 'log').glob('*.md'))


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_a_configuration_is_described_in_fifteen_lines(path):
    """What is longer is in a log, which the docstring names."""
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert len(docstring.splitlines()) <= 15
    for name in re.findall(r'results/[\w/.]+\w', docstring):
        assert (ROOT / name).is_file(), name


@pytest.mark.parametrize('path', LOGS, ids=lambda path: path.stem)
def test_a_log_is_named_and_names_what_exists(path):
    """By a configuration and by the page of results."""
    name = f'results/log/{path.name}'
    assert any(name in config.read_text() for config in CONFIGS)
    assert name in (DOCS / 'results.md').read_text()
    for target in re.findall(r'\]\((?!https?:)([^)#]+)', path.read_text()):
        assert (path.parent / target).exists(), target


def test_every_record_has_a_date():
    _, _, *lines = hooks().records('results.md').splitlines()
    dates = [line.split('|')[-3].strip() for line in lines]
    assert all(re.fullmatch(r'\d{4}-\d\d-\d\d', date) for date in dates), lines
