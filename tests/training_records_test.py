"""What a run leaves behind: records, a summary, and a clear end when it fails."""

import json
import logging
import os
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import runs
from runs import assert_equal, run_chunk, train
from tally import BATCH, INFO, count, tally

from eqprop_jax import _disk as disk
from eqprop_jax import checkpoint, records, training
from eqprop_jax.checkpoint import folders
from eqprop_jax.data import Split
from eqprop_jax.figures import curves
from eqprop_jax.training import metrics, programs
from eqprop_jax.training.state import init_state, stream
from eqprop_jax.types import Estimate


class TestNotFinite:
    """The gradient turns NaN at the fourth step, the second of the second chunk."""

    def experiment(self, where, skipped=0.0):
        """`where` is what is not finite once 15 examples were seen."""

        def estimate(params, batch, free, rng):
            bad = jnp.sum(params['seen']) >= 3 * BATCH
            grads = count(batch)
            if where == 'the gradient of seen':
                grads = {'seen': jnp.where(bad, jnp.nan, grads['seen'])}
            if where == 'the new value of seen':
                grads = {'seen': jnp.where(bad, -3e307, grads['seen'])}
            info = INFO._replace(skipped=jnp.asarray(skipped, jnp.float64))
            return Estimate(grads, None, info)

        def cost(params, rates, y):
            bad = jnp.sum(params['seen']) >= 3 * BATCH
            return jnp.where((where == 'the loss') & bad, jnp.nan, rates['unit'][:, 0])

        experiment = tally(learn=estimate)
        rate = 10.0 if where == 'the new value of seen' else 1.0
        return experiment._replace(
            system=experiment.system._replace(cost=cost),
            optimizer=optax.sgd(optax.piecewise_constant_schedule(1.0, {3: rate})),
        )

    @pytest.mark.parametrize(
        'where', ['the loss', 'the gradient of seen', 'the new value of seen']
    )
    def test_stops_and_keeps_the_records(self, tmp_path, where):
        experiment = self.experiment(where)
        with pytest.raises(training.TrainingError) as raised:
            train(experiment, tmp_path)
        message = str(raised.value)
        assert message.startswith(f'step 4 (epoch 1) is not finite in {where}. ')
        assert str(tmp_path) in message
        rows = records.read(tmp_path)
        assert [row['step'] for row in rows] == [2, 3]
        assert all(np.isfinite(row['loss']) for row in rows)
        assert json.loads((tmp_path / 'config.json').read_text())
        assert not (tmp_path / 'summary.json').exists()

    @pytest.mark.parametrize('where', ['the loss', 'the new value of seen'])
    def test_the_bad_step_leaves_the_state_alone(self, where):
        experiment = self.experiment(where)
        good, _ = run_chunk(experiment, init_state(experiment), 0, 0, 3)
        stopped, chunk = run_chunk(experiment, init_state(experiment), 0, 0, 4)
        assert_equal(stopped, good)
        assert int(stopped.step) == int(chunk.num_steps) == 3
        assert float(jnp.sum(stopped.params['seen'])) == 3 * BATCH

    def test_the_loss_of_skipped_examples_may_be(self, tmp_path):
        state = train(self.experiment('the loss', skipped=0.2), tmp_path)
        assert int(state.step) == 8
        losses = [row['loss'] for row in records.read(tmp_path)]
        assert losses.count(None) > 0

    def test_a_network_that_diverges(self, tmp_path):
        changes = {
            'system.activation': 'identity',
            'system.cost': 'squared_error',
            'optimizer.name': 'sgd',
            'optimizer.learning_rate': 1e30,
            'num_epochs': 5,
        }
        with pytest.raises(training.TrainingError, match=r'step \d+ .*epoch \d') as e:
            train(runs.experiment(changes), tmp_path)
        assert 'learning rate' in str(e.value)
        for row in records.read(tmp_path):
            assert row['split'] in records.SPLITS


