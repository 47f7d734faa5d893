"""The benchmark counts and compares what it says; its command refuses and records."""

import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import eqprop_jax as ep
from experiments.benchmark import measure, methods, networks, references, report

pytestmark = pytest.mark.whole

ROOT = pathlib.Path(__file__).parents[1]
SIZES = (12, 7, 6, 3)
BATCH = 5


def solver(tol=1e-9):
    return ep.solvers.anderson(tol=tol, max_steps=500)


@pytest.fixture(scope='module')
def network():
    """A small untied network and two batches."""
    system = ep.systems.mlp(SIZES, feedback='free', angle=0.0)
    x = jax.random.uniform(jax.random.key(0), (2, BATCH, 12))
    y = jax.nn.one_hot(jnp.arange(2 * BATCH).reshape(2, BATCH) % 3, 3)
    params = system.init(jax.random.key(1), x[0])
    return networks.Network(
        name='small',
        system=system,
        params=jax.tree.map(lambda w: 0.5 * w, params),
        batches=ep.Batch(x, y),
        settings=networks.Settings(
            published=(30, 4),
            radius=0.1,
            solver=ep.solvers.anderson,
            linear='anderson',
            correction='antisymmetric',
        ),
        plain=networks.Plain(SIZES[1:]),
    )


@pytest.fixture(scope='module')
def found(network):
    return measure.measure(network, methods.methods(network), rounds=3)


def test_every_method_is_measured(found):
    assert tuple(found) == methods.NAMES
    for one in found.values():
        assert len(one.seconds) == 3
        assert min(*one.seconds, one.compile_seconds, one.peak_memory_mib) > 0


def test_gradients_are_right_where_they_should_be(found):
    """At angle 0 the first layers' J is symmetric, so that every method is right."""
    for name, one in found.items():
        parts = (methods.FREE, methods.REAL, methods.COMPLEX)
        if name in (methods.BACKPROP, *parts):
            assert one.cosine is None
        elif name != 'homeostasis':
            assert one.cosine > 0.99, name
    assert found['corrected'].cosine > 1 - 1e-4
    assert found['symmetric'].settled == 1


def dense(network, params, batch, free):
    """δ of every example by a dense solve of (Jᵀ − Λ) δ = g."""
    system, found = network.system, []
    for index in range(BATCH):
        one = jax.tree.map(lambda a, i=index: a[i : i + 1], (batch, free.state))
        (x, y, _), state = one
        flat, back = ravel_pytree(system.rates(state))
        injection = system.inject(params, x)

        def drive(s, injection=injection, back=back):
            return ravel_pytree(system.drive(params, injection, back(s)))[0]

        def cost(s, y=y, back=back):
            return system.cost(params, back(s), y)[0]

        J, g = jax.jacobian(drive)(flat), jax.grad(cost)(flat)
        slopes = jax.grad(lambda u: jnp.sum(ravel_pytree(system.rates(u))[0]))(state)
        matrix = J.T - jnp.diag(1 / ravel_pytree(slopes)[0])
        found.append(back(jnp.linalg.solve(matrix, g)))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *found)


def test_the_error_of_the_worst_layer(network, found):
    """Of δ of the response, against dense solves."""
    system, params = network.system, network.params
    step = methods.methods(network)['symmetric'].step
    squares = {}
    for index in range(2):
        batch = jax.tree.map(lambda a, i=index: a[i], network.batches)
        free = ep.relax(system, params, batch.x, solver(1e-12))
        exact = dense(network, params, batch, free)
        error = step(params, batch, jax.random.key(0)).error
        for name in exact:
            off = jnp.sum((error[name] - exact[name]) ** 2)
            squares.setdefault(name, []).append((off, jnp.sum(exact[name] ** 2)))
    errors = {
        name: np.sqrt(sum(off for off, _ in pairs) / sum(size for _, size in pairs))
        for name, pairs in squares.items()
    }
    worst = max(errors, key=errors.get)
    assert found['symmetric'].worst_layer == worst
    error = found['symmetric'].worst_layer_error
    np.testing.assert_allclose(error, errors[worst], rtol=0.01)
    assert found['corrected'].worst_layer_error < networks.TIGHT.nudged
    for name in (methods.FREE, methods.BACKPROP):
        assert found[name].worst_layer is found[name].worst_layer_error is None


