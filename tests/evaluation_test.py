"""Evaluation against NumPy, example by example; launch/evaluate.py as users run it."""

import json
import math
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs
from tally import SIZE, tally

import eqprop_jax as ep
from eqprop_jax import _evaluation as evaluation
from eqprop_jax import config, solvers
from eqprop_jax._evaluation import Examples
from eqprop_jax.data import Split
from eqprop_jax.training import init_state, metrics

ROOT = pathlib.Path(__file__).parents[1]
TOL, MAX_STEPS = 1e-5, 9  # some settle, some do not


def settle(params, x):
    """Returns the upper rates, the residual and the sweeps of an untied network.

    Each layer is set to its drive in turn, the first layer first.
    """

    def rate(u):
        return 1 / (1 + np.exp(2 - 4 * u))

    def drives(first, second):
        one, two = params['layer_1'], params['layer_2']
        below = x @ one['kernel'] + one['bias'] + rate(second) @ one['feedback']
        return below, rate(first) @ two['kernel'] + two['bias']

    first, second = np.zeros(16), np.zeros(16)
    residual, steps, last, before = np.inf, 0, 0.0, np.inf
    while residual > TOL and steps < MAX_STEPS:
        old = first, second
        first = drives(first, second)[0]
        second = drives(first, second)[1]
        moves = [
            np.linalg.norm(u - v) / np.linalg.norm(u)
            for u, v in zip((first, second), old, strict=True)
        ]
        residual = 1.0  # one sweep tells no rate
        if steps:
            ratio = max(max(moves) / last, np.sqrt(max(moves) / before))
            left = max(1, ratio / (1 - ratio)) if ratio < 1 else np.inf
            sizes = np.array([np.linalg.norm(first), np.linalg.norm(second)])
            beside = np.linalg.norm(sizes) / np.sqrt(2)
            small = np.maximum(1, left * np.array(moves)) * sizes / beside
            residual = np.max(np.minimum(left * np.array(moves), small))
        last, before = max(moves), last or np.inf
        steps += 1
    return rate(second), residual, steps


@pytest.fixture(scope='module')
def double():
    """A run in float64, its parameters and 23 of its test examples."""
    experiment = runs.experiment({'solver.tol': TOL, 'solver.max_steps': MAX_STEPS})
    experiment = experiment._replace(
        preprocess=lambda images: images.astype(jnp.float64) / 16
    )
    params = jax.tree.map(lambda p: 1.2 * p, init_state(experiment).params)
    test = experiment.dataset.test
    return experiment, params, Split(test.images[:23], test.labels[:23])


def test_one_example_at_a_time(double):
    experiment, params, split = double
    found = evaluation.evaluate(experiment, params, split, batch_size=5)
    weights = jax.device_get(params)
    assert found.loss.dtype == np.float64
    for index, (image, label) in enumerate(zip(*split, strict=True)):
        top, residual, steps = settle(weights, image.reshape(-1) / 16)
        scores = top @ weights['readout']['kernel'] + weights['readout']['bias']
        loss = np.log(np.sum(np.exp(scores))) - scores[label]
        order = sorted(range(10), key=lambda number: -scores[number])
        assert found.label[index] == label
        assert found.loss[index] == pytest.approx(loss, rel=1e-10)
        assert found.rank[index] == order.index(label)
        assert found.residual[index] == pytest.approx(residual, rel=1e-6)
        assert found.num_steps[index] == steps
        assert found.converged[index] == (residual <= TOL)
    assert 0 < np.mean(found.converged) < 1


@pytest.mark.parametrize('batch_size', [1, 23, 1000])
def test_results_do_not_depend_on_the_batch_size(double, batch_size):
    experiment, params, split = double
    wanted = evaluation.evaluate(experiment, params, split, batch_size=7)
    found = evaluation.evaluate(experiment, params, split, batch_size=batch_size)
    for name in ('label', 'rank', 'num_steps', 'converged'):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    np.testing.assert_allclose(found.loss, wanted.loss, rtol=1e-12)
    np.testing.assert_allclose(found.residual, wanted.residual, rtol=1e-8)


@pytest.mark.parametrize('batch_size', [4, 5, SIZE - 1])
def test_every_example_counts_once(batch_size):
    """The loss of example i is i."""
    experiment = tally()
    params = init_state(experiment).params
    split = experiment.dataset.test
    found = evaluation.evaluate(experiment, params, split, batch_size=batch_size)
    np.testing.assert_array_equal(found.loss, np.arange(SIZE))
    summary = evaluation.summarize(found, 2)
    assert summary.num_examples == SIZE
    assert summary.loss == (SIZE - 1) / 2


def test_another_solver(double):
    experiment, params, split = double
    solve = solvers.anderson(tol=1e-9, max_steps=100)
    found = evaluation.evaluate(experiment, params, split, solve)
    assert found.converged.all()
    assert found.residual.max() <= 1e-9