class TestWorkdir:
    def test_the_same_config_begins_anew_if_told(self, tmp_path):
        experiment = tally()
        train(experiment, tmp_path)
        first = records.read(tmp_path)
        train(experiment, tmp_path, overwrite=True)
        second = records.read(tmp_path)
        for rows in (first, second):
            for row in rows:
                row.pop('examples_per_second', None)
        assert first == second

    def test_a_run_that_has_ended_is_returned(self, tmp_path):
        """And not written to, though it would be trained on other devices now."""
        state = train(tally(), tmp_path)
        files = [path for path in tmp_path.rglob('*') if path.is_file()]
        before = {path: path.stat().st_mtime_ns for path in files}
        config = runs.values({'mesh.data': 2} | runs.FEEDFORWARD)
        assert_equal(train(tally(config=config), tmp_path), state)
        assert {path: path.stat().st_mtime_ns for path in files} == before
        assert training.is_finished(tally(), tmp_path)
        shutil.rmtree(tmp_path / 'checkpoint')
        with pytest.raises(checkpoint.CheckpointError, match='no checkpoint'):
            train(tally(), tmp_path)
        assert_equal(train(tally(), tmp_path, overwrite=True), state)

    @pytest.mark.parametrize('part', ['checkpoints', 'one of them', 'records'])
    def test_one_that_is_killed_as_it_begins_anew(self, tmp_path, monkeypatch, part):
        """It is called finished no more, and comes to the same end."""
        state = train(tally(), tmp_path, save_every=0.0)
        removed = []

        def kill(*_, **options):
            raise KeyboardInterrupt

        def remove(folder, remove=disk.remove):
            if removed:
                kill()
            removed.append(remove(folder))

        where, name, fn = {
            'checkpoints': (checkpoint, 'remove', kill),
            'one of them': (disk, 'remove', remove),
            'records': (records.Writer, '__init__', kill),
        }[part]
        with monkeypatch.context() as patch:
            patch.setattr(where, name, fn)
            with pytest.raises(KeyboardInterrupt):
                train(tally(), tmp_path, overwrite=True)
        assert not training.is_finished(tally(), tmp_path)
        assert_equal(train(tally(), tmp_path), state)

    def test_one_that_has_not_goes_on_though_told_to_begin_anew(
        self, tmp_path, monkeypatch
    ):
        """So that the same command, requeued again and again, comes to an end."""
        with monkeypatch.context() as patch:
            patch.setattr(records, 'write_summary', lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                train(tally(), tmp_path)
        before = (tmp_path / 'metrics.jsonl').read_bytes()
        train(tally(), tmp_path, overwrite=True)
        assert (tmp_path / 'metrics.jsonl').read_bytes() == before

    def test_another_config_is_refused(self, tmp_path):
        train(tally(), tmp_path)
        before = (tmp_path / 'metrics.jsonl').read_bytes()
        config = runs.values({'optimizer.learning_rate': 0.5} | runs.FEEDFORWARD)
        with pytest.raises(
            records.WorkdirError,
            match=r'optimizer\.learning_rate is 0\.001 there, 0\.5',
        ):
            train(tally(config=config), tmp_path)
        assert (tmp_path / 'metrics.jsonl').read_bytes() == before

    def interrupt(self, workdir, monkeypatch, commit):
        """Begins a run at a commit, and stops it by a signal after its second chunk."""
        write = records.Writer.write

        def interrupted(self, step, *args):
            write(self, step, *args)
            if step > 2:
                os.kill(os.getpid(), signal.SIGTERM)

        with monkeypatch.context() as patch:
            patch.setattr(records, 'commit', lambda: commit)
            patch.setattr(records.Writer, 'write', interrupted)
            with pytest.raises(training.Interrupted):
                train(tally(), workdir)

    def test_a_run_rests_on_its_data(self, tmp_path, monkeypatch):
        self.interrupt(tmp_path, monkeypatch, 'one')
        files = {path: path.read_bytes() for path in tmp_path.glob('*.json*')}
        dataset = tally().dataset
        images, labels = (array.copy() for array in dataset.test)
        images[0], labels[0] = 100, 1
        splits = (dataset.test._replace(images=images), Split(dataset.test[0], labels))
        for split in splits:
            for name in ('train', 'held_out', 'test'):
                other = dataset._replace(**{name: split})
                with pytest.raises(records.WorkdirError, match=r'\(data_sha256 is '):
                    train(tally(dataset=other), tmp_path)
        assert files == {path: path.read_bytes() for path in tmp_path.glob('*.json*')}
        assert int(train(tally(), tmp_path).step) == 8
        other = dataset._replace(test=splits[0])  # also once it has ended
        with pytest.raises(records.WorkdirError, match=r'\(data_sha256 is '):
            train(tally(dataset=other), tmp_path)
        assert int(train(tally(dataset=other), tmp_path, overwrite=True).step) == 8

    @pytest.mark.parametrize(
        ('setting', 'name'),
        [
            (lambda: jax.threefry_partitionable(False), 'threefry_partitionable'),
            (lambda: jax.enable_x64(False), 'enable_x64'),
            (lambda: jax.default_matmul_precision('highest'), 'matmul_precision'),
        ],
    )
    def test_and_on_the_settings_of_jax(self, tmp_path, monkeypatch, setting, name):
        self.interrupt(tmp_path, monkeypatch, 'one')
        with setting(), pytest.raises(records.WorkdirError, match=f'jax_.*{name} is '):
            train(tally(), tmp_path)

    def test_the_default_kind_of_generator_does_not_matter(self):
        wanted = stream(3, 'order')
        with jax.default_prng_impl('rbg'):
            found = stream(3, 'order')
        assert_equal(jax.random.key_data(found), jax.random.key_data(wanted))
        draws = (jax.random.uniform(key, (3,)) for key in (found, wanted))
        assert_equal(*draws)

    def test_the_summary_names_all_commits(self, tmp_path, monkeypatch):
        for commit in ('one', 'two+'):
            self.interrupt(tmp_path, monkeypatch, commit)
        monkeypatch.setattr(records, 'commit', lambda: 'one')
        train(tally(), tmp_path)
        summary = json.loads((tmp_path / 'summary.json').read_text())
        assert summary['commit'] == 'one, two+'
        assert summary['jax'] == jax.__version__

    def test_older_notes_have_no_commits(self, tmp_path, monkeypatch):
        self.interrupt(tmp_path, monkeypatch, 'one')
        (notes,) = tmp_path.glob('checkpoint/[0-9]*/notes.json')
        found = json.loads(notes.read_text())
        del found['legs']
        notes.write_text(json.dumps(found))
        folders.write_sums(notes.parent)
        begun = records.read(tmp_path)
        train(tally(), tmp_path)
        assert records.read(tmp_path)[: len(begun)] == begun

    def test_an_interrupted_run_can_be_read(self, tmp_path, monkeypatch):
        train(tally(), tmp_path)
        write = records.Writer.write

        def interrupt(self, step, *args):
            if step > 2:
                raise KeyboardInterrupt
            write(self, step, *args)

        monkeypatch.setattr(records.Writer, 'write', interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(tally(), tmp_path, overwrite=True)
        assert [row['step'] for row in records.read(tmp_path)] == [2]
        assert not (tmp_path / 'summary.json').exists()


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    """A run whose estimator is exact, with homeostasis and diagnostics."""
    workdir = tmp_path_factory.mktemp('exact')
    changes = {
        'estimator': {'name': 'recurrent_backprop', 'tol': 1e-6},
        'solver.tol': 1e-6,
        'solver.max_steps': 200,
        'homeostasis.weight': 0.5,
        'diagnostics.every_evals': 2,
        'num_epochs': 3,
    }
    train(runs.experiment(changes), workdir)
    return workdir


class TestRecords:
    def test_splits_and_keys(self, workdir):
        rows = records.read(workdir)
        for split, steps_ in (
            ('train', [3, 5, 8, 10, 13, 15]),
            ('eval', [5, 10, 15]),
            ('test', [5, 10, 15]),
        ):
            own = [row for row in rows if row['split'] == split]
            assert [row['step'] for row in own] == steps_
            np.testing.assert_allclose(
                [row['epoch'] for row in own], np.divide(steps_, 5)
            )
            for row in own:
                assert 0 <= row['error'] <= 1
                assert row['loss'] > 0
                assert row['converged'] == 1.0
                assert 0 < row['residual'] <= row['max_residual'] <= 1e-6
                assert 1 < row['free_steps'] <= row['max_free_steps'] < 200
                assert ('homeostasis' in row) == (split == 'train')

    def test_diagnostics_come_on_their_schedule(self, workdir):
        rows = [row for row in records.read(workdir) if row['split'] == 'eval']
        assert ['gradient_cosine' in row for row in rows] == [True, False, True]
        for row in rows[::2]:
            for name in ('gradient_cosine', 'cosine/layer_1', 'cosine/layer_2'):
                np.testing.assert_allclose(row[name], 1.0, atol=1e-5)
            for name in ('gradient_norm_ratio', 'norm_ratio/layer_1'):
                np.testing.assert_allclose(row[name], 1.0, atol=1e-3)
            assert row['reference_converged'] == 1.0
            assert 0 < row['symmetric_share'] <= 1
            assert row['spectral_radius'] > 0
            assert 0 < row['angle/layer_1/feedback'] < 180

    def test_summary(self, workdir):
        rows = records.read(workdir)
        summary = json.loads((workdir / 'summary.json').read_text())
        last = {row['split']: row for row in rows if row['step'] == 15}
        for split in ('eval', 'test'):
            assert summary['last'][split]['error'] == last[split]['error']
        evals = [row for row in rows if row['split'] == 'eval']
        best = min(evals, key=lambda row: (row['error'], row['loss']))
        assert summary['best']['step'] == best['step']
        assert summary['best']['eval']['loss'] == best['loss']
        assert summary['examples_per_second'] > 0
        assert (summary['seed'], summary['jax']) == (0, jax.__version__)

    def test_best_is_chosen_on_the_held_out_examples(self, tmp_path, monkeypatch):
        values = iter(
            {
                'error': jnp.asarray(error),
                'loss': jnp.asarray(loss),
                'converged': jnp.ones(()),
            }
            for error, loss in (
                *((0.3, 1.0), (0.5, 9.0)),
                *((0.1, 2.0), (0.4, 9.0)),
                *((0.1, 1.5), (0.6, 9.0)),
                *((0.2, 0.1), (0.2, 9.0)),
            )
        )
        monkeypatch.setattr(
            programs, 'make_evaluate', lambda _, way: lambda *_: next(values)
        )
        train(tally(num_epochs=4), tmp_path)
        summary = json.loads((tmp_path / 'summary.json').read_text())
        assert summary['best']['epoch'] == 3.0
        assert summary['best']['test']['error'] == 0.6
        assert summary['last']['test']['error'] == 0.2

    @pytest.mark.whole
    def test_without_held_out_examples(self, tmp_path):
        experiment = runs.experiment({'data.held_out': 0, 'diagnostics.every_evals': 1})
        train(experiment, tmp_path)
        rows = records.read(tmp_path)
        assert {row['split'] for row in rows} == {'train', 'test'}
        tests = [row for row in rows if row['split'] == 'test']
        assert all('gradient_cosine' in row for row in tests)
        summary = json.loads((tmp_path / 'summary.json').read_text())
        assert summary['best'] is None
        assert summary['last']['test']['loss'] == tests[-1]['loss']
        assert len(curves.draw(tmp_path).read_bytes()) > 0
        percent = 100 * tests[-1]['error']
        assert curves.summary_line(tmp_path) == (
            f'test error {percent:.2f} % after the last epoch; in the last epoch '
            f'100.0 % of the examples settled; records and curves.png in {tmp_path}'
        )

    @pytest.mark.whole
    def test_a_network_that_does_not_settle_is_told(self, tmp_path, caplog):
        experiment = runs.experiment({'solver.max_steps': 1, 'num_epochs': 1})
        with caplog.at_level(logging.WARNING, logger='absl'):
            train(experiment, tmp_path)
        assert 'only 0 % of the test examples settled' in caplog.text

    @pytest.mark.parametrize(
        ('settled', 'skipped', 'line', 'bar', 'warned'),
        [
            ((1, 1), (0, 0), 'epoch 100.0 % of the', 'settled 100.0 %,', []),
            (
                (1, 0.25),
                (0, 0),
                'in the last epoch 25.0 % of the examples settled; records',
                'settled 25.0 % (free phase 100.0 %),',
                ['only 25 % of the training examples settled in all phases of the la'],
            ),
            (
                (0.25, 1),
                (0.5, 0),
                'in the last epoch 100.0 % of the examples settled, 25.0 % of all were',
                'settled 100.0 %,',
                ['only 62 % of the', '25 % of the training examples of the whole run'],
            ),
            (
                (0.95, 0.95),
                (0.02, 0.08),
                'epoch 95.0 % of the examples settled, 5.0 % of all were left out; ',
                'settled 95.0 % (free phase 100.0 %, 8.0 % left out),',
                [],
            ),
        ],
    )
    def test_phases_of_training_are_told(
        self, tmp_path, caplog, capsys, settled, skipped, line, bar, warned
    ):
        """Of the two epochs; each of them has four steps."""

        def learn(params, batch, free, rng):
            second = jnp.sum(params['seen']) >= 4 * BATCH
            info = INFO._replace(
                converged=jnp.where(second, *map(jnp.float64, settled[::-1])),
                skipped=jnp.where(second, *map(jnp.float64, skipped[::-1])),
            )
            return Estimate(count(batch), None, info)

        with caplog.at_level(logging.WARNING, logger='absl'):
            training.train_and_evaluate(tally(learn=learn), tmp_path)
        assert line in curves.summary_line(tmp_path)
        assert bar in capsys.readouterr().err.rsplit('\r', 1)[-1]
        summary = json.loads((tmp_path / 'summary.json').read_text())
        np.testing.assert_allclose(
            [list(part.values()) for part in summary['phases'].values()],
            [[np.mean(settled), np.mean(skipped)], [settled[1], skipped[1]]],
        )
        assert len(summary['warnings']) == len(warned)
        for said, part in zip(summary['warnings'], warned, strict=True):
            assert part in said
            assert said in caplog.text

    def test_the_bar_shows_the_last_record(self, tmp_path, capsys):
        training.train_and_evaluate(tally(), tmp_path)
        bar = capsys.readouterr().err
        assert '8/8' in bar
        assert 'error 0.0 %' in bar.rsplit('\r', 1)[-1]


@pytest.mark.whole
def test_skipping_keeps_a_run_alive():
    """Examples that overflow are left out of the gradient, and training goes on."""
    changes = {
        'system.activation': 'relu',
        'system.feedback': 'tied',
        'estimator.skip_unconverged': True,
        'solver.max_steps': 3000,
        'nudged_solver.max_steps': 3000,
    }
    experiment = runs.experiment(changes)
    state = init_state(experiment)
    strong = jax.tree.map(lambda w: 4 * w, state.params)
    state, chunk = run_chunk(experiment, state.replace(params=strong), 0, 0, 1)
    assert bool(jnp.all(chunk.finite))
    assert 0 < float(chunk.metrics['skipped']) <= 1
    assert int(state.step) == 1
    for weights in jax.tree.leaves(state.params):
        assert bool(jnp.all(jnp.isfinite(weights)))


def test_records_of_older_versions_say_nothing_of_phases():
    rows = [
        {'step': 2, 'split': 'train'},
        {'step': 4, 'split': 'train', 'settled': 0.5, 'skipped': None},
        {'step': 4, 'split': 'eval'},
        {'step': 8, 'split': 'train', 'settled': 0.2, 'skipped': 0.0},
    ]
    found = metrics.of_phases(rows, 4)
    np.testing.assert_allclose(found['whole_run']['settled'], (2 * 0.5 + 4 * 0.2) / 6)
    assert found['last_epoch'] == {'settled': 0.2, 'skipped': 0.0}
    nothing = metrics.of_phases(rows[:1], 4)
    assert nothing == {'whole_run': {}, 'last_epoch': {}}
    assert metrics.doubts(1.0, nothing) == []
    assert metrics.of_phases([], 4) == nothing
