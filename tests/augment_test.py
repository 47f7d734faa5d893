"""Crops and mirror images against slices of NumPy's pads, and runs that use them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import runs
from runs import assert_equal, run_chunk, train
from tally import INFO, SIZE, tally

from eqprop_jax.data import Dataset, Split, augmentation, normalizer
from eqprop_jax.data import _pipeline as pipeline
from eqprop_jax.training import programs
from eqprop_jax.training.diagnose import first_examples
from eqprop_jax.training.state import init_state, stream
from eqprop_jax.types import Estimate

MODES = {'zero': 'constant', 'edge': 'edge', 'reflect': 'reflect'}


def noise(num, height, width, channels=3):
    """Images of which no two pixels or crops are likely to be the same."""
    shape = (num, height, width, channels)
    return np.random.default_rng(0).integers(1, 256, shape, dtype=np.uint8)


def crops(image, pad, mode, flip=True):
    """Every result there can be, by (row, column, mirrored), cut out by NumPy."""
    height, width, _ = image.shape
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode=mode)
    return {
        (row, column, mirrored): crop[:, ::-1] if mirrored else crop
        for row in range(2 * pad + 1)
        for column in range(2 * pad + 1)
        for crop in [padded[row : row + height, column : column + width]]
        for mirrored in ((False, True) if flip else (False,))
    }


def matches(image, result, pad, mode='constant'):
    """The keys of the crops that a result is equal to."""
    return [
        key
        for key, crop in crops(image, pad, mode).items()
        if np.array_equal(crop, result)
    ]


def drawn(images, results, pad):
    """What was drawn for each image: the one crop that its result is equal to."""
    found = [
        matches(image, result, pad)
        for image, result in zip(images, np.asarray(results), strict=True)
    ]
    assert all(len(keys) == 1 for keys in found)
    return np.array([keys[0] for keys in found])


def assert_uniform(values, num_choices):
    """Asserts that χ² of the counts is within five standard deviations of its mean."""
    counts = np.bincount(values, minlength=num_choices)
    expected = len(values) / num_choices
    statistic = np.sum((counts - expected) ** 2) / expected
    freedom = num_choices - 1
    assert len(counts) == num_choices
    assert abs(statistic - freedom) < 5 * np.sqrt(2 * freedom)


class TestPixels:
    @pytest.mark.parametrize('padding', MODES)
    @pytest.mark.parametrize(('height', 'width'), [(5, 5), (4, 7)])
    @pytest.mark.parametrize('channels', [1, 3])
    def test_every_offset_and_side_is_a_slice_of_numpys_pad(
        self, padding, height, width, channels
    ):
        images = noise(600, height, width, channels)
        augment = jax.jit(augmentation(pad=2, flip=True, padding=padding))
        results = augment(jax.random.key(1), images)
        assert (results.shape, results.dtype) == (images.shape, jnp.uint8)
        found = [
            matches(image, result, 2, MODES[padding])
            for image, result in zip(images, np.asarray(results), strict=True)
        ]
        assert all(found)  # a reflection may be its own mirror image, and match twice
        assert len({key for keys in found for key in keys}) == 5 * 5 * 2

    @pytest.mark.parametrize('padding', ['zero', 'edge'])
    def test_offsets_beyond_the_image(self, padding):
        image = noise(1, 2, 3)
        images = np.repeat(image, 800, axis=0)
        augment = jax.jit(augmentation(pad=4, padding=padding))
        results = augment(jax.random.key(0), images)
        wanted = crops(image[0], 4, MODES[padding], flip=False).values()
        wanted = {crop.tobytes() for crop in wanted}
        assert {result.tobytes() for result in np.asarray(results)} == wanted

    def test_flips_alone(self):
        images = noise(200, 4, 5)
        results = jax.jit(augmentation(flip=True))(jax.random.key(0), images)
        mirrored = drawn(images, results, 0)[:, 2]
        assert 60 < mirrored.sum() < 140

    def test_neither_does_nothing_and_draws_nothing(self):
        images = jnp.asarray(noise(3, 4, 5))
        program = jax.make_jaxpr(augmentation())(jax.random.key(0), images)
        assert not program.eqns
        assert_equal(augmentation()(jax.random.key(0), images), images)


class TestDraws:
    def test_all_offsets_and_sides_are_equally_likely(self):
        images = noise(6000, 3, 4, 1)
        augment = jax.jit(augmentation(pad=1, flip=True))
        found = drawn(images, augment(jax.random.key(3), images), 1)
        rows, columns, mirrored = found.T
        assert_uniform(rows, 3)
        assert_uniform(columns, 3)
        assert_uniform(mirrored, 2)
        assert_uniform((rows * 3 + columns) * 2 + mirrored, 18)
        # nor does an image's draw say anything about that of its neighbour
        offsets = rows * 3 + columns
        assert_uniform(offsets[::2] * 9 + offsets[1::2], 81)
        assert_uniform(mirrored[::2] * 2 + mirrored[1::2], 4)

    def test_keys_are_equally_fair(self):
        """One image, many keys: the draws over the steps of a run."""
        image = noise(1, 3, 4, 1)
        keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(5)))(
            jnp.arange(3000)
        )
        augment = augmentation(pad=1, flip=True)
        results = jax.jit(jax.vmap(augment, (0, None)))(keys, image)[:, 0]
        found = drawn(np.repeat(image, 3000, axis=0), results, 1)
        assert_uniform((found[:, 0] * 3 + found[:, 1]) * 2 + found[:, 2], 18)

    def test_the_key_decides(self):
        images = jnp.asarray(noise(50, 5, 5))
        augment = augmentation(pad=2, flip=True)
        first, again, other = (
            np.asarray(augment(jax.random.key(seed), images)) for seed in (0, 0, 1)
        )
        np.testing.assert_array_equal(first, again)
        np.testing.assert_array_equal(
            jax.jit(augment)(jax.random.key(0), images), first
        )
        assert (first != other).any(axis=(1, 2, 3)).sum() > 40

    def test_the_pad_does_not_change_who_is_mirrored(self):
        images = noise(100, 5, 5)
        sides = [
            drawn(
                images,
                jax.jit(augmentation(pad=pad, flip=True))(jax.random.key(0), images),
                pad,
            )[:, 2]
            for pad in (0, 1, 2)
        ]
        np.testing.assert_array_equal(sides[0], sides[1])
        np.testing.assert_array_equal(sides[0], sides[2])


class TestRefusals:
    @pytest.mark.parametrize('pad', [-1, 1.5, 2.0, True, '2', None])
    def test_pad(self, pad):
        # where types are checked, they are so before the function is
        with pytest.raises((ValueError, TypeError), match='pad'):
            augmentation(pad=pad)

    def test_padding(self):
        with pytest.raises(ValueError, match="'wrap'; choose from zero, edge, reflect"):
            augmentation(pad=2, padding='wrap')

    @pytest.mark.parametrize('shape', [(4, 9), (9, 4), (3, 3)])
    def test_reflections_need_images_larger_than_the_pad(self, shape):
        augment = augmentation(pad=4, padding='reflect')
        images = jax.ShapeDtypeStruct((2, *shape, 3), jnp.uint8)
        with pytest.raises(ValueError, match='pad=4 .*not . x .: choose a smaller pad'):
            jax.eval_shape(augment, jax.random.key(0), images)
        fits = jax.ShapeDtypeStruct((2, 5, 5, 3), jnp.uint8)
        assert jax.eval_shape(augment, jax.random.key(0), fits).shape == fits.shape


def shifted(rng, images, rows):
    """Stands in for an augmentation: numbers that say which key there was."""
    return images + jax.random.randint(rng, (), 1, 100).astype(jnp.uint8)


def inputs(params, batch, free, rng):
    """A gradient that is the sum of the step's inputs, with a sign of its own."""
    return Estimate({'seen': jnp.full(SIZE, -jnp.sum(batch.x))}, None, INFO)


