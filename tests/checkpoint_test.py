"""Checkpoints: the same bits back, or one line that says why not."""

import json
import pathlib
import shutil
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import runs
from etils import epath
from orbax.checkpoint import v1 as ocp
from runs import train
from tally import tally

from eqprop_jax import checkpoint, records
from eqprop_jax.checkpoint import folders
from eqprop_jax.training import mesh, programs
from eqprop_jax.training.state import TrainState, init_state

EXTREMES = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-40, 1 / 3], np.float32)


class Pair(NamedTuple):
    first: jax.Array
    second: tuple


def state_of(scale=1.0):
    """A train state with the optimizer's nested memory and leaves of all kinds."""
    params = {
        'layer_1': {
            'kernel': scale * jnp.arange(6, dtype=jnp.float32).reshape(2, 3) / 7,
            'bias': jnp.asarray(EXTREMES, jnp.bfloat16),
        },
        'pair': Pair(
            jnp.asarray(EXTREMES * (1 - 2j), jnp.complex64),
            (jnp.asarray(EXTREMES), jnp.array([True, False]), ()),
        ),
        'double': jnp.asarray(1 / 3, jnp.float64),
    }
    weights = {'kernel': params['layer_1']['kernel'], 'bias': jnp.ones(2, jnp.bfloat16)}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1))
    _, memory = optimizer.update(weights, optimizer.init(weights))
    return TrainState(
        step=jnp.int32(7),
        seed=jnp.int32(0),
        penalty_weight=jnp.float32(0),
        params=params,
        opt_state=memory,
    )


def abstract(state):
    return jax.eval_shape(lambda: state)


def assert_same_bits(actual, wanted):
    assert jax.tree.structure(actual) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(wanted), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def refused(workdir, like):
    """Returns the message, of one line."""
    with pytest.raises(checkpoint.CheckpointError) as raised:
        checkpoint.restore(workdir, like)
    message = str(raised.value)
    assert str(workdir) in message
    assert '\n' not in message
    return message


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """A workdir with a checkpoint that nobody changes, and its state."""
    workdir, state = tmp_path_factory.mktemp('saved'), state_of()
    checkpoint.save(workdir, state)
    return workdir, state


