"""Data of one's own: arrays, files and folders; classes, and continuous targets."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import runs
from PIL import Image

from eqprop_jax import config, records
from eqprop_jax import data as ep_data
from eqprop_jax.data import from_arrays, load
from eqprop_jax.training import metrics

RANDOM = np.random.RandomState(0)
X = RANDOM.randint(0, 255, (60, 5, 4), np.uint8)
Y = np.arange(60) % 3
DAMAGED = np.where(np.arange(60)[:, None, None] == 7, np.nan, X)
INFINITE = np.where(Y == 2, np.inf, Y)


class TestFromArrays:
    def test_images_and_classes(self):
        found = from_arrays((X, Y), (X[:7], Y[:7]), held_out=6)
        sizes = [len(s.labels) for s in (found.train, found.held_out, found.test)]
        assert sizes == [54, 6, 7]
        assert (found.num_classes, found.num_outputs, found.scale) == (3, 3, 255)
        assert found.train.images.shape == (54, 5, 4, 1)
        assert found.train.images.dtype == np.uint8
        both = np.concatenate([found.train.images, found.held_out.images])[..., 0]
        np.testing.assert_array_equal(
            np.sort(both.reshape(60, -1), axis=0), np.sort(X.reshape(60, -1), axis=0)
        )
        for image, label in zip(*found.train, strict=True):
            (where,) = np.flatnonzero((image[..., 0] == X).all((1, 2)))
            assert Y[where] == label
        np.testing.assert_array_equal(found.test.images[..., 0], X[:7])

    def test_without_a_test_set_a_sixth_is_drawn_by_class(self):
        found = from_arrays((X, Y))
        sizes = [len(s.labels) for s in (found.train, found.held_out, found.test)]
        assert sizes == [45, 5, 10]
        assert set(np.bincount(found.test.labels)) <= {3, 4}

    @pytest.mark.parametrize(
        ('x', 'kind', 'scale', 'shape'),
        [
            (X.astype(np.uint16) * 257, np.uint16, 65535, (5, 4, 1)),
            (X / 255, np.float32, 1, (5, 4, 1)),
            (X > 100, np.float32, 1, (5, 4, 1)),
            (X.astype(int) - 7, np.float32, 1, (5, 4, 1)),
            (X.reshape(60, 20) / 255, np.float32, 1, (20,)),
            (X[:, 0, 0].astype(float), np.float32, 1, (1,)),
            (np.stack([X] * 3, -1), np.uint8, 255, (5, 4, 3)),
            ([Image.fromarray(x) for x in X], np.uint8, 255, (5, 4, 1)),
            (jnp.asarray(X), np.uint8, 255, (5, 4, 1)),
        ],
    )
    def test_inputs_of_other_kinds(self, x, kind, scale, shape):
        found = from_arrays((x, list(Y)), (x[:5], Y[:5]), held_out=0)
        assert found.train.images.dtype == kind
        assert found.scale == scale
        assert found.train.images.shape[1:] == shape

    def test_continuous_targets(self):
        y = RANDOM.normal(size=(60, 2, 2))
        found = from_arrays((X, y), (X, y), held_out=6)
        assert found.num_classes is None
        assert found.num_outputs == 4
        rest = found.train.labels.reshape(54, 4)
        wanted = np.mean(np.sum((rest - rest.mean(axis=0)) ** 2, axis=1))
        assert found.variance == pytest.approx(wanted)
        assert from_arrays((X, y[:, 0, 0])).train.labels.shape == (45, 1)

    @pytest.mark.parametrize(
        ('options', 'parts'),
        [
            ({'train': (X, Y[:9])}, ['60 images but 9 labels']),
            ({'train': (X, np.eye(3)[Y].astype(int))}, ['one-hot', 'argmax']),
            ({'train': (X, [f'{y}' for y in Y])}, ['targets', 'no numbers']),
            ({'train': (X + 0.5j, Y)}, ['inputs are complex128']),
            ({'train': ([X[0], X[1, :2]], Y[:2])}, ['make no array']),
            ({'train': (3, Y)}, ['make no array']),
            ({'train': (X, Y - 1)}, ['label -1', 'outside 0 to 1']),
            ({'train': (X, Y + 2**32)}, ['label -1']),
            ({'train': (DAMAGED, Y), 'test': (DAMAGED, Y)}, ['image 7', 'NaN']),
            ({'train': (X, INFINITE), 'test': (X, INFINITE)}, ['target 2', 'NaN']),
            (
                {'train': (X, np.ones(60)), 'test': None},
                ['all training targets are the same'],
            ),
            ({'test': (X, Y + 1)}, ["'test'", 'label 3']),
            ({'test': (X[:, :3], Y)}, ['(3, 4, 1)', '(5, 4, 1)']),
            ({'test': (X / 255, Y)}, ['types of training and test']),
            ({'test': (X, Y / 1)}, ['types of training and test', 'float']),
            ({'num_classes': 2}, ['label 2', 'outside 0 to 1']),
            ({'train': (X, Y / 1), 'test': None, 'num_classes': 2}, ['make them int']),
            ({'train': (X, Y + 1), 'test': None}, ['class 0', 'np.unique']),
            ({'train': (X, 2 * Y), 'test': None}, ['class 1', 'without a gap']),
            ({'train': X}, ['has to be a pair']),
            ({'train': (X, Y, Y)}, ['has to be a pair']),
            ({'train': (np.ma.masked_less(X, 9), Y)}, ['are masked']),
            ({'train': (X, np.uint64(Y) + np.uint64(2**40))}, ['label -1']),
            ({'train': (X, Y - 2**40)}, ['label -1']),
            ({'held_out': 0.1}, ['held_out is a number of examples']),
            ({'scale': 0.0}, ['scale has to be positive']),
            ({'held_out': 60}, ['held_out = 60']),
            ({'num_train': 0}, ['num_train = 0']),
            ({'train': (X[:0], Y[:0])}, ['is empty']),
        ],
    )
    def test_refusals(self, options, parts):
        with pytest.raises(ValueError, match='.') as raised:
            from_arrays(**{'train': (X, Y), 'test': (X, Y)} | options)
        for part in parts:
            assert part in str(raised.value)


class TestRanges:
    """Of what single precision, or JAX's 32 bits, would lose without a word."""

    RANDOM = np.random.default_rng(0)
    X = RANDOM.integers(0, 17, (40, 5))
    Y = np.arange(40) % 2

    def standard(self, x):
        data = from_arrays((x, self.Y), (x, self.Y), held_out=0)
        return np.asarray(ep_data.normalizer(data, 'standard')(data.train.images))

    @pytest.mark.parametrize('factor', [1e-25, 1e-9, 1.0, 1e12])
    @pytest.mark.parametrize('offset', [0.0, 1e3])
    def test_standard_is_standard_at_any_scale(self, factor, offset):
        found = self.standard((self.X + offset) * factor)
        np.testing.assert_allclose(found.mean(0), 0, atol=1e-4)
        np.testing.assert_allclose(found.std(0), 1, rtol=1e-4)

    def test_what_is_constant_is_zero(self):
        np.testing.assert_array_equal(self.standard(np.full((40, 5), 0.1)), 0)

    def test_integers_of_64_bits(self):
        small = self.standard(self.X.astype(np.float32))
        wide = self.X.astype(np.uint64) << np.uint64(40)
        np.testing.assert_allclose(self.standard(wide), small, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize('dtype', ['>u2', '>f4', '>i8'])
    def test_of_another_byte_order(self, dtype):
        small = self.standard(self.X.astype(np.float32))
        found = self.standard(self.X.astype(dtype))
        np.testing.assert_allclose(found, small, rtol=1e-5, atol=1e-6)

    def test_what_is_lost_is_told(self, caplog):
        self.standard(self.X * 1e-3 + 1.7e9)
        assert 'differ by less than single precision keeps' in caplog.text
        caplog.clear()
        self.standard(self.X + 0.1)
        assert not caplog.text


class TestPath:
    def test_a_file_without_a_test_set(self, tmp_path):
        np.savez(tmp_path / 'mine.npz', x_train=X, y_train=Y)
        assert len(load('', path=str(tmp_path / 'mine.npz')).test.labels) == 10

    def test_a_file_of_arrays(self, tmp_path):
        path = tmp_path / 'mine.npz'
        np.savez(path, x_train=X / 255, y_train=Y, x_test=X[:5] / 255, y_test=Y[:5])
        found = load('digits', path=str(path), held_out=10)
        assert (found.name, found.num_classes, found.scale) == ('mine', 3, 1)
        assert len(found.train.labels) == 50
        np.testing.assert_allclose(found.test.images[..., 0], X[:5] / 255, rtol=1e-6)

    def test_a_folder_of_images(self, tmp_path):
        for split, images in (('train', X[:12]), ('test', X[12:18])):
            for number, image in enumerate(images):
                folder = tmp_path / split / 'abc'[number % 3]
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(folder / f'{number:03}.png')
        found = load('', path=str(tmp_path), held_out=0)
        assert found.num_classes == 3
        order = np.argsort(np.arange(12) % 3, kind='stable')
        np.testing.assert_array_equal(found.train.images[..., 0], X[:12][order])
        np.testing.assert_array_equal(found.train.labels, np.repeat(np.arange(3), 4))

    def test_nothing_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match='no file or folder'):
            load('digits', path=str(tmp_path / 'absent'))