@pytest.mark.whole
class TestTraining:
    def test_the_key_is_that_of_seed_and_step(self):
        plain, augmented = (
            tally(learn=inputs, optimizer=optax.sgd(1.0), seed=4, augment=augment)
            for augment in (None, shifted)
        )
        ends = []
        for num_steps in range(4):
            totals = [
                float(
                    run_chunk(run, init_state(run), 0, 0, num_steps)[0].params['seen'][
                        0
                    ]
                )
                for run in (plain, augmented)
            ]
            ends.append(totals[1] - totals[0])
        for step, moved in enumerate(np.diff(ends)):
            rng = jax.random.fold_in(stream(4, 'augment'), step)
            shift = int(jax.random.randint(rng, (), 1, 100))
            assert moved == augmented.batch_size * shift
        assert len(set(np.diff(ends))) == 3

    def test_the_program_of_a_plain_run_has_no_augmentation(self):
        def program(experiment):
            state = init_state(experiment)
            split = pipeline.to_device(experiment.dataset.train)
            position = (jnp.int32(0), jnp.int32(0), jnp.int32(1))
            chunk = programs.make_train_chunk(experiment)
            return str(jax.make_jaxpr(chunk)(state, split, *position))

        off = program(runs.experiment({'data.augment.padding': 'edge'}))
        assert off == program(runs.experiment(without='data.augment'))
        assert off != program(runs.experiment({'data.augment.flip': True}))

    def test_chunks_of_any_length_are_the_same_run(self, tmp_path):
        section = {'data.augment': {'pad': 1, 'flip': True}}
        ends = [
            train(
                runs.experiment(section | {'log_every_steps': every}),
                tmp_path / str(every),
            ).params
            for every in (1, 2, 100)
        ]
        assert_equal(ends[1], ends[0])
        assert_equal(ends[2], ends[0])
        plain = train(runs.experiment(), tmp_path / 'plain').params
        other = train(runs.experiment(section | {'seed': 1}), tmp_path / 'other').params
        for params in (plain, other):
            kernel = params['layer_1']['kernel']
            assert np.abs(kernel - ends[0]['layer_1']['kernel']).max() > 1e-4

    def test_a_run_goes_on_from_any_step(self):
        experiment = runs.experiment({'data.augment': {'pad': 1, 'flip': True}})
        whole, _ = run_chunk(experiment, init_state(experiment), 0, 0, 5)
        for first in (1, 3):
            state, _ = run_chunk(experiment, init_state(experiment), 0, 0, first)
            state, _ = run_chunk(experiment, state, 0, first, 5 - first)
            assert_equal(state, whole)

    def test_evaluation_and_diagnosis_see_the_images_themselves(self):
        def fail(rng, images, rows):
            raise AssertionError('augmented')

        plain = runs.experiment()
        augmented = plain._replace(augment=fail)
        params = init_state(plain).params
        split = pipeline.to_device(plain.dataset.train)
        batch = first_examples(plain, 20)
        for make in (
            lambda run: programs.make_evaluate(run)(params, split),
            lambda run: programs.make_diagnose(run)(params, jax.random.key(0), batch),
            lambda run: first_examples(run, 7),
        ):
            assert_equal(make(augmented), make(plain))
        with pytest.raises(AssertionError, match='augmented'):
            run_chunk(augmented, init_state(augmented), 0, 0, 1)


