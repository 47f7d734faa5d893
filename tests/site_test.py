"""What the hooks of the site make: pages of notebooks, and drawn formulas."""

import base64
import importlib.util
import json
import pathlib
import re
import tomllib

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / 'docs'
NOTEBOOKS = sorted((ROOT / 'notebooks').glob('*.ipynb'))
SITE = yaml.safe_load((ROOT / 'mkdocs.yml').read_text())
FORMULA = re.compile(r'\$\$(.+?)\$\$|\$([^$]+)\$', re.DOTALL)
CODE = re.compile(r'^```.*?^```$|^ {4}.*?$|`[^`]*`', re.MULTILINE | re.DOTALL)


def hook(name):
    spec = importlib.util.spec_from_file_location(f'docs_{name}', DOCS / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cell(kind, source, *outputs):
    return {'cell_type': kind, 'source': source, 'outputs': list(outputs)}


PNG = b'\x89PNG not really'
PRINTED = {'output_type': 'stream', 'name': 'stdout', 'text': ['2\n', '3\n']}
LONG = ' '.join(['word'] * 30)
VALUE = {'output_type': 'execute_result', 'data': {'text/plain': [LONG]}}
DRAWN = {
    'output_type': 'display_data',
    'data': {'image/png': base64.b64encode(PNG).decode(), 'text/plain': '<Figure>'},
}
BADGE = '[![Open in Colab](https://badge)](https://colab)'
NOTEBOOK = {
    'cells': [
        cell('markdown', [BADGE]),
        cell('code', ['# On Colab: install the package.\n', 'import sys']),
        cell('markdown', ['# Title\n', '\n', '$x$ and `y`']),
        cell('code', ['a = 1\n', 'print(a)'], PRINTED, DRAWN),
        cell('code', ['a'], VALUE, DRAWN),
    ]
}
PAGE = """[Open in Colab](https://colab){ .md-button }

# Title

$x$ and `y`

```python
a = 1
print(a)
```

```text
2
3
```

![What the code above draws](some-1.png)

```python
a
```

```text
FIRST
SECOND
```

![What the code above draws](some-2.png)
"""


def test_a_notebook_as_a_page():
    text, pictures = hook('tutorials').page(NOTEBOOK, 'some')
    first, second = (' '.join(['word'] * count) for count in (20, 10))
    assert text == PAGE.replace('FIRST', first).replace('SECOND', second)
    assert pictures == {'some-1.png': PNG, 'some-2.png': PNG}


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_no_output_is_the_name_of_an_object(path):
    text, _ = hook('tutorials').page(json.loads(path.read_text()), path.stem)
    assert not re.search(r'<[^>\n]* at 0x|<Figure|<matplotlib', text)


def test_links_to_notebooks_lead_to_their_pages():
    for path in NOTEBOOKS:
        page = hook('hooks').home(f'notebooks/{path.name}')
        assert page == f'tutorials/{path.stem}.md'


def formulas():
    """Yields the formulas of all pages and notebooks."""
    texts = [path.read_text() for path in DOCS.rglob('*.md')]
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text())['cells']
        texts += [''.join(c['source']) for c in cells if c['cell_type'] == 'markdown']
    for text in texts:
        for display, inline in FORMULA.findall(CODE.sub('', text)):
            yield (display or inline).strip()


def test_every_command_of_a_formula_is_known():
    """What the converter does not know it leaves as text, with its backslash."""
    converter = pytest.importorskip('latex2mathml.converter')
    found = sorted(set(formulas()))
    assert len(found) > 150
    for formula in found:
        assert '\\' not in converter.convert(formula), formula


def test_formulas_are_drawn_where_they_stand():
    pytest.importorskip('ziamath')
    one = '<span class="arithmatex">\\(a &lt; b\\)</span>'
    two = '<div class="arithmatex">\\[\na + a\n\\]</div>'
    drawn = hook('formulas').draw(f'<p>If {one} then</p>{two}<p>$</p>')
    kept = re.sub(r'<svg.*?</svg>', 'SVG', drawn, flags=re.DOTALL)
    assert kept == (
        'SVG<p>If <span class="arithmatex">SVG</span> then</p>'
        '<div class="arithmatex">SVG</div><p>$</p>'
    )
    assert re.findall('aria-label="([^"]+)"', drawn) == ['a &lt; b', 'a + a']
    glyphs = re.findall('<symbol id="([^"]+)"', drawn)
    assert len(glyphs) == len(set(glyphs)) == 4  # a, <, b, +
    assert set(re.findall('href="#([^"]+)"', drawn)) == set(glyphs)


def test_a_page_without_formulas_is_left_alone():
    pytest.importorskip('ziamath')
    assert hook('formulas').draw('<p>a \\(b\\)</p>') == '<p>a \\(b\\)</p>'


def test_the_site_loads_nothing_from_elsewhere():
    loaded = [*SITE.get('extra_javascript', ()), *SITE['extra_css']]
    assert not [address for address in loaded if '://' in address]
    assert SITE['theme']['font'] is False


def test_the_site_names_the_repository_and_its_address():
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    assert SITE['repo_url'] == project['urls']['Repository']
    owner, name = SITE['repo_name'].split('/')
    assert SITE['repo_url'].endswith(f'/{owner}/{name}')
    assert SITE['site_url'] == f'https://{owner}.github.io/{name}/'


def test_the_gallery_has_every_picture_and_says_where_it_is_explained():
    text = (DOCS / 'gallery.md').read_text()
    items = re.findall(r'\]\(images/([\w.]+)\)\n\n(.+?)\n\n', text, re.DOTALL)
    names = [path.name for path in (DOCS / 'images').iterdir()]
    assert sorted(name for name, _ in items) == sorted(names)
    for name, words in items:
        (target,) = re.findall(r'\]\(([\w/.]+)#', words)
        assert f'images/{name}' in (DOCS / target).read_text(), name
