"""The training loop against a plain Python loop, hand-written gradients and counts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import runs
from runs import assert_equal, run_chunk, train
from sklearn.datasets import load_digits
from tally import BATCH, INFO, SIZE, bare, count, tally

from eqprop_jax import records
from eqprop_jax.data import Split
from eqprop_jax.data import _pipeline as pipeline
from eqprop_jax.training import programs, schedule
from eqprop_jax.training.state import STREAMS, init_state, stream
from eqprop_jax.types import Estimate


class TestSchedule:
    @pytest.mark.parametrize('size', [20, 23])
    @pytest.mark.parametrize('log_every', [1, 2, 7, 100])
    @pytest.mark.parametrize('eval_every', [0, 1, 3, 100])
    def test_every_step_once_and_evaluations_as_promised(
        self, size, log_every, eval_every
    ):
        split = Split(np.zeros((size, 1, 1, 1), np.uint8), np.zeros(size, np.int32))
        experiment = bare()._replace(
            dataset=bare().dataset._replace(train=split),
            batch_size=5,
            num_epochs=3,
            log_every_steps=log_every,
            eval_every_steps=eval_every,
        )
        chunks = list(schedule.chunks(experiment))
        visited = [
            (chunk.epoch, chunk.first + index)
            for chunk in chunks
            for index in range(chunk.num_steps)
        ]
        assert visited == [(epoch, first) for epoch in range(3) for first in range(4)]
        ends = np.cumsum([chunk.num_steps for chunk in chunks])
        evaluated = {
            int(end) for end, chunk in zip(ends, chunks, strict=True) if chunk.evaluate
        }
        period = eval_every or 4
        assert evaluated == {step for step in range(1, 13) if step % period == 0} | {12}
        assert all(chunk.num_steps <= log_every for chunk in chunks)
        breaks = {step for step in range(1, 13) if step % 4 == 0} | evaluated
        for start, chunk, end in zip([0, *ends], chunks, ends, strict=False):
            assert int(end) in breaks or chunk.num_steps == log_every
            assert not breaks & set(range(start + 1, end))


class TestBatches:
    def test_an_epoch_visits_each_example_at_most_once(self):
        experiment = tally(optimizer=optax.sgd(1.0))
        left_out = set()
        for epoch in range(3):
            state, chunk = run_chunk(
                experiment, init_state(experiment), epoch, 0, SIZE // BATCH
            )
            seen = np.asarray(state.params['seen'])
            assert set(seen.tolist()) == {0.0, 1.0}
            assert seen.sum() == SIZE // BATCH * BATCH
            assert int(chunk.num_steps) == int(state.step) == SIZE // BATCH
            left_out.add(tuple(np.flatnonzero(seen == 0).tolist()))
        assert len(left_out) == 3

    def test_a_run_visits_all_its_batches(self, tmp_path):
        experiment = tally(num_epochs=3)
        seen = np.asarray(train(experiment, tmp_path).params['seen'])
        assert seen.sum() == 3 * (SIZE // BATCH) * BATCH
        assert seen.max() <= 3

    def test_evaluation_counts_every_example_once(self):
        experiment = tally()
        split = pipeline.to_device(experiment.dataset.test)
        for batch_size in (1, 5, 7, SIZE, 500):
            evaluate = programs.make_evaluate(experiment, batch_size)
            metrics = evaluate({'seen': jnp.zeros(SIZE)}, split)
            # the cost of example i is i, and only 0 > 0 is not won by the first class
            assert float(metrics['loss']) == np.arange(SIZE).mean()
            assert float(metrics['error']) == 0.0

    def test_random_streams_differ(self):
        keys = [
            tuple(jax.random.key_data(stream(seed, name)).tolist())
            for seed in (0, 1, 2)
            for name in STREAMS
        ]
        assert len(set(keys)) == len(keys)

    def test_streams_keep_their_keys(self):
        """Stored runs depend on them: the position in this order is what is folded."""
        for seed in (0, 7):
            for index, name in enumerate(('init', 'order', 'estimate', 'diagnose')):
                wanted = jax.random.fold_in(jax.random.key(seed), index)
                assert_equal(
                    jax.random.key_data(stream(seed, name)), jax.random.key_data(wanted)
                )


class TestStep:
    def test_a_step_has_a_random_key_of_its_own(self):
        def noise(params, batch, free, rng):
            return Estimate({'seen': jax.random.normal(rng, (SIZE,))}, None, INFO)

        experiment = tally(learn=noise)
        ends = [np.zeros(SIZE)]
        for num_steps in (1, 2, 3):
            state, _ = run_chunk(experiment, init_state(experiment), 0, 0, num_steps)
            ends.append(np.asarray(state.params['seen']))
        first, second, third = np.diff(ends, axis=0)
        assert np.abs(first - second).min() > 1e-6
        assert np.abs(second - third).min() > 1e-6

    def test_homeostasis_is_weighed(self):
        slope = jnp.arange(float(SIZE))
        plain, weighed = (
            run_chunk(experiment, init_state(experiment), 0, 0, 2)
            for experiment in (
                tally(),
                tally(
                    penalty=lambda params, *_: 10 + jnp.vdot(slope, params['seen']),
                    penalty_weight=0.5,
                ),
            )
        )
        moved = weighed[0].params['seen'] - plain[0].params['seen']
        np.testing.assert_allclose(moved, -2 * 0.5 * slope, 1e-12)
        first, _ = run_chunk(tally(), init_state(tally()), 0, 0, 1)
        after_one = first.params['seen'] - 0.5 * slope
        wanted = 10 + np.vdot(slope, after_one) / 2  # mean of both steps; 10 at first
        np.testing.assert_allclose(weighed[1].metrics['homeostasis'], wanted, 1e-12)
        assert 'homeostasis' not in plain[1].metrics


def plain_mlp(params, x):
    """The logits of a feed-forward network, written out."""
    rates = x.reshape(len(x), -1)
    for name in ('layer_1', 'layer_2'):
        u = rates @ params[name]['kernel'] + params[name]['bias'][None]
        rates = 1 / (1 + jnp.exp(-(4 * u - 2)))
    return rates @ params['readout']['kernel'] + params['readout']['bias'][None]


def plain_cost(params, x, labels):
    log_p = jax.nn.log_softmax(plain_mlp(params, x))
    return -jnp.mean(log_p[jnp.arange(len(labels)), labels])


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    """A feed-forward run in float64: the experiment, its last state, its records."""
    workdir = tmp_path_factory.mktemp('plain')
    experiment = runs.experiment(
        runs.FEEDFORWARD
        | {
            'num_epochs': 3,
            'solver.tol': 1e-14,
            'nudged_solver.tol': 1e-14,
            'optimizer.name': 'adam',
            'optimizer.learning_rate': 0.01,
            'optimizer.schedule': 'cosine',
            'optimizer.weight_decay': 1e-3,
            'optimizer.layers': {'readout': {'learning_rate': 0.003}},
        }
    )._replace(preprocess=lambda images: images.astype(jnp.float64) / 16)
    return experiment, train(experiment, workdir), records.read(workdir)


class TestAgainstPlainBackprop:
    """A feed-forward network: exact gradients are those of ordinary backprop."""

    @pytest.mark.typed
    def test_the_loop_is_a_plain_loop(self, plain):
        """Adam on g + λθ with a cosine, by optax, one Python step after the other."""
        experiment, state, rows = plain
        images = np.asarray(experiment.dataset.train.images) / 16.0
        labels = np.asarray(experiment.dataset.train.labels)
        params = init_state(experiment).params
        rate = {'layer_1': 0.01, 'layer_2': 0.01, 'readout': 0.003}
        rules = {
            name: optax.adam(optax.cosine_decay_schedule(r, 15))
            for name, r in rate.items()
        }
        memory = {name: rules[name].init(params[name]) for name in rules}
        losses = []
        cost = jax.jit(jax.value_and_grad(plain_cost))
        for epoch in range(3):
            key = jax.random.fold_in(stream(0, 'order'), epoch)
            order = np.asarray(jax.random.permutation(key, 110))
            for index in range(5):
                batch = order[20 * index : 20 * (index + 1)]
                loss, grads = cost(params, images[batch], labels[batch])
                losses.append(float(loss))
                for name, rule in rules.items():
                    decayed = jax.tree.map(
                        lambda g, w: g + 1e-3 * w, grads[name], params[name]
                    )
                    update, memory[name] = rule.update(decayed, memory[name])
                    params = {
                        **params,
                        name: optax.apply_updates(params[name], update),
                    }
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, 1e-9, atol=1e-12),
            state.params,
            params,
        )
        assert int(state.step) == 15
        chunks = [(0, 3), (3, 5), (5, 8), (8, 10), (10, 13), (13, 15)]
        written = [row['loss'] for row in rows if row['split'] == 'train']
        wanted = [np.mean(losses[first:stop]) for first, stop in chunks]
        np.testing.assert_allclose(written, wanted, 1e-9)

    @pytest.mark.typed
    @pytest.mark.parametrize('batch_size', [7, 500])
    def test_evaluation(self, plain, batch_size):
        experiment, state, _ = plain
        params, held_out = state.params, experiment.dataset.held_out
        images, labels = np.asarray(held_out.images) / 16.0, held_out.labels
        evaluate = programs.make_evaluate(experiment, batch_size)
        metrics = evaluate(params, pipeline.to_device(held_out))
        wrong = np.argmax(plain_mlp(params, images), axis=1) != labels
        assert 0 < np.mean(wrong) < 1
        np.testing.assert_allclose(metrics['error'], np.mean(wrong))
        np.testing.assert_allclose(
            metrics['loss'], plain_cost(params, images, labels), 1e-9
        )

    def test_the_last_records_are_those_of_the_last_params(self, plain):
        experiment, state, rows = plain
        digits = load_digits()
        images = digits.images.astype(np.uint8)[..., None]
        pixels = {
            image.tobytes(): label
            for image, label in zip(images, digits.target, strict=True)
        }
        test = experiment.dataset.test
        labels = [pixels[image.tobytes()] for image in test.images]
        loss = plain_cost(state.params, np.asarray(test.images) / 16.0, labels)
        row = [row for row in rows if row['split'] == 'test'][-1]
        assert (row['step'], row['epoch']) == (15, 3.0)
        np.testing.assert_allclose(row['loss'], loss, 1e-9)


class TestSameRun:
    def seen(self, tmp_path, **changes):
        """The end of a run whose gradients depend on batch, params and random key."""

        def estimate(params, batch, free, rng):
            noise = jax.random.normal(rng, (SIZE,))
            grads = {'seen': count(batch)['seen'] * jnp.cos(params['seen']) + noise}
            return Estimate(grads, None, INFO)

        experiment = tally(learn=estimate, num_epochs=3, **changes)
        workdir = tmp_path / str(len(list(tmp_path.iterdir())))
        return np.asarray(train(experiment, workdir).params['seen'])

    def test_logging_and_evaluation_change_nothing(self, tmp_path):
        first = self.seen(tmp_path)
        for log_every, eval_every in ((1, 0), (100, 0), (3, 5)):
            other = self.seen(
                tmp_path, log_every_steps=log_every, eval_every_steps=eval_every
            )
            np.testing.assert_array_equal(other, first)

    def test_the_seed_decides(self, tmp_path):
        first = self.seen(tmp_path)
        np.testing.assert_array_equal(self.seen(tmp_path), first)
        assert np.abs(self.seen(tmp_path, seed=1) - first).min() > 1e-3

    @pytest.mark.whole
    def test_of_a_network(self, tmp_path):
        params = [
            train(
                runs.experiment({'estimator.contour': 'random_sign', **changes}),
                tmp_path / str(index),
            ).params
            for index, changes in enumerate(({}, {'log_every_steps': 1}))
        ]
        assert_equal(params[0], params[1])


@pytest.mark.whole
def test_the_program_does_not_grow_with_the_bound_on_steps():
    def size(max_steps):
        experiment = runs.experiment(
            {'solver.max_steps': max_steps, 'nudged_solver.max_steps': max_steps}
        )
        state = init_state(experiment)
        split = pipeline.to_device(experiment.dataset.train)
        chunk = programs.make_train_chunk(experiment)
        position = (jnp.int32(0), jnp.int32(0), jnp.int32(1))
        return len(chunk.lower(state, split, *position).as_text())

    assert size(10) == size(99)
