"""Random crops and mirror images, on the device, inside the jitted training step."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8

PADDINGS = ('zero', 'edge', 'reflect')

Augment = Callable[..., UInt8[Array, 'B height width channels']]
"""(rng, images, numbers of the examples) -> images."""


def augmentation(*, pad: int = 0, flip: bool = False, padding: str = 'zero') -> Augment:
    """Returns the map from raw images to shifted and mirrored ones.

        x'[i, j] = x̃[i + a, j + b]            with probability 1/2 if `flip`:
        x'[i, j] = x̃[i + a, W − 1 − j + b]    a, b uniform in {−p, ..., p}

    x̃ is the image, continued p pixels beyond its edges. Every image has an offset
    (a, b) and a side of its own. All that is random comes from the key; whether an
    image is mirrored does not depend on p. No padded copy is made: one gather reads the
    batch.

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
        move = functools.partial(_move, rng, pad=pad, flip=flip, padding=padding)
        return jax.vmap(move)(images, numbers)

    return augment


def _move(
    rng: Array,
    image: UInt8[Array, 'height width channels'],
    number: Int[Array, ''],
    *,
    pad: int,
    flip: bool,
    padding: str,
) -> UInt8[Array, 'height width channels']:
    """Returns one image, shifted and mirrored as the key and its number say."""
    height, width, _ = image.shape
    rows = jnp.arange(height, dtype=jnp.int32)
    columns = jnp.arange(width, dtype=jnp.int32)
    offset_rng, flip_rng = jax.random.split(rng)
    if flip:
        mirrored = jax.random.bernoulli(jax.random.fold_in(flip_rng, number))
        columns = jnp.where(mirrored, columns[::-1], columns)
    if pad:
        key = jax.random.fold_in(offset_rng, number)
        down, right = jax.random.randint(key, (2,), -pad, pad + 1, jnp.int32)
        rows, columns = rows + down, columns + right
    if padding == 'reflect':
        rows = height - 1 - jnp.abs(height - 1 - jnp.abs(rows))
        columns = width - 1 - jnp.abs(width - 1 - jnp.abs(columns))
    return image.at[rows[:, None], columns[None, :]].get(
        mode='fill' if padding == 'zero' else 'clip',
        fill_value=0,
        wrap_negative_indices=False,
    )
