"""From pixels to batches, against scikit-learn's arrays and NumPy's moments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from eqprop_jax.data import (
    Dataset,
    Split,
    epoch_order,
    load,
    normalizer,
    take,
    to_device,
)


def coloured(num=9000):
    """Images of three channels with moments of their own, one of them constant."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (num, 2, 2, 3), dtype=np.uint8)
    images[..., 1] //= 4
    images[..., 2] = 7
    split = Split(images, random.integers(0, 5, num, dtype=np.int32))
    return Dataset('coloured', split, split, split, num_classes=5, scale=255.0)


class TestNormalizer:
    def test_unit_divides_by_the_scale(self):
        data = load('digits', held_out=0)
        pixels = {image.tobytes(): image for image in load_digits().images}
        x = normalizer(data, 'unit')(jnp.asarray(data.train.images[:20]))
        assert x.dtype == jnp.float32
        for image, inputs in zip(data.train.images[:20, ..., 0], x, strict=True):
            wanted = pixels[image.astype(float).tobytes()] / 16
            np.testing.assert_array_equal(inputs[..., 0], wanted)

    def test_standard_has_moments_zero_and_one(self):
        data = coloured()
        x = np.asarray(normalizer(data, 'standard')(jnp.asarray(data.train.images)))
        x = x.astype(np.float64)
        np.testing.assert_allclose(x.mean((0, 1, 2)), 0, atol=1e-5)
        np.testing.assert_allclose(x.std((0, 1, 2)), [1, 1, 0], atol=1e-5)
        raw = data.test.images.astype(np.float64)
        wanted = (raw - raw.mean((0, 1, 2))) / np.maximum(raw.std((0, 1, 2)), 1e-6)
        np.testing.assert_allclose(x, wanted, atol=1e-5)

    @pytest.mark.parametrize('factor', [1.5, 0.25, 2.0])
    def test_std_factor_divides_the_spread(self, factor):
        data = coloured()
        raw = data.test.images.astype(np.float64)
        wanted = (
            (raw - raw.mean((0, 1, 2)))[..., :2] / factor / raw[..., :2].std((0, 1, 2))
        )
        x = normalizer(data, 'standard', factor)(jnp.asarray(data.train.images))
        np.testing.assert_allclose(x[..., :2], wanted, atol=1e-5)

    def test_unit_does_not_use_the_std_factor(self):
        data = coloured(9)
        images = jnp.asarray(data.train.images)
        x = normalizer(data, 'unit', 1.5)(images)
        np.testing.assert_allclose(x, data.train.images / 255, 1e-6)

    @pytest.mark.parametrize('factor', [0.0, -1.5, np.inf, np.nan])
    @pytest.mark.parametrize('normalization', ['unit', 'standard'])
    def test_std_factor_is_positive(self, normalization, factor):
        message = f'std_factor has to be positive and finite, not {factor}'
        with pytest.raises(ValueError, match=message):
            normalizer(coloured(3), normalization, factor)

    def test_unknown(self):
        with pytest.raises(ValueError, match="'wide'; choose from unit, standard"):
            normalizer(coloured(3), 'wide')


def test_take_gives_the_examples_named():
    data = coloured(50)
    positions = np.array([7, 7, 49, 0])
    batch = take(
        to_device(data.train), jnp.asarray(positions), normalizer(data, 'unit'), 5
    )
    wanted = data.train.images[positions] / 255
    np.testing.assert_allclose(batch.x, wanted, 1e-6)
    np.testing.assert_array_equal(batch.y, np.eye(5)[data.train.labels[positions]])
    assert batch.y.dtype == batch.x.dtype == jnp.float32


def test_take_augments_the_raw_images():
    data = coloured(50)
    positions = np.array([3, 3, 11])
    batch = take(
        to_device(data.train),
        jnp.asarray(positions),
        normalizer(data, 'unit'),
        5,
        augment=lambda images, rows: images[:, ::-1] // 2,
    )
    wanted = (data.train.images[positions, ::-1] // 2) / 255
    np.testing.assert_allclose(batch.x, wanted, 1e-6)
    np.testing.assert_array_equal(batch.y, np.eye(5)[data.train.labels[positions]])


@pytest.mark.parametrize('rows', [slice(None), slice(1, None)])
def test_the_device_holds_the_bytes_of_a_memory_map(tmp_path, rows):
    data = coloured(50)
    np.save(tmp_path / 'images.npy', data.train.images)
    images = np.load(tmp_path / 'images.npy', mmap_mode='r')
    split = to_device(Split(images[rows], data.train.labels[rows]))
    np.testing.assert_array_equal(split.images, data.train.images[rows])
    np.testing.assert_array_equal(split.labels, data.train.labels[rows])
    assert (split.images.dtype, split.labels.dtype) == (jnp.uint8, jnp.int32)


def test_an_order_is_a_permutation_of_its_own():
    orders = [
        tuple(np.asarray(epoch_order(jax.random.key(seed), jnp.int32(epoch), 40)))
        for seed in (0, 1)
        for epoch in (0, 1, 2)
    ]
    assert all(sorted(order) == list(range(40)) for order in orders)
    assert len(set(orders)) == 6
    assert orders[0] == tuple(
        np.asarray(epoch_order(jax.random.key(0), jnp.int32(0), 40))
    )
