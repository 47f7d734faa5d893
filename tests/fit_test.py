"""Runs from Python: the loop of the commands, without a configuration."""

import functools
import json
import os
import signal
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import runs

import eqprop_jax as ep
from eqprop_jax import records
from eqprop_jax.figures.live import live
from eqprop_jax.training import callbacks, optimizers

SIZES = (64, 16, 10)


def parts():
    system = ep.systems.mlp(SIZES, feedback='free')
    solve = ep.solvers.relaxation(tol=1e-3, max_steps=50)
    contour = ep.nudges.complex_step(1e-3)
    return system, ep.estimators.contour(
        system, solve, contour=contour, correction='antisymmetric'
    )


def digits(num_train=200):
    return ep.data.load('digits', num_train=num_train)


@pytest.mark.whole
def test_it_is_the_run_of_a_configuration(tmp_path):
    """Within rounding: the same order, steps and evaluations."""
    changes = {
        'system.sizes': SIZES,
        'data.normalization': 'standard',
        'data.held_out': 150,
        'data.num_train': 200,
        'solver.max_steps': 100,
        'nudged_solver.max_steps': 50,
        'estimator.radius': 1e-3,
        'estimator.half_step': True,
        'batch_size': 50,
        'log_every_steps': 50,
        'optimizer.schedule': 'cosine',
        'optimizer.clip_norm': 1.0,
    }
    run = runs.experiment(changes)
    wanted = runs.train(run, tmp_path / 'run')
    system, estimate = parts()
    found = ep.fit(system, digits(), estimate, num_epochs=2, progress=False)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-7),
        found.params,
        wanted.params,
    )
    numbers = ('step', 'loss', 'error', 'epoch')
    rows = records.read(tmp_path / 'run')
    for ours, row in zip(found.history, rows, strict=True):
        assert ours['split'] == row['split']
        assert [ours[n] for n in numbers] == pytest.approx([row[n] for n in numbers])


def test_callbacks_see_every_record(tmp_path):
    system, estimate = parts()
    seen = []
    found = ep.fit(
        system,
        digits(100),
        estimate,
        num_epochs=1,
        workdir=tmp_path,
        diagnose=False,
        optimizer=optax.sgd(0.1),
        progress=False,
        callbacks=[lambda step, metrics: seen.append((step, metrics))],
    )
    assert [metrics['split'] for _, metrics in seen] == ['train', 'eval', 'test']
    assert [step for step, _ in seen] == [2, 2, 2]
    for (step, metrics), row in zip(seen, found.history, strict=True):
        assert {'step': step, **metrics} == pytest.approx(row)
    assert json.loads((tmp_path / 'config.json').read_text())['batch_size'] == 50
    again = functools.partial(
        ep.fit,
        system,
        estimate=estimate,
        num_epochs=1,
        workdir=tmp_path,
        diagnose=False,
        progress=False,
        callbacks=[lambda *_: pytest.fail('the run has ended')],
    )
    read = again(digits(100), optimizer=optax.sgd(0.1))
    runs.assert_equal(read.params, found.params)
    assert repr(read).startswith('Fit(test error 0.')
    with pytest.raises(records.WorkdirError, match='data'):
        again(digits(101), optimizer=optax.sgd(0.1))
    with pytest.raises(records.WorkdirError, match='program'):
        again(digits(100), optimizer=optax.sgd(0.2))
    result = runs.launch('evaluate', f'--workdir={tmp_path}', cwd=tmp_path)
    assert result.returncode == 1
    assert 'made by eqprop_jax.fit' in result.stderr
    assert result.stderr.count('\n') == 1


@pytest.mark.whole
def test_a_regression():
    random = np.random.RandomState(0)
    x = random.normal(size=(300, 5))
    y = np.tanh(x @ random.normal(size=(5, 2)))
    system = ep.systems.mlp(
        (5, 10, 2), activation=('tanh', 'identity'), cost='squared_error'
    )
    solve = ep.solvers.relaxation(tol=1e-3)
    estimate = ep.estimators.contour(system, solve, contour=ep.nudges.symmetric(0.1))
    found = ep.fit(
        system,
        ep.data.from_arrays((x, y)),
        estimate,
        num_epochs=40,
        diagnose=False,
        progress=False,
        optimizer=optax.adam(1e-2),
    )
    errors = [row['error'] for row in found.history if row['split'] == 'test']
    assert errors[-1] < 0.2 < errors[0]


@pytest.mark.parametrize(
    ('options', 'part'),
    [
        ({'num_epochs': 0}, 'num_epochs has to be an integer, positive and below'),
        ({'batch_size': 2.5}, 'batch_size has to be an integer, positive .* not 2.5'),
        ({'seed': 2**31}, 'seed has to be an integer, not negative and below 2'),
        ({'penalty_weight': 5.0}, '1 without a penalty, not 5.0'),
        ({'penalty_weight': float('nan')}, 'has to be finite, .* not nan'),
        ({'batch_size': 101}, 'more than the 100 training examples'),
        ({'normalization': 'none'}, "no normalization 'none'"),
    ],
)
def test_refusals(options, part):
    system, estimate = parts()
    with pytest.raises(ValueError, match=part):
        ep.fit(system, digits(100), estimate, **options)


