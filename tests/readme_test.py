"""The examples of the documents run, and give what is written beside them."""

import pathlib
import re

import pytest

import eqprop_jax as ep

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()
DOCUMENTS = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]


def test_the_examples_run(capsys):
    first, second = re.findall(r'```python\n(.*?)```', README, re.DOTALL)
    scope = {}
    exec(first, scope)
    printed = float(capsys.readouterr().out)
    shown = float(re.search(r'# (0\.\d+)$', first, re.MULTILINE)[1])
    assert printed >= shown
    assert scope['free'].converged.all()
    assert scope['info'].converged == 1

    exec(second, scope)
    system, params, batch = scope['own'], scope['params'], scope['batch']
    exact = ep.estimators.recurrent_backprop(system, tol=1e-8)
    reference = exact(params, batch, scope['free'], None).grads
    assert ep.tree.cosine(scope['grads'], reference) > 0.9999


def test_the_stream_runs():
    """The last of the online estimates is the gradient, and the stream goes on."""
    code = re.findall(
        r'```python\n(.*?)```', (ROOT / 'docs' / 'estimators.md').read_text(), re.DOTALL
    )
    scope = {}
    exec(re.findall(r'```python\n(.*?)```', README, re.DOTALL)[0], scope)
    batch = scope['batch']
    scope |= {'batches': [batch] * 2, 'keys': [None] * 2}
    exec(code[0], scope)
    exact = scope['exact'](scope['params'], batch, scope['free'], None).grads
    assert ep.tree.cosine(scope['grads'], exact) > 0.9999


@pytest.mark.parametrize('path', DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(path):
    text = path.read_text()
    for name in re.findall(r'(?:eqprop_jax|launch|configs|tests|docs)/[\w/.]+', text):
        assert (ROOT / name.rstrip('.')).exists(), name
    for target in re.findall(r'\]\((?!https?:)([^)#]+)', text):
        assert (path.parent / target).exists(), target
