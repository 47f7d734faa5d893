"""Hooks of the site: they include sections of README, records, logs and sources.

A line of its own is replaced by

    <!-- include README.md: Results -->    a section of a file, without its heading
    <!-- records -->                       a table of results/*.json

so that nothing has to be written twice. Links out of docs/ lead to a page with the
file they name, or to the reference where it is a public module.
"""

import json
import pathlib
import posixpath
import re
from collections.abc import Callable

ROOT = pathlib.Path(__file__).parents[1]
LOGS = 'results/log'
SHOWN = (
    'configs/*.py',
    'experiments/**/*.py',
    'launch/*',
    'results/**/*.json',
    f'{LOGS}/*.md',
)
LANGUAGES = {'.py': 'python', '.sh': 'bash', '.sbatch': 'bash', '.json': 'json'}
INCLUDE = re.compile(r'^<!-- include (\S+): (.+) -->$', re.MULTILINE)
FENCED = re.compile(r'^```.*?^```$', re.MULTILINE | re.DOTALL)
DATE = re.compile(r'\d{4}-\d\d-\d\d(?=</td>)')
LINK = re.compile(r'(\]\()(?!https?:|#|mailto:)([^)\s#]+)')


def relink(text: str, change: Callable[[str], str]) -> str:
    """Returns a text with the targets of its links changed, code left alone."""

    def outside(part: str) -> str:
        return LINK.sub(lambda link: link[1] + change(link[2]), part)

    start, parts = 0, []
    for code in FENCED.finditer(text):
        parts += [outside(text[start : code.start()]), code[0]]
        start = code.end()
    return ''.join([*parts, outside(text[start:])])


def section(text: str, title: str) -> str:
    """Returns what stands under a heading, up to the next of its level or above."""
    found = re.search(rf'^(#+) {re.escape(title)}$', text, re.MULTILINE)
    if found is None:
        raise ValueError(f'there is no section {title!r}')
    code = [range(*match.span()) for match in FENCED.finditer(text)]
    for end in re.finditer(rf'^#{{1,{len(found[1])}}} ', text, re.MULTILINE):
        fenced = any(end.start() in span for span in code)
        if end.start() > found.end() and not fenced:
            return text[found.end() : end.start()].strip('\n')
    return text[found.end() :].strip('\n')


def expand(markdown: str, page: str) -> str:
    """Returns a page with its includes, as `page` (relative to docs/) should have it.

    Args:
      markdown: the source.
      page: where it lies, such as 'concepts/errors.md'.
    """

    def include(match: re.Match) -> str:
        body = section((ROOT / match[1]).read_text(encoding='utf-8'), match[2])
        start = posixpath.dirname(f'docs/{page}')
        base = posixpath.dirname(match[1])

        def moved(target: str) -> str:
            return posixpath.relpath(posixpath.join(base, target), start)

        # Each footnote in a paragraph of its own, where GitHub only breaks the line.
        return re.sub(r'\n(?=[¹²³⁴⁵⁶⁷⁸⁹] )', '\n\n', relink(body, moved))

    markdown = INCLUDE.sub(include, markdown)
    return markdown.replace('<!-- records -->', records(page))


def records(page: str) -> str:
    """Returns a table of the records of training runs, from results/*.json."""
    lines = [
        '| record | test error in % | seeds | date | commit |',
        '|---|---|---|---|---|',
    ]
    up = posixpath.relpath('.', posixpath.dirname(f'docs/{page}'))
    for path in sorted((ROOT / 'results').glob('*.json')):
        if path.stem == 'table':  # of contents
            continue
        record = json.loads(path.read_text(encoding='utf-8'))
        link = f'[{path.stem}]({up}/results/{path.name})'
        rows = [row for row in record.get('rows', ()) if 'date' in row]
        for row in rows:  # of a sweep, each from runs of its own
            lines.append(line_of(f'{link}: {row["name"]}', row))
        if not rows:
            lines.append(line_of(link, record.get('run', record)))
    return '\n'.join(lines)


def line_of(name: str, record: dict) -> str:
    """Returns the line of a record, or of a row of it."""
    value, seeds = '', record.get('seeds', ())
    if record.get('mean') is not None:
        value = f'{record["mean"]:.2f}'
        if record.get('std') is not None:
            value += f' ± {record["std"]:.2f}'
    cells = (name, value, ', '.join(map(str, seeds)))
    return (
        f'| {" | ".join(cells)} | {record.get("date", "")} '
        f'| {record.get("commit", "")} |'
    )


def home(path: str) -> str | None:
    """Returns the page on which a file of the repository is shown, or None."""
    file = pathlib.PurePosixPath(path)
    if file.parts[0] == 'eqprop_jax' and len(file.parts) > 1:
        page = f'api/{file.parts[1].removesuffix(".py")}.md'
        return page if (ROOT / 'docs' / page).exists() else None
    if path == 'CONTRIBUTING.md':
        return 'howto/contribute.md'
    if path == 'README.md':
        return 'index.md'
    if file.suffix == '.ipynb':
        return f'tutorials/{file.stem}.md'
    shown = file.parts[0] in {'configs', 'experiments', 'launch', 'results'}
    return f'files/{path.removesuffix(".md")}.md' if shown else None


def on_files(files, config):
    """Adds a page for every file that pages may link to."""
    from mkdocs.structure.files import File

    for path in sorted(p for pattern in SHOWN for p in ROOT.glob(pattern)):
        if not path.is_file():
            continue
        name = path.relative_to(ROOT).as_posix()
        text = path.read_text(encoding='utf-8').rstrip()
        if path.suffix != '.md':
            language = LANGUAGES.get(path.suffix, 'text')
            text = f'# {name}\n\n````{language}\n{text}\n````'
        head = '---\nsearch:\n  exclude: true\nhide: [navigation, toc]\n---\n\n'
        content = f'{head}{text}\n'
        files.append(File.generated(config, home(name), content=content))
    return files


def on_page_content(html, page, config, files):
    """Lets a click on a figure show it in full, and keeps numbers on one line."""
    html = re.sub(r'(?<=[\d>]) ± (?=\d)', '\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}', html)
    html = DATE.sub(r'<span class="number">\g<0></span>', html)
    return re.sub(
        r'<img [^>]*?src="([^"]+)"[^>]*>',
        r'<a class="figure" href="\1">\g<0></a>',
        html,
    )


def on_post_page(output, page, config):
    """Keeps the theme from asking GitHub for the numbers of stars and forks."""
    return output.replace(' data-md-component="source"', '')


def on_page_markdown(markdown, page, config, files):
    """Expands a page and mends its links."""
    source = page.file.src_uri
    here = posixpath.dirname(source)
    is_log = here == f'files/{LOGS}'
    if here.startswith('files/') and not is_log:
        return markdown
    origins = {f'files/{LOGS}': LOGS, 'tutorials': 'notebooks'}
    folder = origins.get(here, f'docs/{here}')

    def mended(target: str) -> str:
        path = posixpath.normpath(posixpath.join(folder, target))
        inside = path.startswith('docs/')
        found = path.removeprefix('docs/') if inside else home(path)
        return target if found is None else posixpath.relpath(found, here or '.')

    return relink(markdown if is_log else expand(markdown, source), mended)