def regression(size=200):
    """Inputs, and what they cause through two hidden units."""
    x = RANDOM.normal(size=(size, 6)).astype(np.float32)
    hidden = np.tanh(x @ RANDOM.normal(size=(6, 2)))
    return x, (hidden @ np.array([[0.5, 0.2], [-0.3, 0.4]])).astype(np.float32)


def test_the_error_of_continuous_targets_is_what_is_not_explained():
    scores, y = RANDOM.normal(size=(2, 50, 3))
    variance = float(np.sum(np.var(y, axis=0)))
    found = metrics.errors(jnp.asarray(scores), jnp.asarray(y), variance)
    from sklearn.metrics import r2_score

    wanted = 1 - r2_score(y, scores, multioutput='variance_weighted')
    assert float(jnp.mean(found)) == pytest.approx(wanted)


REGRESSION = {
    'system.sizes': (6, 12, 2),
    'system.feedback': 'tied',
    'system.activation': ('tanh', 'identity'),
    'system.cost': 'squared_error',
    'data.normalization': 'standard',
    'data.held_out': 20,
    'data.num_train': None,
    'estimator.radius': 0.1,
    'optimizer.learning_rate': 0.01,
    'num_epochs': 30,
}


@pytest.mark.whole
@pytest.mark.parametrize('devices', [1, 2])
def test_a_regression_is_learned_from_a_file(tmp_path, devices):
    """Of 203 examples two devices have shares that are filled up."""
    x, y = regression(203)
    path, workdir = tmp_path / 'own.npz', tmp_path / 'run'
    np.savez(path, x_train=x[:153], y_train=y[:153], x_test=x[153:], y_test=y[153:])
    own = {'data.path': str(path), 'mesh.data': devices}
    run = runs.experiment({**REGRESSION, **own})
    runs.train(run, workdir)
    rows = records.read(workdir)
    first, last = (
        next(r['error'] for r in order if r['split'] == 'test')
        for order in (rows, rows[::-1])
    )
    assert last < 0.3 < first
    result = runs.launch(
        'evaluate', f'--workdir={workdir}', '--json=e.json', cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / 'e.json').read_text())['found']
    assert found['error'] == pytest.approx(last, rel=1e-4)
    assert found['top_5_error'] is None
    assert found['class_errors'] == []
    scores = predicted(run, workdir, x[153:])
    variance = run.dataset.variance
    wanted = np.mean(np.sum((scores - y[153:]) ** 2, axis=1)) / variance
    assert found['error'] == pytest.approx(wanted, rel=1e-3)


def predicted(run, workdir, x):
    """Returns what the network of a run says to inputs."""
    import eqprop_jax as ep

    _, state = config.restored(workdir)
    free = ep.relax(run.system, state.params, run.preprocess(jnp.asarray(x)), run.solve)
    return np.asarray(run.system.predict(state.params, free.rates))


@pytest.mark.parametrize(
    ('changes', 'part'),
    [
        ({'system.cost': 'cross_entropy', 'system.activation': 'tanh'}, 'no classes'),
        ({'system.sizes': (6, 12, 3)}, "scores 3 numbers but 'own' has 2"),
    ],
)
def test_what_does_not_fit_continuous_targets(tmp_path, changes, part):
    x, y = regression()
    np.savez(tmp_path / 'own.npz', x_train=x, y_train=y, x_test=x, y_test=y)
    own = {'data.path': str(tmp_path / 'own.npz')}
    with pytest.raises(config.ConfigError, match=part):
        runs.experiment({**REGRESSION, **own, **changes})


def test_the_public_name():
    assert ep_data.from_arrays is from_arrays
