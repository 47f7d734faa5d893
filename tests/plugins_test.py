"""Parts of one's own, named by configurations and found again by other commands."""

import json

import jax
import numpy as np
import pytest
import runs

import eqprop_jax as ep
from eqprop_jax import records
from eqprop_jax.config import ConfigError, plugins, registry
from eqprop_jax.systems import _costs as costs

OWN = '''
from typing import Any

import eqprop_jax as ep


def halved(system, solve, *, contour, factor: float = 0.5):
    """Half of what a contour finds."""
    estimate = ep.estimators.contour(system, solve, contour=contour)

    def half(params, batch, free, rng):
        found = estimate(params, batch, free, rng)
        return found._replace(grads=ep.tree.scale(factor, found.grads))

    return half


def slow(*, tol: float = 1e-3, max_steps: int = 100):
    return ep.solvers.relaxation(tol=tol, max_steps=max_steps, step_size=0.5)


def narrow(*, width: int, cost: str = 'squared_error'):
    return ep.systems.mlp((64, width, 10), cost=cost)


def cubic(params, rates, y):
    return ((rates['layer_2'] - y) ** 3).sum(axis=1)


ep.register_cost('cubic', cubic)
ep.register_estimator('halved', halved)
ep.register_solver('slow', slow)
ep.register_system('narrow', narrow)
'''
CHANGES = {
    'estimator.name': 'halved',
    'estimator.correction': None,
    'solver.name': 'slow',
    'system': {'name': 'narrow', 'width': 8},
    'num_epochs': 1,
}


@pytest.fixture(autouse=True)
def registered():
    """Takes back what a test registers."""
    tables = [costs.COSTS, *(table['name'] for table in registry.NAMED.values())]
    before = [dict(table) for table in tables]
    own = dict(plugins._OWN)
    yield
    for table, old in zip(tables, before, strict=True):
        table.clear()
        table.update(old)
    plugins._OWN.clear()
    plugins._OWN.update(own)


def forget():
    """Leaves the tables as another process has them."""
    for table in registry.NAMED.values():
        for name in ('halved', 'slow', 'narrow'):
            table['name'].pop(name, None)
    costs.COSTS.pop('cubic', None)
    plugins._OWN.clear()


@pytest.fixture
def module(tmp_path):
    path = tmp_path / 'own_parts.py'
    path.write_text(OWN)
    return path


def test_a_run_of_own_parts(module):
    run = runs.experiment({**CHANGES, 'plugins': (str(module),)})
    assert run.config['plugins'] == (str(module),)
    nudged = ep.solvers.relaxation(tol=1e-3, max_steps=50)
    x = np.ones((3, 8, 8, 1), np.float32)
    params = run.system.init(jax.random.key(0), x)
    batch = ep.Batch(x, np.arange(3))
    free = ep.relax(run.system, params, x, run.solve)
    wanted = ep.estimators.contour(
        run.system, nudged, contour=ep.nudges.circle(0.5, 2)
    )(params, batch, free, None)
    found = run.learn(params, batch, free, None)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b / 2, rtol=1e-5),
        found.grads,
        wanted.grads,
    )


def test_a_cost_by_name(module):
    plugins.load([str(module)])
    system = {'name': 'narrow', 'width': 8, 'cost': 'cubic'}
    run = runs.experiment({'system': system})
    assert run.config['plugins'] == (str(module),)
    rates = {'layer_1': np.zeros((2, 8)), 'layer_2': np.full((2, 10), 0.5)}
    found = run.system.cost({}, rates, np.eye(10)[[3, 4]])
    np.testing.assert_allclose(found, [1.0, 1.0])  # 9 ½³ − ½³
    with pytest.raises(ConfigError, match='hinge, cubic'):
        runs.experiment({'system': {**system, 'cost': 'quartic'}})
    with pytest.raises(ValueError, match="there is another cost 'hinge'"):
        ep.register_cost('hinge', lambda params, rates, y: y)


def test_keys_are_checked_as_those_of_other_parts(module):
    plugins.load([str(module)])
    with pytest.raises(ConfigError, match='estimator.factor has to be a number'):
        runs.experiment({**CHANGES, 'estimator.factor': 'much'})
    with pytest.raises(ConfigError, match='key system.width is missing'):
        runs.experiment({**CHANGES, 'system': {'name': 'narrow'}})
    with pytest.raises(ConfigError, match='tangent, halved'):
        runs.experiment({'estimator.name': 'magic'})


@pytest.mark.whole
def test_they_are_found_again_by_other_commands(module, tmp_path, caplog):
    """That know the workdir alone, which says where they are registered."""
    workdir = tmp_path / 'run'
    run = runs.experiment({**CHANGES, 'plugins': (str(module),)})
    runs.train(run, workdir)
    assert json.loads((workdir / 'config.json').read_text())['plugins'] == [str(module)]
    forget()
    for script, options in (
        ('evaluate', ()),
        ('diagnose', ('--repeats=0', '--only=this run')),
    ):
        result = runs.launch(script, f'--workdir={workdir}', *options, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    module.write_text(OWN + '# of another day')
    runs.launch('evaluate', f'--workdir={workdir}', cwd=tmp_path)
    assert 'was trained with other plugins than these' in caplog.text
    plugins._OWN.clear()
    forget()
    other = runs.experiment({**CHANGES, 'plugins': (str(module),)})
    with pytest.raises(records.WorkdirError, match='plugins_sha256 is'):
        runs.train(other, workdir)
    module.unlink()
    plugins._OWN.clear()
    result = runs.launch('evaluate', f'--workdir={workdir}', cwd=tmp_path)
    assert result.returncode == 1
    assert 'own_parts.py cannot be loaded' in result.stderr
    assert result.stderr.count('\n') == 1


@pytest.mark.whole
def test_a_configuration_may_register_them_itself(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(
        OWN + 'from eqprop_jax.config import defaults\n\n\n'
        'def get_config():\n'
        '    config = defaults.get_config()\n'
        "    config.estimator.name = 'halved'\n"
        '    config.estimator.correction = None\n'
        '    config.num_epochs = 1\n'
        '    config.data.num_train = 100\n'
        '    config.diagnostics.every_evals = 0\n'
        '    return config\n'
    )
    workdir = tmp_path / 'run'
    arguments = (f'--config={path}', f'--workdir={workdir}')
    for _ in range(2):  # the second time it has ended
        result = runs.launch('train', *arguments, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    assert json.loads((workdir / 'config.json').read_text())['plugins'] == [str(path)]
    forget()
    result = runs.launch('evaluate', f'--workdir={workdir}', cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_names_are_taken_once(module):
    plugins.load([str(module)])
    plugins._OWN.clear()
    with pytest.raises(ConfigError, match="there is another cost 'cubic'"):
        plugins.load([str(module)])
    with pytest.raises(ValueError, match="there is another solver 'relaxation'"):
        ep.register_solver('relaxation', lambda: None)
    with pytest.raises(ValueError, match='an argument "system"'):
        ep.register_estimator('mine', lambda solve: None)


def test_what_cannot_be_loaded(tmp_path):
    path = tmp_path / 'bad.py'
    path.write_text('1 / 0\n')
    for origin, part in (
        (str(path), 'ZeroDivisionError'),
        ('no_such_module_of_mine', 'ModuleNotFoundError'),
        (str(tmp_path / 'absent.py'), 'FileNotFoundError'),
    ):
        with pytest.raises(ConfigError, match=part):
            runs.experiment({'plugins': (origin,)})
