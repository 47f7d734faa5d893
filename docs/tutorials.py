"""A hook of the site: every notebook is a page, with its outputs and its pictures."""

import base64
import json
import pathlib
import re
import textwrap

NOTEBOOKS = pathlib.Path(__file__).parents[1] / 'notebooks'
BADGE = re.compile(r'\[!\[(Open in Colab)\]\([^)]+\)\]\(([^)]+)\)')
INSTALL = '# On Colab: '  # how the cell begins that a reader of the page can do without

WIDTH = 100  # of a page, in letters


def page(notebook: dict, name: str) -> tuple[str, dict[str, bytes]]:
    """Returns a notebook in Markdown, and its pictures by the names of their files.

    Args:
      notebook: as the .ipynb has it.
      name: its name, with which those of the pictures begin.
    """
    parts, pictures = [], {}
    for cell in notebook['cells']:
        source = ''.join(cell['source'])
        if cell['cell_type'] == 'markdown':
            parts.append(BADGE.sub(r'[\1](\2){ .md-button }', source))
        elif not source.startswith(INSTALL):
            parts.append(f'```python\n{source}\n```')
        for output in cell.get('outputs', ()):
            data = output.get('data', {})
            if 'image/png' in data:
                picture = f'{name}-{len(pictures) + 1}.png'
                pictures[picture] = base64.b64decode(data['image/png'])
                parts.append(f'![What the code above draws]({picture})')
            else:
                text = ''.join(output.get('text', data.get('text/plain', ())))
                lines = map(wrapped, text.rstrip().split('\n'))
                parts.append('\n'.join(['```text', *lines, '```']))
    return '\n\n'.join(parts) + '\n', pictures


def wrapped(line: str) -> str:
    """Returns a line of text that is wider than a page as several."""
    return textwrap.fill(line, WIDTH) if len(line) > WIDTH else line


def on_files(files, config):
    """Adds the pages, and the pictures that they show."""
    from mkdocs.structure.files import File

    for path in sorted(NOTEBOOKS.glob('*.ipynb')):
        notebook = json.loads(path.read_text(encoding='utf-8'))
        text, pictures = page(notebook, path.stem)
        made = {f'{path.stem}.md': text, **pictures}
        for name, content in made.items():
            files.append(File.generated(config, f'tutorials/{name}', content=content))
    return files