def test_what_cannot_be_evaluated(double):
    experiment, params, split = double
    nothing = Split(split.images[:0], split.labels[:0])
    with pytest.raises(ValueError, match='without examples'):
        evaluation.evaluate(experiment, params, nothing)
    with pytest.raises(ValueError, match='batch_size has to be a positive'):
        evaluation.evaluate(experiment, params, split, batch_size=0)


SCORES = np.array(
    [
        [9.0, 8, 7, 6, 5, 4, 3],  # the first
        [9.0, 8, 7, 6, 5, 4, 3],  # the fifth
        [9.0, 8, 7, 6, 5, 4, 3],  # the sixth
        [1.0, 1, 1, 1, 1, 1, 1],  # all the same: the third of them
        [0.0, 0, 0, 0, 0, 0, -np.inf],  # the last
        [np.nan, 0, 0, 5, 0, 0, 0],  # NaN is taken for the largest
        [0.0, 0, np.nan, 0, 0, 0, 0],
    ]
)
LABELS = np.array([0, 4, 5, 2, 6, 3, 2])
RANKS = [0, 4, 5, 2, 6, 1, 7]


def test_ranks_and_top_5():
    ranks = metrics.ranks(jnp.asarray(SCORES), jnp.asarray(LABELS))
    np.testing.assert_array_equal(ranks, RANKS)
    summary = evaluation.summarize(numbers(LABELS, RANKS), 7)
    assert summary.error == pytest.approx(6 / 7)
    assert summary.top_5_error == pytest.approx(3 / 7)
    assert summary.class_errors == (0, None, 1, 1, 1, 1, 1)
    few = evaluation.summarize(numbers([0, 1, 1], [0, 4, 0]), 5)
    assert few.top_5_error is None
    assert few.class_errors == (0, 0.5, None, None, None)
    assert few.standard_error == pytest.approx(math.sqrt(2 / 27))


def test_percentiles():
    """Of 200 examples, two may lie above the 99th; NaN is the largest."""
    steps = np.random.RandomState(0).permutation(200) + 1
    found = numbers(np.zeros(200, int), np.zeros(200, int))
    summary = evaluation.summarize(
        found._replace(num_steps=steps, residual=1.0 / steps), 2
    )
    assert (summary.free_steps_99, summary.max_free_steps) == (198, 200)
    assert summary.free_steps == 100.5
    assert summary.median_residual == 1 / 101
    assert summary.residual_99 == 1 / 3
    assert summary.max_residual == 1
    residual = np.where(steps == 7, np.nan, 1.0)
    summary = evaluation.summarize(found._replace(residual=residual), 2)
    assert summary.residual_99 == 1
    assert math.isnan(summary.max_residual)


def numbers(labels, ranks):
    """Returns examples with these labels and ranks."""
    zeros = np.zeros(len(labels))
    return Examples(
        label=np.asarray(labels),
        loss=zeros,
        error=(np.asarray(ranks) > 0).astype(float),
        rank=np.asarray(ranks),
        residual=zeros,
        num_steps=zeros.astype(int),
        converged=zeros == 0,
    )


class TestSolver:
    def test_values_are_replaced_by_name(self):
        experiment = runs.experiment({'solver.step_size': 0.5})
        own = experiment.config['solver']
        assert config.other_solver(experiment)[0] == own
        section, _ = config.other_solver(experiment, tol=1e-5)
        assert section == own | {'tol': 1e-5}
        section, _ = config.other_solver(experiment, name='anderson', max_steps=7)
        assert section == own | {'name': 'anderson', 'max_steps': 7}

    def test_a_fixed_number_of_sweeps(self, double):
        experiment, params, split = double
        section, solve = config.other_solver(experiment, name='unrolled', max_steps=3)
        assert section == {'name': 'unrolled', 'tol': TOL, 'num_steps': 3}
        found = evaluation.evaluate(experiment, params, split, solve)
        assert set(found.num_steps) == {3}
        section, _ = config.other_solver(experiment, name='unrolled')
        assert section['num_steps'] == MAX_STEPS
        values = {'name': 'unrolled', 'num_steps': 30}
        unrolled = runs.experiment({'solver': values})
        section, _ = config.other_solver(unrolled, name='relaxation', tol=1e-2)
        assert section == {'name': 'relaxation', 'max_steps': 30, 'tol': 1e-2}

    @pytest.mark.parametrize(
        ('changes', 'part'),
        [
            ({'name': 'magic'}, 'choose from relaxation, aitken, anderson, unrolled'),
            ({'tol': 0.0}, 'tol has to be positive'),
            ({'tol': float('nan')}, 'tol has to be finite'),
            ({'max_steps': 0}, 'max_steps has to be a positive integer'),
        ],
    )
    def test_mistakes(self, double, changes, part):
        with pytest.raises(config.ConfigError, match=part):
            config.other_solver(double[0], **changes)


