"""Random crops and mirror images, on the device, inside the jitted training step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt8

from eqprop_jax import tree

PADDINGS = ('zero', 'edge', 'reflect')

Augment = Callable[..., UInt8[Array, 'B height width channels']]
"""(rng, images, numbers of the examples) -> images."""


def augmentation(*, pad: int = 0, flip: bool = False, padding: str = 'zero') -> Augment:
    """Returns the map from raw images to shifted and mirrored ones.

        x'[i, j] = x̃[i + a, j + b]            with probability 1/2 if `flip`:
        x'[i, j] = x̃[i + a, W − 1 − j + b]    a, b uniform in {−p, ..., p}

    x̃ is the image, continued p pixels beyond its edges. Every image has an offset
    (a, b) and a side of its own. All that is random comes from the key; whether an
    image is mirrored does not depend on p. No padded copy is made: indices beyond an
    edge are mapped back into the image, and one gather reads the batch.

    Mirroring keeps the class of an object, but not that of a digit or a letter.

    Args:
      pad: p, how many pixels an image may move in each direction; 0: none.
      flip: whether half of the images are mirrored left-right.
      padding: what lies beyond the edges, on raw pixels: 'zero' (black, whatever the
        normalization), 'edge' (the nearest pixel) or 'reflect' (the image mirrored at
        its outermost pixels, which are not repeated).

    Returns:
      (rng, images [B, height, width, channels] uint8, numbers [B]) -> images of the
      same shape and type. What an image goes through depends on the key and on its
      number, by default 0 to B − 1. With neither `pad` nor `flip` it returns the images
      and draws nothing. It raises ValueError where `pad` does not fit the images that
      'reflect' continues.

    Raises:
      ValueError: if `pad` is negative or no integer, or for an unknown padding.

    References:
      He et al. 2016, section 4.2 (4 pixels of zeros, and flips), for CIFAR-10,
      https://arxiv.org/abs/1512.03385
    """
    if isinstance(pad, bool) or not isinstance(pad, int | np.integer) or pad < 0:
        raise ValueError(f'pad has to be an integer, 0 or more, not {pad!r}')
    if padding not in PADDINGS:
        raise ValueError(f'no padding {padding!r}; choose from {", ".join(PADDINGS)}')

    def augment(
        rng: Array,
        images: UInt8[Array, 'B height width channels'],
        numbers: Int[Array, ' B'] | None = None,
    ) -> UInt8[Array, 'B height width channels']:
        num_images, height, width, _ = images.shape
        if padding == 'reflect' and pad >= min(height, width):
            raise ValueError(
                f'pad={pad} with padding="reflect" needs images of more than {pad} '
                f'pixels each way, not {height} x {width}: choose a smaller pad, or '
                'padding="edge"'
            )
        if not pad and not flip:
            return images
        if numbers is None:
            numbers = jnp.arange(num_images)
        offset_rng, flip_rng = jax.random.split(rng)
        rows, columns = (
            jnp.broadcast_to(jnp.arange(size, dtype=jnp.int32), (num_images, size))
            for size in (height, width)
        )
        if flip:
            mirrored = tree.per_example_draw(
                lambda key: jax.random.bernoulli(key, shape=(1,)), flip_rng, numbers
            )
            columns = jnp.where(mirrored, columns[:, ::-1], columns)
        if pad:
            offsets = tree.per_example_draw(
                lambda key: jax.random.randint(key, (2,), -pad, pad + 1, jnp.int32),
                offset_rng,
                numbers,
            )
            rows, columns = rows + offsets[:, :1], columns + offsets[:, 1:]
        each = jnp.arange(num_images, dtype=jnp.int32)[:, None, None]
        moved = images[
            each,
            _inside(rows, height, padding)[:, :, None],
            _inside(columns, width, padding)[:, None, :],
        ]
        if not pad or padding != 'zero':
            return moved
        known = _known(rows, height)[:, :, None] & _known(columns, width)[:, None, :]
        return jnp.where(known[..., None], moved, jnp.zeros((), images.dtype))

    return augment


def _inside(
    indices: Int[Array, 'B size'], size: int, padding: str
) -> Int[Array, 'B size']:
    """Returns the indices of the pixels that stand for those beyond the edges."""
    if padding != 'reflect':
        return jnp.clip(indices, 0, size - 1)
    return size - 1 - jnp.abs(size - 1 - jnp.abs(indices))


def _known(indices: Int[Array, 'B size'], size: int) -> Bool[Array, 'B size']:
    """Whether the indices lie within the image."""
    return (indices >= 0) & (indices < size)
