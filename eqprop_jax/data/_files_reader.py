"""Filling the array cache from files of one's own: an .npz, or folders of images.

    images.npz    train_images  uint8 [n, height, width], or with channels behind
                  train_labels  integers [n], from 0 on
                  test_images, test_labels likewise
                  (or x_train, y_train, x_test and y_test, as Keras names them)

    images/       train/<class>/<any name>.png
                  test/<class>/...       (or val, validation)

Images have one size. Labels are 0 to k − 1, and each class is trained on. Classes of
folders are numbered in the order of their names as text (10 comes before 2). Files are
grey if the first one is, or else red, green and blue; transparency is dropped.
"""

import os
import pathlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping

import numpy as np

from eqprop_jax.data import _arrays as arrays
from eqprop_jax.data._catalog import DATASETS
from eqprop_jax.data._splits import Split, whole

Pair = tuple[np.ndarray, np.ndarray]

TESTS = ('test', 'val', 'validation')  # folders; the first that is there
DAMAGED = (TypeError, EOFError, OSError, ValueError, zipfile.BadZipFile, zlib.error)
GREY = ('1', 'L', 'LA')  # modes of Pillow
COLOUR = ('P', 'RGB', 'RGBA', 'CMYK', 'YCbCr')  # others would lose bits


def prepare_files(
    name: str,
    source: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> pathlib.Path:
    """Write images of one's own into the array cache, where `load` finds them by name.

    Args:
      name: what `data.name` calls them then.
      source: an .npz file or a folder, laid out as above.
      data_dir: the folder of all data sets; None means the environment variable
        TFDS_DATA_DIR, or else ~/tensorflow_datasets.
      overwrite: whether to replace a data set of that name.

    Returns:
      The folder with the arrays.

    Raises:
      FileNotFoundError: if there is no such file or folder.
      ValueError: if there is a data set of that name, the source is not laid out as
        above, images differ in size, a file is no image, or labels are no classes.
    """
    if name in DATASETS:
        raise ValueError(f'{name!r} is a data set already: choose another name')
    folder = arrays.folder_of(name, data_dir)
    source = located(source)
    if (folder / 'manifest.json').exists() and not overwrite:
        raise ValueError(
            f'there is a data set in {folder}: pass --overwrite to replace it, or '
            'choose another name'
        )
    num_classes, streams = (_of_folder if source.is_dir() else _of_npz)(source)
    arrays.write(
        folder,
        name=name,
        num_classes=num_classes,
        versions={'source': str(source)},
        splits=streams,
    )
    return folder


def located(path: str | os.PathLike[str]) -> pathlib.Path:
    """Return an absolute path; raise FileNotFoundError unless something is there."""
    found = pathlib.Path(os.path.expanduser(path)).absolute()
    if not found.exists():
        raise FileNotFoundError(f'there is no file or folder {found}')
    return found


def read(source: pathlib.Path) -> tuple[Pair, Pair | None]:
    """Return inputs and targets for training, and for the test if it has them."""
    if not source.is_dir():
        found = _entries(source, ('train',), ('test',))
        return found['train'], found.get('test')
    _, streams = _of_folder(source)
    train, test = (
        tuple(map(np.concatenate, zip(*streams[split].batches, strict=True)))
        for split in arrays.SPLITS
    )
    return train, test


def _entries(
    source: pathlib.Path,
    wanted: tuple[str, ...] = arrays.SPLITS,
    others: tuple[str, ...] = (),
) -> dict[str, Pair]:
    """Return the arrays of an .npz file by split; others only if they are there."""
    try:
        with source.open('rb') as file, np.load(file) as content:
            there = [s for s in others if {f'{s}_images', f'x_{s}'} & set(content)]
            return {
                split: (
                    _entry(content, f'{split}_images', f'x_{split}'),
                    _entry(content, f'{split}_labels', f'y_{split}'),
                )
                for split in (*wanted, *there)
            }
    except DAMAGED as error:
        raise ValueError(f'{source} is no .npz file of images ({error})') from error


def _of_npz(source: pathlib.Path) -> tuple[int, dict[str, arrays.Stream]]:
    """Return the number of classes, and the splits of an .npz file."""
    found = _entries(source)
    train, test = (_split(f'{source}, {key}', *found[key]) for key in arrays.SPLITS)
    num_classes = len(np.unique(train.labels))
    whole(str(source), train, test, num_classes)
    return num_classes, {
        'train': arrays.Stream(train.images.shape, [train]),
        'test': arrays.Stream(test.images.shape, [test]),
    }


def _entry(content: Mapping[str, np.ndarray], own: str, other: str) -> np.ndarray:
    """Return an array, under our name or that of Keras."""
    if own not in content and other not in content:
        raise ValueError(f'it has neither {own} nor {other}, only {", ".join(content)}')
    return content[own if own in content else other]


def _split(where: str, images: np.ndarray, labels: np.ndarray) -> Split:
    """Return images [n, height, width, 1 or 3] and labels [n], if they are such."""
    images = images[..., None] if images.ndim == 3 else images
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            f'{where}: the images are {images.dtype} of shape {images.shape}; they '
            'have to be uint8, [n, height, width], with 1 or 3 channels behind or none'
        )
    size = len(images)
    labels = labels[:, 0] if labels.shape == (size, 1) else labels
    if labels.dtype.kind not in 'iu' or labels.shape != (size,):
        raise ValueError(
            f'{where}: the labels are {labels.dtype} of shape {labels.shape}; they '
            f'have to be {size} integers (of one-hot rows take the argmax)'
        )
    return Split(images, labels)


