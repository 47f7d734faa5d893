"""Filling the array cache from TFDS; the only module that imports TFDS.

TFDS downloads and prepares a data set once; its images are then copied into the array
cache (`arrays.py`), which `sources.load` reads without TFDS.
"""

import http.client
import importlib
import os
import pathlib
import queue
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from eqprop_jax.data import _arrays as arrays
from eqprop_jax.data._catalog import DATASETS, INSTALL

BATCH = 1024  # images in memory at a time


def prepare(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> pathlib.Path:
    """Write a TFDS image classification set into the array cache.

    TFDS downloads the set first if it has not been prepared under `data_dir`.

    Args:
      name: a key of `DATASETS`, or the name of any TFDS set with images of one size and
        one label each, such as 'kmnist' or 'emnist/letters'.
      data_dir: the folder of all data sets; None means the environment variable
        TFDS_DATA_DIR, or else ~/tensorflow_datasets.
      overwrite: whether to write the cache anew if it exists.

    Returns:
      The folder with the arrays.

    Raises:
      ImportError: if TFDS or TensorFlow is missing.
      ConnectionError: if a download is needed and no host of it can be reached.
      RuntimeError: if TFDS fails to prepare the set.
      ValueError: if TFDS has no such set, or it is not an image classification set.
    """
    if name == 'digits':
        raise ValueError(
            "'digits' is part of scikit-learn: there is nothing to prepare"
        )
    folder = arrays.folder_of(name, data_dir)
    if (folder / 'manifest.json').exists() and not overwrite:
        return folder
    try:
        _fill(folder, name, arrays.data_root(data_dir))
    except ImportError as error:
        raise ImportError(
            f'preparing {name!r} needs TensorFlow Datasets and TensorFlow ({error}): '
            f'run {INSTALL}'
        ) from error
    return folder


def _fill(folder: pathlib.Path, name: str, root: pathlib.Path) -> None:
    """Write the arrays of data set `name`, which TFDS prepares first if need be."""
    tfds: Any = importlib.import_module('tensorflow_datasets')
    source = DATASETS.get(name)
    try:
        builder = tfds.builder(source.tfds_name if source else name, data_dir=root)
    except (AssertionError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f'TFDS cannot build {name!r} ({reason}): choose one of '
            f'{", ".join(list(DATASETS)[1:])}, or another TFDS image classification set'
        ) from error
    keys = _supervised_keys(tfds, builder.info, name)
    if not builder.is_prepared():
        _check_reachable(tfds, builder, name, root / 'downloads')
        try:
            builder.download_and_prepare()
        except (ImportError, OSError):
            raise
        except Exception as error:
            raise RuntimeError(f'TFDS could not prepare {name!r}: {error}') from error
    info = builder.info
    if source:
        origins = (source.train_split, source.test_split)
    else:
        origins = ('train', 'test' if 'test' in info.splits else 'validation')
    image, label = (info.features[key] for key in keys)
    streams = {}
    for split, origin in zip(arrays.SPLITS, origins, strict=True):
        if origin not in info.splits:
            raise ValueError(
                f'TFDS data set {name!r} has no split {origin!r}, only '
                f'{", ".join(info.splits)}'
            )
        shape = (info.splits[origin].num_examples, *image.shape)
        streams[split] = arrays.Stream(shape, _batches(tfds, builder, origin, *keys))
    arrays.write(
        folder,
        name=name,
        num_classes=label.num_classes,
        versions={'data': info.full_name, 'tfds': tfds.__version__},
        splits=streams,
    )


def _supervised_keys(tfds: Any, info: Any, name: str) -> tuple[str, str]:
    """Return the keys of image and label, if they are of a kind that can be cached."""
    features = dict(info.features)
    keys = info.supervised_keys
    image_key, label_key = keys if keys and len(keys) == 2 else ('image', 'label')
    image, label = features.get(image_key), features.get(label_key)
    if not isinstance(image, tfds.features.Image) or not isinstance(
        label, tfds.features.ClassLabel
    ):
        raise ValueError(
            f'TFDS data set {name!r} is not an image classification set: it needs an '
            f'Image and a ClassLabel as supervised keys, and has {", ".join(features)}'
        )
    if None in image.shape or np.dtype(image.np_dtype) != np.uint8:
        raise ValueError(
            f'TFDS data set {name!r} has images of shape {image.shape} and type '
            f'{np.dtype(image.np_dtype)}: only uint8 images of one size can be cached'
        )
    return image_key, label_key


def _batches(
    tfds: Any, builder: Any, split: str, image_key: str, label_key: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield images and labels in the order of TFDS's files, a batch at a time."""
    if builder.info.file_format.value in ('array_record', 'parquet'):
        for example in builder.as_data_source(split):
            yield example[image_key][None], np.array([example[label_key]])
        return
    in_order = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    examples = builder.as_dataset(
        split=split, batch_size=BATCH, shuffle_files=False, read_config=in_order
    )
    for batch in tfds.as_numpy(examples):
        yield batch[image_key], batch[label_key]


def _check_reachable(
    tfds: Any, builder: Any, name: str, downloads: pathlib.Path
) -> None:
    """Raise ConnectionError where TFDS would retry downloads for minutes in vain."""
    url_infos = builder.url_infos or {}
    for url, info in url_infos.items():
        cached = tfds.core.download.resource.get_dl_fname(url, info.checksum)
        places = (f'manual/{info.filename}', cached, f'{builder.name}/{cached}')
        if any((downloads / place).exists() for place in places):
            return
    by_host = {urllib.parse.urlsplit(url).netloc: url for url in url_infos}
    if by_host and not _any_answers(by_host.values()):
        raise ConnectionError(
            f'cannot download {name!r}: no answer from {", ".join(sorted(by_host))}. '
            'Prepare it on a machine with network access and copy its folder '
            f'eqprop_arrays to {downloads.parent}'
        )


def _any_answers(urls: Collection[str], seconds: float = 5.0) -> bool:
    """Return whether a server answers for one of the URLs within some seconds."""
    answers: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def ask(url: str) -> None:
        request = urllib.request.Request(url, method='HEAD')
        try:
            urllib.request.urlopen(request, timeout=seconds).close()
        except urllib.error.HTTPError as error:
            answers.put(error.code < 500)  # a proxy says 502 to 504 for a dead host
        except (OSError, ValueError, http.client.HTTPException):
            answers.put(False)
        else:
            answers.put(True)

    # Daemon threads, because a name lookup cannot be given a time limit.
    for url in urls:
        threading.Thread(target=ask, args=(url,), daemon=True).start()
    try:
        return any(answers.get(timeout=seconds) for _ in urls)
    except queue.Empty:
        return False