class TestRoundTrip:
    def test_to_the_bit(self, saved):
        workdir, state = saved
        for like in (abstract(state), state, jax.tree.map(np.asarray, state)):
            assert_same_bits(checkpoint.restore(workdir, like), state)

    def test_a_newer_one_takes_its_place(self, tmp_path):
        for scale in (1.0, 2.0, 3.0):
            state = state_of(scale)
            path = checkpoint.save(tmp_path / 'deep' / 'run', state)
            assert list(path.parent.iterdir()) == [path]
            restored = checkpoint.restore(tmp_path / 'deep' / 'run', abstract(state))
            assert_same_bits(restored, state)

    def test_a_relative_workdir(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        checkpoint.save('run', {'a': jnp.arange(3)})
        (restored,) = checkpoint.restore('run', {'a': jnp.zeros(3, int)}).values()
        assert restored.tolist() == [0, 1, 2]

    def test_orbax_reads_it_by_itself(self, saved):
        workdir, state = saved
        arrays = ocp.load(str(workdir / 'checkpoint' / '1'))
        assert {'step', 'params/layer_1/kernel', 'params/pair/second/0'} < set(arrays)
        assert len(arrays) == len(jax.tree.leaves(state))
        np.testing.assert_array_equal(
            arrays['opt_state/1/0/mu/kernel'], state.opt_state[1][0].mu['kernel']
        )

    def test_says_nothing(self, tmp_path, capfd, caplog):
        for _ in range(2):
            checkpoint.save(tmp_path, {'a': jnp.ones(3)})
            checkpoint.restore(tmp_path, {'a': jnp.ones(3)})
        assert capfd.readouterr() == ('', '')
        assert caplog.text == ''

    def test_names_that_collide(self, tmp_path):
        state = {'a': {'b': jnp.zeros(1)}, 'a/b': jnp.zeros(1)}
        with pytest.raises(ValueError, match='same name'):
            checkpoint.save(tmp_path, state)


class TestRefused:
    @pytest.mark.parametrize('run', ['absent', 'empty', 'begun'])
    def test_no_checkpoint(self, tmp_path, run):
        (tmp_path / 'empty').mkdir()
        (tmp_path / 'begun' / 'checkpoint' / 'unfinished').mkdir(parents=True)
        message = refused(tmp_path / run, state_of())
        assert 'no checkpoint' in message
        assert 'train again' in message
        assert not (tmp_path / 'absent').exists()

    @pytest.mark.parametrize(
        ('changes', 'part'),
        [
            (
                {'kernel': jnp.zeros((3, 2), jnp.float32)},
                'params/layer_1/kernel is float32 [2, 3] there, float32 [3, 2] here',
            ),
            (
                {'kernel': jnp.zeros((2, 3), jnp.float64)},
                'params/layer_1/kernel is float32 [2, 3] there, float64 [2, 3] here',
            ),
            ({'kernel': None}, 'kernel is float32 [2, 3] there, absent here'),
            ({'more': jnp.zeros(2)}, 'more is absent there, float64 [2] here'),
        ],
    )
    def test_another_state(self, saved, changes, part):
        workdir, state = saved
        layer = state.params['layer_1'] | changes
        like = state.replace(params=state.params | {'layer_1': layer})
        message = refused(workdir, abstract(like))
        assert part in message
        assert str(workdir / 'config.json') in message

    def test_many_differences_are_counted(self, saved):
        workdir, state = saved
        message = refused(workdir, {})
        assert message.count(' there, ') == 3
        assert f'and {len(jax.tree.leaves(state)) - 3} more' in message

    def test_damaged_files(self, saved, tmp_path):
        workdir, state = saved
        files = [path for path in workdir.rglob('*') if path.is_file()]
        assert max(path.stat().st_size for path in files) > 500
        for file in files:
            content = file.read_bytes()
            middle = len(content) // 2
            damages = [None]
            if content:
                flipped = bytes([content[middle] ^ 0x80])
                damages += [
                    b'',
                    content[:middle],
                    content[:middle] + flipped + content[middle + 1 :],
                ]
            for damage in damages:
                copy = tmp_path / 'copy'
                shutil.copytree(workdir, copy)
                damaged = copy / file.relative_to(workdir)
                if damage is None:
                    damaged.unlink()
                else:
                    damaged.write_bytes(damage)
                message = refused(copy, state)
                assert 'damaged' in message
                assert 'train again' in message
                if file.name != 'SHA256SUMS':
                    assert file.name in message
                shutil.rmtree(copy)

    def test_a_folder_that_lost_its_files(self, tmp_path):
        (tmp_path / 'checkpoint' / '1').mkdir(parents=True)
        assert 'damaged, in SHA256SUMS' in refused(tmp_path, {})


class TestInterruptedSave:
    @pytest.mark.parametrize('where', ['arrays', 'later', 'sums', 'replace'])
    def test_the_older_one_stays(self, tmp_path, monkeypatch, where):
        def fail(*args):
            raise OSError('no space')

        def fail_half_way(path, arrays):
            begun = pathlib.Path(f'{path}.orbax-checkpoint-tmp')
            (begun / 'state').mkdir(parents=True)
            (begun / 'state' / 'manifest.ocdbt').write_bytes(b'half')
            fail()

        def fail_later(path, arrays):
            pathlib.Path(path).mkdir()
            return types.SimpleNamespace(result=fail)

        older, newer = state_of(), state_of(2.0)
        checkpoint.save(tmp_path, older)
        with monkeypatch.context() as patch:
            if where == 'arrays':
                patch.setattr(ocp, 'save_async', fail_half_way)
            elif where == 'later':
                patch.setattr(ocp, 'save_async', fail_later)
            elif where == 'sums':
                patch.setattr(folders, 'sums_of', fail)
            else:
                patch.setattr(type(epath.Path(tmp_path)), 'replace', fail)
            for _ in range(2):
                with pytest.raises(checkpoint.CheckpointError, match=r'\(no space\)$'):
                    checkpoint.save(tmp_path, newer)
        assert len(list((tmp_path / 'checkpoint').iterdir())) == 3
        assert_same_bits(checkpoint.restore(tmp_path, older), older)
        path = checkpoint.save(tmp_path, newer)
        assert list(path.parent.iterdir()) == [path]
        assert_same_bits(checkpoint.restore(tmp_path, older), newer)

    def test_the_newer_one_counts_once_it_is_there(self, tmp_path, monkeypatch):
        checkpoint.save(tmp_path, state_of())

        def fail(folder, keep):
            raise KeyboardInterrupt

        newer = state_of(2.0)
        with monkeypatch.context() as patch:
            patch.setattr(folders, 'keep_only', fail)
            with pytest.raises(KeyboardInterrupt):
                checkpoint.save(tmp_path, newer)
        assert len(list((tmp_path / 'checkpoint').iterdir())) == 2
        assert_same_bits(checkpoint.restore(tmp_path, newer), newer)


class TestOfOthers:
    def test_folders_of_a_user_stay_whatever_their_names(self, tmp_path):
        """Numbers among them: what Orbax and this library write is in none of them."""
        mine = [tmp_path / 'checkpoint' / name for name in ('1', '99', 'best_5', 'a')]
        for folder in mine:
            folder.mkdir(parents=True)
            (folder / 'thesis.txt').write_text('mine')
        for _ in range(3):
            checkpoint.save(tmp_path, {'a': np.ones(2)})
        assert all((folder / 'thesis.txt').exists() for folder in mine)
        like = {'a': jax.ShapeDtypeStruct((2,), np.float64)}
        np.testing.assert_array_equal(checkpoint.restore(tmp_path, like)['a'], 1)
        checkpoint.remove(tmp_path)
        found = {path.name for path in (tmp_path / 'checkpoint').iterdir()}
        assert found == {'1', '99', 'best_5', 'a'}

    def test_of_another_run(self, tmp_path):
        checkpoint.save(tmp_path, {'a': np.ones(2)}, {'config': 1}, keep=2)
        checkpoint.save(tmp_path, {'a': np.zeros(2)}, {'config': 2}, keep=2)
        like = {'a': jax.ShapeDtypeStruct((2,), np.float64)}
        accepts = lambda notes: notes['config'] == 1  # noqa: E731
        assert checkpoint.newest(tmp_path) == 2
        assert checkpoint.newest(tmp_path, accepts) == 1
        with pytest.raises(checkpoint.CheckpointError, match='/2 is of another run'):
            checkpoint.restore(tmp_path, like, accepts=accepts)


class TestInTheBackground:
    def test_what_is_saved_is_what_was_there(self, tmp_path):
        """Though the buffers are donated to the next step at once."""
        add = jax.jit(lambda a: a + 1, donate_argnums=0)
        a = jnp.zeros((300, 300))
        with checkpoint.Saver(tmp_path, keep=4) as saver:
            for _ in range(4):
                saver.save({'a': a})
                a = add(a)
        paths = sorted(int(path.name) for path in (tmp_path / 'checkpoint').iterdir())
        assert paths == [1, 2, 3, 4]
        for number in paths:
            state, notes = checkpoint.read(tmp_path, number, {'a': a})
            np.testing.assert_array_equal(state['a'], number - 1)
            assert notes == {}

    def test_what_goes_wrong_is_raised_by_the_next(self, tmp_path, monkeypatch):
        saver = checkpoint.Saver(tmp_path)
        monkeypatch.setattr(folders, 'keep_only', lambda *_: 1 / 0)
        saver.save({'a': jnp.ones(2)})
        with pytest.raises(ZeroDivisionError):
            saver.save({'a': jnp.ones(2)})
        saver.wait()

    def test_the_best_is_kept_apart(self, tmp_path):
        with checkpoint.Saver(tmp_path, keep=2) as saver:
            for number in range(6):
                saver.save({'a': jnp.full(2, number)}, best=number in (1, 3))
        names = sorted(path.name for path in (tmp_path / 'checkpoint').iterdir())
        assert names == ['5', '6', 'best_4']
        like = {'a': jnp.zeros(2, int)}
        assert checkpoint.restore(tmp_path, like)['a'].tolist() == [5, 5]
        assert checkpoint.restore(tmp_path, like, best=True)['a'].tolist() == [3, 3]

    def test_no_best(self, tmp_path):
        checkpoint.save(tmp_path, {'a': jnp.ones(2)})
        with pytest.raises(checkpoint.CheckpointError, match='no best checkpoint'):
            checkpoint.restore(tmp_path, {'a': jnp.ones(2)}, best=True)

    def test_on_other_devices(self, tmp_path):
        """Eight, four by two, and one."""
        state = {'a': jnp.arange(16.0).reshape(8, 2), 'b': jnp.arange(3)}
        meshes = [mesh.make(8), mesh.make(4, 2), mesh.make(1)]
        for number, devices in enumerate(meshes):
            here = jax.device_put(state, mesh.everywhere(devices))
            checkpoint.save(tmp_path, here)
            for other in meshes:
                like = jax.device_put(state, mesh.everywhere(other))
                found = checkpoint.restore(tmp_path, like)
                assert_same_bits(found, state)
                assert found['a'].sharding == like['a'].sharding, number


class TestTraining:
    @pytest.mark.whole
    def test_the_best_epoch(self, tmp_path):
        """Evaluated again it has the error that the summary says."""
        changes = {'num_epochs': 6, 'optimizer.learning_rate': 0.1}
        experiment = runs.experiment(changes)
        train(experiment, tmp_path)
        state = checkpoint.restore(tmp_path, init_state(experiment), best=True)
        best = json.loads((tmp_path / records.SUMMARY).read_text())['best']
        assert int(state.step) == best['step'] <= experiment.num_steps
        split = mesh.place(experiment.dataset.held_out, experiment.mesh)
        again = programs.make_evaluate(experiment)(state.params, split)
        assert float(again['loss']) == best['eval']['loss']

    @pytest.mark.whole
    def test_leaves_its_last_state(self, tmp_path):
        changes = runs.FEEDFORWARD | {'num_epochs': 1}
        experiment = runs.experiment(changes)
        state = train(experiment, tmp_path)
        like = jax.eval_shape(lambda: init_state(experiment))
        assert_same_bits(checkpoint.restore(tmp_path, like), state)
        narrow = {'name': 'feedforward', 'sizes': (64, 8, 16, 10)}
        other = runs.experiment(changes | {'system': narrow})
        message = refused(tmp_path, jax.eval_shape(lambda: init_state(other)))
        assert 'layer_1/' in message

    def test_a_run_that_starts_anew_has_none(self, tmp_path, monkeypatch):
        train(tally(), tmp_path)

        def interrupt(*args, **options):
            raise KeyboardInterrupt

        monkeypatch.setattr(records.Writer, '__init__', interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(tally(), tmp_path, overwrite=True)
        assert 'no checkpoint' in refused(tmp_path, init_state(tally()))

    def test_is_there_when_the_summary_is(self, tmp_path, monkeypatch):
        found = []
        monkeypatch.setattr(
            records,
            'write_summary',
            lambda workdir, _: found.append(
                checkpoint.restore(workdir, init_state(tally()))
            ),
        )
        assert_same_bits(found, [train(tally(), tmp_path)])

    def test_of_another_config_stays(self, tmp_path):
        state = train(tally(), tmp_path)
        config = runs.values({'optimizer.learning_rate': 0.5} | runs.FEEDFORWARD)
        with pytest.raises(records.WorkdirError):
            train(tally(config=config), tmp_path)
        assert_same_bits(checkpoint.restore(tmp_path, state), state)


@pytest.mark.parametrize(
    'state',
    [
        {'n': 3, 'yes': True, 'x': 0.5},
        {'w': np.ones(3), 'n': np.arange(3)},
        (np.float64(2), [jnp.ones(2, jnp.bfloat16)]),
    ],
)
def test_what_is_saved_can_be_restored(tmp_path, state):
    with jax.enable_x64(False):
        checkpoint.save(tmp_path, state)
        found = checkpoint.restore(tmp_path, state)
    assert jax.tree.structure(found) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, found, state)


@pytest.mark.parametrize('leaf', ['a', object(), jax.random.key(0), np.array(['a'])])
def test_what_is_no_number_is_refused(tmp_path, leaf):
    with pytest.raises(ValueError, match='w of the state is of no numbers'):
        checkpoint.save(tmp_path, {'w': leaf})
    assert not list(tmp_path.iterdir())