def test_a_deaf_layer_and_an_unknown_example():
    wanted = {'low': np.full((1, 2, 3), 1e-3), 'top': np.ones((1, 2, 3))}
    made = {'low': np.zeros((1, 2, 3)), 'top': np.ones((1, 2, 3))}
    made['top'][0, 1] = np.inf
    exact = references.Exact({}, wanted, np.array([[True, False]]))
    assert measure.worst_layer(made, exact) == ('low', 1.0)


def test_only_right_gradients_are_compared_with_backprop(found):
    one = found['corrected']._replace(worst_layer='layer_1')
    wrong = one._replace(worst_layer_error=1.01 * report.RIGHT)
    right = one._replace(worst_layer_error=0.99 * report.RIGHT)
    backprop = found[methods.BACKPROP]
    rows = report.rows(
        'mlp/5', {'right': right, 'wrong': wrong, methods.BACKPROP: backprop}, 1e9
    )
    ratios = [row['ratio_to_backprop'] for row in rows]
    assert ratios[0] > 0
    assert ratios[1] is None
    assert ratios[2] == 1


def test_evaluations_and_operations_of_a_fixed_schedule(network, found):
    """30 free and twice 4 nudged sweeps, and D at the free equilibrium between them."""
    one = found[methods.PUBLISHED]
    assert one.field_evaluations == 30 + 1 + 2 * 4
    inputs, first, second, classes = SIZES
    drive = 2 * BATCH * 2 * first * second
    inject = 2 * BATCH * inputs * first
    rule = inject  # its transpose in the weights, and no gradient of the images
    credit = inject + drive + drive  # both evaluated, and transposed in the weights
    readout = 3 * 2 * BATCH * second * classes
    at_rest = inject  # traced for the state of rest
    total = inject + at_rest + rule + credit + readout
    # the transpose of the readout in the rates is not taken
    total -= 2 * BATCH * second * classes
    assert one.flops == total + 39 * drive


def test_backprop_is_that_of_the_same_sizes(found):
    """Forward, and back to weights everywhere and to units above the first layer."""
    inputs, first, second, classes = SIZES
    above = first * second + second * classes
    wanted = 2 * BATCH * (2 * inputs * first + 3 * above)
    assert found[methods.BACKPROP].flops == wanted


def test_complex_sweeps_count_twice(network):
    method = methods.methods(network)['circle, 4 points']
    assert method.phases == (1, 1, 2)
    info = ep.types.Info(
        residual=jnp.zeros((2, 3, BATCH)),
        num_steps=jnp.full((2, 3, BATCH), 6),
        converged=jnp.ones(2),
        skipped=jnp.zeros(2),
        kept=jnp.ones((2, BATCH), bool),
    )
    work = methods.Work({}, info=info)
    assert measure.evaluations(method, work) == (0, 1 + 6 + 6 + 2 * 6)


def test_sweeps_alone(found):
    count = methods.SWEEPS
    assert found[methods.REAL].field_evaluations == count
    assert found[methods.COMPLEX].field_evaluations == 2 * count


def test_rows_of_several_devices_are_counted_apart(network):
    """Each gathers what is left of its own share of a batch."""
    method = methods.methods(network)['symmetric']._replace(devices=2, compacts=False)
    num_steps = jnp.array([[[3, 1, 1, 1, 2, 2], [2, 2, 2, 4, 4, 4]]])
    others = jnp.ones(1), jnp.zeros(1), jnp.ones((1, 6), bool)
    info = ep.types.Info(num_steps, num_steps, *others)
    # anchored once; shares of three examples: 3 and 2 sweeps, then 2 and 4
    wanted = 1 + (3 + 2) / 2 + (2 + 4) / 2
    found = measure.evaluations(method, methods.Work({}, info=info))
    assert found == (0, wanted)


