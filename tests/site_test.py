"""What the hooks of the site make: pages of notebooks."""

import base64
import importlib.util
import json
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / 'docs'
NOTEBOOKS = sorted((ROOT / 'notebooks').glob('*.ipynb'))


def hook(name):
    spec = importlib.util.spec_from_file_location(f'docs_{name}', DOCS / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cell(kind, source, *outputs):
    return {'cell_type': kind, 'source': source, 'outputs': list(outputs)}


PNG = b'\x89PNG not really'
PRINTED = {'output_type': 'stream', 'name': 'stdout', 'text': ['2\n', '3\n']}
VALUE = {'output_type': 'execute_result', 'data': {'text/plain': ['4']}}
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
4
```

![What the code above draws](some-2.png)
"""


def test_a_notebook_as_a_page():
    text, pictures = hook('tutorials').page(NOTEBOOK, 'some')
    assert text == PAGE
    assert pictures == {'some-1.png': PNG, 'some-2.png': PNG}


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_no_output_is_the_name_of_an_object(path):
    text, _ = hook('tutorials').page(json.loads(path.read_text()), path.stem)
    assert not re.search(r'<[^>\n]* at 0x|<Figure|<matplotlib', text)


def test_links_to_notebooks_lead_to_their_pages():
    for path in NOTEBOOKS:
        page = hook('hooks').home(f'notebooks/{path.name}')
        assert page == f'tutorials/{path.stem}.md'
