"""A run on several devices is the run on one."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs

from eqprop_jax import records, training
from eqprop_jax.config import ConfigError
from eqprop_jax.data import Split
from eqprop_jax.training import mesh, programs
from eqprop_jax.training.state import init_state

pytestmark = pytest.mark.whole

MESHES = [(8, 1), (1, 2), (4, 2), (3, 1), (2, 3)]
CIRCLE = {  # of 3 phases: r, ir, −r; Adam would divide rounding by rounding
    'estimator.num_points': 4,
    'estimator.radius': 0.2,
    'optimizer.name': 'sgd',
    'optimizer.learning_rate': 0.1,
}


def on(data, contour, changes=None):
    """Returns the run on so many devices."""
    devices = {'mesh.data': data, 'mesh.contour': contour}
    return runs.experiment({**CIRCLE, **(changes or {}), **devices})


def after_steps(experiment, num_steps=4):
    """Returns the state after some steps, and the chunk."""
    split = mesh.place(experiment.dataset.train, experiment.mesh)
    chunk = programs.make_train_chunk(experiment)
    state = init_state(experiment)
    return jax.device_get(chunk(state, split, *map(jnp.int32, (1, 0, num_steps))))


@functools.cache
def on_one_device(name=None):
    """Returns the same of a run on one device, with some of CHANGES."""
    return after_steps(on(1, 1, CHANGES.get(name)))


def assert_close(actual, wanted, rtol=2e-3):
    """Runs are in single precision, whose rounding real nudges divide by β.

    Residuals are relative to the longest response to the nudges that a device has.
    """
    if isinstance(actual, programs.Chunk):
        own, other = (
            chunk.metrics['max_nudged_residual'] for chunk in (actual, wanted)
        )
        np.testing.assert_allclose(own, other, rtol=0.1)
        metrics = actual.metrics | {'max_nudged_residual': other}
        actual = actual._replace(metrics=metrics)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=3e-6),
        actual,
        wanted,
    )


@pytest.mark.parametrize(('data', 'contour'), MESHES)
def test_training_steps_are_those_of_one_device(data, contour):
    state, chunk = after_steps(on(data, contour))
    wanted_state, wanted_chunk = on_one_device()
    assert_close(state, wanted_state)
    assert_close(chunk, wanted_chunk)


CHANGES = {
    'skipped': {'estimator.skip_unconverged': True, 'solver.max_steps': 9},
    'homeostasis': {'homeostasis.weight': 0.1, 'homeostasis.fraction': 0.5},
    'contrastive': {'estimator.name': 'contrastive', 'system.feedback': 'tied'},
    'augmented': {'data.augment.pad': 1, 'data.augment.padding': 'edge'},
    'random_sign': {'estimator.contour': 'random_sign'},
    'online': {
        'estimator.name': 'oscillation',
        'estimator.steps_per_point': 5,
        'estimator.periods': 1,
        'estimator.noise': 0.01,
    },
    'bptt': {'estimator.name': 'bptt', 'estimator.num_steps': 3},
    'recurrent_backprop': {'estimator.name': 'recurrent_backprop'},
    'dropout': {
        'system': {
            'name': 'conv',
            'image_shape': (8, 8, 1),
            'classes': 10,
            'channels': (4, 4),
            'hidden': (),
            'feedback': 'free',
            'dropout': 0.5,
        }
    },
}
for name in ('contrastive', 'recurrent_backprop', 'random_sign'):
    CHANGES[name]['estimator.correction'] = None


@pytest.mark.parametrize('name', CHANGES)
def test_whatever_is_trained(name):
    """On three devices, which do not divide the batch of 20, and on twice as many."""
    contour = 2 if name in ('skipped', 'contrastive', 'dropout', 'augmented') else 1
    found = after_steps(on(3, contour, CHANGES[name]))
    wanted = on_one_device(name)
    assert_close(found[0].params, wanted[0].params)
    assert_close(found[1], wanted[1])
    if name == 'skipped':
        assert 0 < wanted[1].metrics['skipped'] < 1


@pytest.mark.parametrize(
    ('name', 'devices'), list(zip(CHANGES, [1, 3] * 5, strict=False))
)
def test_a_batch_in_turns_is_the_batch(name, devices):
    """Of 20 examples, by 3 turns: on one device 7, 7 and 6, and on three two to 3."""
    turns = {'accumulation_steps': 3}
    found, wanted = (
        after_steps(on(devices, 1, CHANGES[name] | turns)),
        on_one_device(name),
    )
    assert_close(found[0].params, wanted[0].params)
    assert_close(found[1], wanted[1])


def test_an_example_that_runs_away_is_left_out_on_whatever_device():
    """Of the penalty's mean, as of the gradient's; a device may have no other."""
    changes = {
        'system': {
            'name': 'predictive_coding',
            'sizes': (64, 16, 16, 10),
            'feedback': 'free',
        },
        'nudged_solver.step_size': 0.5,
        'nudged_solver.max_steps': 300,
        'estimator.correction': None,
        'estimator.skip_unconverged': True,
        'homeostasis.weight': 0.1,
    }
    found = []
    for devices in ((8, 1), (1, 1)):
        run = on(*devices, changes)

        def solve(field, state, run=run):
            found = run.solve(field, state)
            lost = jnp.sin(100 * found.state['value_1'][:, 0]) > 0
            rates = jax.tree.map(
                lambda s: jnp.where(lost[:, None], jnp.nan, s), found.rates
            )
            return found._replace(rates=rates, converged=found.converged & ~lost)

        found.append(after_steps(run._replace(solve=solve)))
    (state, chunk), (wanted_state, wanted_chunk) = found
    assert 0.3 < wanted_chunk.metrics['skipped'] < 0.8
    assert wanted_chunk.num_steps == 4
    assert_close(state.params, wanted_state.params)
    for name in ('homeostasis', 'skipped'):
        assert_close(chunk.metrics[name], wanted_chunk.metrics[name])


@pytest.mark.parametrize('data', [3, 8])
@pytest.mark.parametrize('batch_size', [7, 500])
def test_every_example_counts_once(data, batch_size):
    whole, divided = on(1, 1), on(data, 1)
    found = [
        programs.make_evaluate(run, batch_size)(
            init_state(run).params, mesh.place(run.dataset.test, run.mesh)
        )
        for run in (whole, divided)
    ]
    assert_close(*map(jax.device_get, found))


def test_a_whole_run(tmp_path):
    """Records, summary and state; more devices than examples in the last part."""
    changes = {'batch_size': 30, 'diagnostics.every_evals': 1}
    folders = []
    for data, contour in ((1, 1), (4, 2)):
        folders.append(tmp_path / f'{data}x{contour}')
        runs.train(on(data, contour, changes), folders[-1])
    one, many = (records.read(folder) for folder in folders)
    assert len(one) == len(many)
    for a, b in zip(one, many, strict=True):
        for record in (a, b):
            record.pop('examples_per_second', None)
        assert a.keys() == b.keys()
        for name in a.keys() - {'split'}:
            rtol = 0.1 if name == 'max_nudged_residual' else 1e-3
            np.testing.assert_allclose(a[name], b[name], rtol=rtol, atol=1e-6)
    summary = json.loads((folders[1] / records.SUMMARY).read_text())
    assert summary['hardware'].startswith('8 x ')


def test_it_goes_on_from_other_devices(tmp_path):
    """Eight of them, four by two, and one."""

    class StopError(Exception):
        pass

    def stopped(run, count):
        write, left = records.Writer.write, [count]

        def counted(self, *args):
            left[0] -= 1
            if left[0] == 0:
                raise StopError
            write(self, *args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(records.Writer, 'write', counted)
            with pytest.raises(StopError):
                training.train_and_evaluate(
                    run, tmp_path / 'run', progress=False, save_every=0.0
                )

    stopped(on(8, 1), 3)
    stopped(on(4, 2), 4)
    state = runs.train(on(1, 1), tmp_path / 'run')
    wanted = runs.train(on(1, 1), tmp_path / 'whole')
    assert_close(state, wanted)


def test_images_are_divided_and_filled_up():
    images = np.arange(5 * 4).reshape(5, 2, 2, 1).astype(np.uint8)
    split = Split(images, np.arange(5, dtype=np.int32))
    placed = mesh.place(split, mesh.make(4))
    assert [len(part.data) for part in placed.labels.addressable_shards] == [2] * 4
    np.testing.assert_array_equal(placed.labels, [0, 1, 2, 3, 4, -1, -1, -1])
    np.testing.assert_array_equal(placed.images[:5], images)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'mesh.data': 9}, 'data=9 and contour=1 need 9 devices, but there are 8'),
        ({'mesh.data': 0}, 'data has to be a positive integer'),
        ({'mesh.contour': 16}, 'contour=16, but there are 8 devices'),
        ({'mesh.contour': 3, 'estimator.num_points': 2}, 'more than the 2 phases'),
        (
            {'mesh.contour': 2, 'estimator.name': 'recurrent_backprop'},
            "'recurrent_backprop' has none of",
        ),
        ({'mesh.rows': 2}, 'unknown key mesh.rows'),
        ({'mesh.data': 1.5}, 'mesh.data has to be an integer or None'),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        runs.experiment(changes)


def test_all_devices_by_default():
    shape = {'runs': 1, 'data': 8, 'contour': 1}
    assert dict(runs.experiment({'mesh': {}}).mesh.shape) == shape
    assert runs.experiment({'mesh': {'contour': 2}}).mesh.shape['data'] == 4