def test_an_epoch_learns(network):
    x, y, _ = network.batches
    batches = ep.Batch(x.at[..., :3].add(4 * y), y)  # the class can be seen
    many = jax.tree.map(
        lambda a: jnp.tile(a, (60, *(1,) * (a.ndim - 1))), (batches.x, batches.y)
    )
    params = references.trained(network, ep.Batch(*many), learning_rate=0.1)

    def cost(params):
        free = ep.relax(network.system, params, batches.x[0], solver())
        costs = network.system.cost(params, free.rates, batches.y[0])
        return float(jnp.mean(costs))

    assert cost(params) < 0.05 * cost(network.params)


def test_digits_stand_in_for_what_is_not_prepared(monkeypatch):
    def load(name):
        if name != 'digits':
            raise ep.data.NotPreparedError(name)
        return ep.data.load(name)

    monkeypatch.setattr(networks, 'load', load)
    assert networks.prepared('cifar10').name == 'digits'
    images, labels = networks.pictures('cifar10', (32, 32, 3), 'unit')
    assert images.shape[1:] == (32, 32, 3)
    digits = ep.data.load('digits')
    np.testing.assert_allclose(
        images[0, ::4, ::4, 1], digits.train.images[0, :, :, 0] / digits.scale
    )
    framed, _ = networks.pictures('fashion_mnist', (28, 28, 1), 'unit')
    assert framed.shape[1:] == (28, 28, 1)
    assert not framed[:, :2].any()
    np.testing.assert_array_equal(labels.argmax(1), digits.train.labels)


def run(*args):
    command = [sys.executable, str(ROOT / 'launch' / 'benchmark.py'), *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_the_command_records_and_compares(tmp_path):
    file = tmp_path / 'rows.json'
    wanted = '--filter=mlp 90°/50/backprop'
    first = run(wanted, '--devices=1', '--rounds=2', f'--json={file}')
    assert first.returncode == 0, first.stderr
    data = json.loads(file.read_text())
    (row,) = data['rows']
    assert row['network'] == 'mlp 90°'
    assert row['batch'] == 50
    assert row['ratio_to_backprop'] == 1
    assert row['worst_layer'] is row['worst_layer_error'] is None
    assert row['speedup_over_published_schedule'] is None
    assert data['run']['data']['cifar10'] in ('cifar10', 'digits')
    second = run(wanted, '--devices=1', '--rounds=1', f'--compare={file}')
    assert second.returncode == 0, second.stderr
    assert 'times faster than on' in second.stdout


def test_two_devices_come_to_the_same_gradients(tmp_path):
    file = tmp_path / 'rows.json'
    args = ('--filter=mlp 90°/50/tangent', '--devices=2', '--rounds=1')
    result = run(*args, f'--json={file}')
    assert result.returncode == 0, result.stderr
    rows = {row['method']: row for row in json.loads(file.read_text())['rows']}
    for name in ('tangent', 'tangent, loose'):
        whole, parts = rows[name], rows[f'{name}, 2 devices']
        assert abs(whole['cosine_to_rbp'] - parts['cosine_to_rbp']) < 1e-5
        assert whole['settled'] == parts['settled']
        assert whole['worst_layer'] == parts['worst_layer']
        error = parts['worst_layer_error']
        assert whole['worst_layer_error'] == pytest.approx(error, rel=1e-3)


@pytest.mark.parametrize('given', ['MLP 90', 'mlp 90°', 'mlp90°', 'Mlp  90 / 50'])
def test_a_filter_may_be_written_as_people_write(given):
    assert report.words(given) in report.words('mlp 90°/50/backprop')
    assert report.words(given) not in report.words('conv 0°/8/backprop')


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (
            ['--filter=transformer'],
            '--filter=transformer matches nothing; there are mlp',
        ),
        (['--compare=absent.json'], '--compare=absent.json: '),
        (['--devices=3'], '--devices=3 does not divide a batch of 50'),
        (['--json=absent/rows.json'], 'there is no folder absent for --json'),
    ],
)
def test_the_command_refuses(args, message):
    result = run(*args)
    assert result.returncode == 1
    assert message in result.stderr
    assert 'Traceback' not in result.stderr