@pytest.mark.whole
def test_a_workdir_belongs_to_one_start(tmp_path):
    """Steps may be the same where initial parameters or the optimizer's are not."""
    solve, data = ep.solvers.relaxation(tol=1e-3), digits(100)

    def fit(angle=90.0, rate=1e-2, weight=1.0):
        system = ep.systems.mlp(
            SIZES, feedback='free', angle=angle, cost='squared_error'
        )
        estimate = ep.estimators.recurrent_backprop(system)
        return ep.fit(
            system,
            data,
            estimate,
            solve=solve,
            optimizer=optax.inject_hyperparams(optax.sgd)(learning_rate=rate),
            penalty=ep.homeostasis.penalty(system, num_probes=1),
            penalty_weight=weight,
            num_epochs=1,
            diagnose=False,
            progress=False,
            workdir=tmp_path,
        )

    first = fit()
    runs.assert_equal(fit().state, first.state)
    for other in ({'angle': 30.0}, {'rate': 1e-3}, {'weight': 3.0}):
        with pytest.raises(records.WorkdirError, match='program is '):
            fit(**other)


@pytest.mark.whole
def test_predictions_are_of_raw_inputs():
    system, estimate = parts()
    data = digits()
    found = ep.fit(system, data, estimate, num_epochs=3, diagnose=False, progress=False)
    last = [row for row in found.history if row['split'] == 'test'][-1]
    for images in (data.test.images, data.test.images[..., 0].astype(float)):
        wrong = found.predict(images).argmax(axis=1) != data.test.labels
        assert float(wrong.mean()) == pytest.approx(last['error'])
    with pytest.raises(ValueError, match='inputs have shape'):
        found.predict(data.test.images.reshape(-1, 64))


def test_what_is_interrupted_without_a_workdir_promises_nothing():
    system, estimate = parts()

    def leave(step, metrics):
        if (step, metrics['split']) == (2, 'train'):
            os.kill(os.getpid(), signal.SIGINT)

    options = {'num_epochs': 9, 'diagnose': False, 'progress': False}
    with pytest.raises(KeyboardInterrupt, match='nothing of a run is kept'):
        ep.fit(system, digits(100), estimate, callbacks=[leave], **options)


def test_parts_of_other_systems_and_classes_without_classes():
    system, estimate = parts()
    with pytest.raises(ValueError, match='built of another system'):
        ep.fit(parts()[0], digits(100), estimate)
    x = np.ones((60, 4)) * np.arange(60)[:, None]
    soft = ep.data.from_arrays((x, np.eye(3)[np.arange(60) % 3]))
    system = ep.systems.mlp((4, 5, 3))
    solve = ep.solvers.relaxation()
    estimate = ep.estimators.contour(system, solve, contour=ep.nudges.symmetric(0.1))
    with pytest.raises(ValueError, match='no classes'):
        ep.fit(system, soft, estimate, batch_size=10)
    with pytest.raises(TypeError, match='from_arrays'):
        ep.fit(system, (x, x), estimate)


def test_a_system_of_other_classes():
    system = ep.systems.mlp((64, 8, 3))
    estimate = ep.estimators.recurrent_backprop(system)
    with pytest.raises(ValueError, match="scores 3 classes but 'digits' has 10"):
        ep.fit(system, digits(100), estimate)


def test_weights_and_biases():
    logged = []
    run = types.SimpleNamespace(log=lambda values, step: logged.append((step, values)))
    log = callbacks.wandb(run)
    log(7, {'split': 'eval', 'epoch': 0.5, 'loss': 2.0, 'error/layer_1': 0.1})
    assert logged == [(7, {'epoch': 0.5, 'eval/loss': 2.0, 'eval/error/layer_1': 0.1})]


def test_live_curves(monkeypatch):
    shown = []

    class Handle:
        update = shown.append

    def display(figure, display_id):
        shown.append(figure)
        return Handle

    monkeypatch.setattr('IPython.display.display', display)
    draw = live(every=1e9)
    for step in (1, 2):
        for split in ('train', 'eval'):
            draw(step, {'split': split, 'epoch': step, 'error': 0.1, 'residual': 1e-3})
    assert len(shown) == 3  # the first record, and two evaluations
    (line, *_) = shown[-1].axes[0].lines
    np.testing.assert_array_equal(line.get_xdata(), [1, 2])


def test_hyperparameters_are_in_tensorboard(tmp_path):
    from tensorboardX.proto import event_pb2
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    config = {'seed': 3, 'system': {'sizes': (3, 2), 'angle': None}, 'rate': 0.5}
    with records.Writer(tmp_path, config=config):
        pass
    (path,) = (tmp_path / 'tensorboard').iterdir()
    data, start, found = path.read_bytes(), 0, {}
    while start < len(data):
        size = int.from_bytes(data[start : start + 8], 'little')
        event = event_pb2.Event.FromString(data[start + 12 : start + 12 + size])
        start += size + 16
        for value in event.summary.value:
            content = HParamsPluginData.FromString(value.metadata.plugin_data.content)
            for name, one in content.session_start_info.hparams.items():
                found[name] = one
    assert found['seed'].number_value == 3
    assert found['rate'].number_value == 0.5
    assert found['system.sizes'].string_value == '[3, 2]'


def test_the_optimizer_by_default_is_that_of_the_commands():
    """Adam, of which the rate falls to 0 and the gradient is clipped."""
    optimizer = optimizers.make(
        'adam', learning_rate=1e-3, schedule='cosine', clip_norm=1.0, num_steps=10
    )
    params = {'w': jnp.ones(3)}
    state = optimizer.init(params)
    grads = {'w': 100 * jnp.ones(3)}
    for _ in range(10):
        updates, state = optimizer.update(grads, state, params)
    assert float(jnp.max(jnp.abs(jax.tree.leaves(updates)[0]))) < 1e-4