def launch(workdir, *arguments):
    cache = f'--compilation_cache={ROOT / ".cache" / "jax"}'
    return runs.launch('evaluate', f'--workdir={workdir}', cache, *arguments)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """The workdir of a run that has ended."""
    workdir = tmp_path_factory.mktemp('run')
    runs.train(runs.experiment({'data.held_out': 0}), workdir)
    return workdir


@pytest.fixture(scope='module')
def own(trained, tmp_path_factory):
    """What is found by the run's own solver, and what is printed."""
    return written(trained, tmp_path_factory.mktemp('own'), '--batch_size=70')


def written(workdir, folder, *arguments):
    result = launch(workdir, f'--json={folder / "found.json"}', *arguments)
    assert result.returncode == 0, result.stderr[-500:]
    return json.loads((folder / 'found.json').read_text()), result.stdout


def test_it_finds_what_the_run_recorded(trained, own):
    data, printed = own
    summary = json.loads((trained / 'summary.json').read_text())
    recorded, found = summary['last']['test'], data['found']
    assert data['recorded'] == recorded
    assert data['step'] == summary['last']['step'] == 10
    assert found['num_examples'] == 300
    assert found['error'] == pytest.approx(recorded['error'], abs=1e-6)
    assert found['loss'] == pytest.approx(recorded['loss'], rel=1e-5)
    assert found['free_steps'] == pytest.approx(recorded['free_steps'], rel=1e-5)
    assert found['max_residual'] == pytest.approx(recorded['max_residual'], rel=1e-3)
    assert np.mean(found['class_errors']) == pytest.approx(found['error'], abs=0.02)
    line = next(line for line in printed.splitlines() if line.startswith('error'))
    error, spread = 100 * found['error'], 100 * found['standard_error']
    assert line.split()[2:] == [f'{error:.2f}', '±', f'{spread:.2f}', f'{error:.2f}']
    assert f'{100 * found["top_5_error"]:.2f}' in printed
    assert '300 examples (test) after step 10 of 10' in printed


@pytest.mark.whole
def test_a_tighter_solver_on_another_split(trained, own, tmp_path):
    flags = ('--solver=anderson', '--tol=1e-5', '--max_steps=100')
    data, printed = written(trained, tmp_path, '--split=train', *flags)
    assert data['solver'] == {'name': 'anderson', 'tol': 1e-5, 'max_steps': 100}
    assert data['found']['num_examples'] == 110
    assert data['found']['max_residual'] <= 1e-5 < own[0]['found']['median_residual']
    assert data['found']['converged'] == 1
    assert data['recorded'] is None
    assert 'summary.json' not in printed


@pytest.mark.parametrize(
    ('arguments', 'part'),
    [
        (['--solver=magic'], "solver.name='magic': choose from relaxation, aitken"),
        (['--tol=-1'], 'tol has to be positive, not -1.0'),
        (['--split=all'], 'choose from test, eval, train'),
        (['--split=eval'], 'has no held-out examples'),
        (['--batch_size=0'], '--batch_size has to be a positive integer'),
        (['--json=absent/found.json'], 'there is no folder absent'),
    ],
)
def test_mistakes(trained, arguments, part):
    refused(launch(trained, *arguments), part)


def test_what_is_no_finished_run(trained, tmp_path):
    refused(launch(tmp_path / 'absent'), 'is not the workdir of a run')
    config = (trained / 'config.json').read_text()
    (tmp_path / 'config.json').write_text(config)
    refused(launch(tmp_path), 'has no checkpoint')


def test_data_that_were_replaced_are_told(trained, tmp_path, caplog):
    shutil.copytree(trained, tmp_path / 'run')
    config.restored(tmp_path / 'run')
    assert 'other data' not in caplog.text
    path = tmp_path / 'run' / 'config.json'
    found = json.loads(path.read_text())
    found['rests_on'] = {'data_sha256': '0' * 16, 'jax_enable_x64': 'another'}
    path.write_text(json.dumps(found))
    config.restored(tmp_path / 'run')
    assert f'{tmp_path}/run was trained on other data than these' in caplog.text


def refused(result, part):
    """Asserts that a command ended with one line that has this part."""
    assert result.returncode == 1
    assert result.stderr.startswith('evaluate: ')
    assert part in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ''


def test_a_score_that_is_no_number_recognizes_nothing():
    """While a run trains as afterwards."""
    scores = jnp.array([[jnp.nan, 0.1, 0.2], [0.3, 0.1, 0.2]])
    system = tally().system._replace(predict=lambda params, rates: scores)
    free = ep.types.Equilibrium(
        *({'unit': jnp.zeros((2, 1))},) * 2, *(jnp.zeros(2),) * 2, jnp.ones(2, bool)
    )
    batch = ep.Batch(jnp.zeros((2, 1)), jnp.eye(3)[jnp.array([0, 0])])
    values, _ = metrics.of_equilibrium(system, {}, batch, free)
    np.testing.assert_array_equal(values['error'], [1, 0])
