"""A hook of the site: formulas are drawn when it is built, and need no script."""

import functools
import html as markup
import re

import ziamath

SIZE = 18.0  # of a formula's letters; what is drawn is measured in these
SCALE = 1.12  # letters of formulas are small beside those of the text
# As pymdownx.arithmatex leaves them.
FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\[(\[](.+?)\\[)\]]</\1>', re.DOTALL
)
GLYPH = re.compile(r'<symbol id="([^"]+)".*?</symbol>', re.DOTALL)


@functools.cache
def drawn(latex: str, inline: bool) -> tuple[str, dict[str, str]]:
    """Returns a formula as an SVG that refers to glyphs, and these by their names."""
    formula = ziamath.Latex(latex, size=SIZE, inline=inline, color='currentColor')
    svg = formula.svgxml()
    lengths = {side: float(svg.attrib.pop(side)) for side in ('width', 'height')}
    lengths['vertical-align'] = formula.getyofst()
    style = [f'{key}: {SCALE / SIZE * value:.3f}em' for key, value in lengths.items()]
    svg.set('style', '; '.join(style))
    svg.set('role', 'img')
    svg.set('aria-label', ' '.join(latex.split()))
    text = ziamath.zmath.ET.tostring(svg, encoding='unicode')
    glyphs = {found[1]: found[0] for found in GLYPH.finditer(text)}
    return GLYPH.sub('', text), glyphs


def draw(page: str) -> str:
    """Returns the HTML of a page with its formulas drawn, behind their glyphs."""
    glyphs: dict[str, str] = {}

    def replaced(found: re.Match) -> str:
        tag, latex = found[1], markup.unescape(found[2]).strip()
        svg, own = drawn(latex, tag == 'span')
        glyphs.update(own)
        return f'<{tag} class="arithmatex">{svg}</{tag}>'

    page = FORMULA.sub(replaced, page)
    if not glyphs:
        return page
    shapes = ''.join(glyphs.values())
    return f'<svg class="glyphs" aria-hidden="true">{shapes}</svg>{page}'


def on_page_content(html, page, config, files):
    """Draws the formulas of a page."""
    return draw(html)
