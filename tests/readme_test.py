"""The examples of README.md run, and give what is written beside them."""

import pathlib
import re

import eqprop_jax as ep

README = (pathlib.Path(__file__).parents[1] / 'README.md').read_text()


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


def test_files_named_in_the_readme_exist():
    root = pathlib.Path(__file__).parents[1]
    for name in re.findall(r'(?:eqprop_jax|launch|configs|tests|docs)/[\w/.]+', README):
        assert (root / name.rstrip('.')).exists(), name
