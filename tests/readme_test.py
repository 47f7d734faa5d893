"""The examples of the documents run, and give what is written beside them."""

import pathlib
import re

import jax
import pytest

import eqprop_jax as ep

pytestmark = pytest.mark.whole

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENTS = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]


def blocks(name):
    """The blocks of Python in a document."""
    text = (ROOT / name).read_text()
    return re.findall(r'```python\n(.*?)```', text, re.DOTALL)


def test_the_few_lines_train(capsys):
    """Copied into an empty file they come below 6 % on the digits."""
    (code,) = blocks('README.md')
    scope = {}
    exec(code, scope)
    printed = capsys.readouterr().out
    assert re.fullmatch(r'test error \d+\.\d %\n', printed)
    assert 0 < float(printed.split()[2]) < 6
    params, which = scope['params'], jax.numpy.arange(50)
    batch = ep.Batch(scope['x'][which], scope['y'][which])
    free = ep.relax(scope['system'], params, batch.x, scope['solve'])
    exact = ep.estimators.recurrent_backprop(scope['system'])
    found = scope['estimate'](params, batch, free, None)
    wanted = exact(params, batch, free, None)
    assert found.info.converged == 1
    for name, error in wanted.error.items():
        assert ep.tree.cosine({name: found.error[name]}, {name: error}) > 0.9999


def test_the_examples_run(capsys):
    """The cosine that is shown, and the last of the online estimates."""
    first, stream = blocks('docs/estimators.md')
    scope = {}
    exec(first, scope)
    printed = float(capsys.readouterr().out)
    shown = float(re.search(r'# (0\.\d+)$', first, re.MULTILINE)[1])
    assert printed >= shown
    assert scope['free'].converged.all()
    assert scope['info'].converged == 1
    batch = scope['batch']
    scope |= {'batches': [batch] * 2, 'keys': [None] * 2}
    exec(stream, scope)
    exact = scope['exact'](scope['params'], batch, scope['free'], None).grads
    assert ep.tree.cosine(scope['grads'], exact) > 0.9999


@pytest.mark.parametrize('path', DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(path):
    text = path.read_text()
    own = re.sub(r'https?://\S+', '', text)
    folders = 'eqprop_jax|experiments|launch|configs|tests|docs'
    for name in re.findall(rf'(?:{folders})/[\w/.]+', own):
        assert (ROOT / name.rstrip('.')).exists(), name
    for target in re.findall(r'\]\((?!https?:)([^)#]+)', text):
        assert (path.parent / target).exists(), target


def test_the_budget_is_what_the_document_says(capsys):
    """The example as it stands, and every row of the table above it."""
    text = (ROOT / 'docs' / 'speed.md').read_text()
    scope = {}
    exec(re.search(r'```python\n(.*?)```', text, re.DOTALL)[1], scope)
    assert capsys.readouterr().out.endswith('\n512\n')
    assert 'twice as many chips as there are images' in text
    budget, size, chip = (scope[name] for name in ('budget', 'size', 'chip'))
    schedules = {
        'complex step': budget.Schedule(free=5, nudged=3),
        'circle, 3 phases': scope['schedule'],
    }
    rows = re.findall(r'^\| ((?:complex|circle).*?) \|$', text, re.MULTILINE)
    rows = [row.split(' | ') for row in rows if len(row.split(' | ')) == 6]
    assert len(rows) == 5
    for gradient, batch, chips, milliseconds, memory, epoch in rows:
        count = int(chips.split(',')[0])
        found = budget.best(size, schedules[gradient], chip, int(batch), count)
        assert found.sharing == (3 if '3 to a contour' in chips else 1)
        parts = (found.compute_seconds, found.gradient_seconds, found.error_seconds)
        shown = [float(part) for part in milliseconds.split(' + ')]
        assert [1e3 * part for part in parts] == pytest.approx(shown, abs=0.05)
        assert found.memory / 1e9 == pytest.approx(float(memory), abs=0.05)
        images = 1.28e6
        wanted = pytest.approx(found.seconds * images / int(batch), abs=0.5)
        assert float(epoch) == wanted
    mlp = budget.size(ep.systems.mlp((784, 256, 256, 10), feedback='free'), (784,), 10)
    schedule = budget.Schedule(free=7, nudged=5, phases=3)
    assert budget.turning_point(mlp, schedule, chip, batch_size=50) == 2