@pytest.fixture(scope='module')
def large():
    """A run on 2.56 MB of images."""
    images = np.random.default_rng(0).integers(
        0, 256, (40_000, 8, 8, 1), dtype=np.uint8
    )
    split = Split(images, np.zeros(len(images), np.int32))
    data = Dataset('large', split, split, split, num_classes=10, scale=255.0)
    changes = {'data.augment': {'pad': 2, 'flip': True}}
    return runs.experiment(runs.FEEDFORWARD | changes)._replace(
        dataset=data, preprocess=normalizer(data, 'standard', 1.5)
    )


@pytest.mark.whole
class TestMemory:
    """What a run needs beside the uint8 images does not grow with the data set."""

    def temporary(self, fn, *args):
        """Bytes that the compiled function allocates beside arguments and results."""
        return jax.jit(fn).lower(*args).compile().memory_analysis().temp_size_in_bytes

    def test_of_the_device(self, large):
        split = pipeline.to_device(large.dataset.train)
        assert split.images.nbytes == large.dataset.train.images.nbytes
        state = init_state(large)
        position = (jnp.int32(0), jnp.int32(0), jnp.int32(1))
        uses = {
            'training': self.temporary(
                programs.make_train_chunk(large), state, split, *position
            ),
            'evaluation': self.temporary(
                programs.make_evaluate(large), state.params, split
            ),
        }
        # less than the bytes themselves, of which a float copy would take four times
        assert max(uses.values()) < split.images.nbytes, uses
        whole = self.temporary(
            lambda x: jnp.sort(large.preprocess(x).ravel())[:9], split.images
        )
        assert whole >= 4 * split.images.nbytes  # such a copy would be seen