def _of_folder(source: pathlib.Path) -> tuple[int, dict[str, arrays.Stream]]:
    """Return the number of classes, and the splits of a folder of images."""
    tests = [source / name for name in TESTS if (source / name).is_dir()]
    train, test = source / 'train', (tests or [source / TESTS[0]])[0]
    trained, tested = _by_class(train), _by_class(test)
    classes = list(trained)
    unknown = sorted(set(tested) - set(classes))
    if unknown:
        raise ValueError(f'{test} has the class {unknown[0]!r}, which {train} has not')
    empty = [name for name, files in trained.items() if not files]
    if empty:
        raise ValueError(f'there are no images in {train / empty[0]}')
    shape = _read(trained[classes[0]][0]).shape
    streams = {}
    for split, files_of in zip(arrays.SPLITS, (trained, tested), strict=True):
        labelled = [
            (file, label)
            for label, name in enumerate(classes)
            for file in files_of.get(name, [])
        ]
        images = _images(labelled, shape)
        streams[split] = arrays.Stream((len(labelled), *shape), images)
    return len(classes), streams


def _by_class(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Return the images of each class, in the order of their names."""
    if not folder.is_dir():
        raise ValueError(f'there is no folder {folder} with a folder for each class')
    found = {}
    for path in _visible(folder):
        if not path.is_dir():
            raise ValueError(f'{path} is in no class: {folder} holds a folder for each')
        found[path.name] = _visible(path)
    if not any(found.values()):
        raise ValueError(f'there are no images in {folder}')
    return found


def _visible(folder: pathlib.Path) -> list[pathlib.Path]:
    """Return what is in a folder, but for hidden files, by name."""
    return [path for path in sorted(folder.iterdir()) if path.name[0] != '.']


def _images(
    labelled: list[tuple[pathlib.Path, int]], shape: tuple[int, ...]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each image and its label, as a batch of one."""
    for file, label in labelled:
        yield _read(file, shape)[None], np.array([label])


def _read(path: pathlib.Path, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Return an image, uint8 [height, width, 1 or 3], of that shape if one is given."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode not in GREY + COLOUR:
                raise ValueError(f'mode {image.mode!r}, of more than 8 bits')
            grey = image.mode in GREY if shape is None else shape[-1] == 1
            pixels = np.asarray(image.convert('L' if grey else 'RGB'))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f'{path} cannot be read as an image ({error})') from error
    pixels = pixels[..., None] if grey else pixels
    if shape is not None and pixels.shape != shape:
        raise ValueError(
            f'{path} is {pixels.shape[0]}x{pixels.shape[1]}, where the first image is '
            f'{shape[0]}x{shape[1]}: bring all to one size first'
        )
    return pixels
