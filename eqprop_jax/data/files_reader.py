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

from eqprop_jax.data import arrays
from eqprop_jax.data.sources import DATASETS

BATCH = 1024  # images in memory at a time
TESTS = ('test', 'val', 'validation')  # folders; the first that is there
NAMES = {  # images and labels of a split in an .npz: ours, and those of Keras
    'train': (('train_images', 'x_train'), ('train_labels', 'y_train')),
    'test': (('test_images', 'x_test'), ('test_labels', 'y_test')),
}
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
    source = pathlib.Path(source).expanduser().absolute()
    if (folder / 'manifest.json').exists() and not overwrite:
        raise ValueError(
            f'there is a data set in {folder}: pass --overwrite to replace it, or '
            'choose another name'
        )
    if not source.exists():
        raise FileNotFoundError(f'there is no file or folder {source}')
    read = _of_folder if source.is_dir() else _of_npz
    num_classes, streams = read(source)
    arrays.write(
        folder,
        name=name,
        num_classes=num_classes,
        versions={'source': str(source)},
        splits=streams,
    )
    return folder


def _of_npz(source: pathlib.Path) -> tuple[int, dict[str, arrays.Stream]]:
    """Return the number of classes, and the splits of an .npz file."""
    try:
        with source.open('rb') as file, np.load(file) as content:
            entries = {
                split: [_entry(content, *either) for either in NAMES[split]]
                for split in arrays.SPLITS
            }
    except DAMAGED as error:
        raise ValueError(f'{source} is no .npz file of images ({error})') from error
    shapes, num_classes, streams = set(), 0, {}
    for split, (images, labels) in entries.items():
        images = images[..., None] if images.ndim == 3 else images
        size, *shape = images.shape or (0,)
        if images.dtype != np.uint8 or len(shape) != 3 or shape[-1] not in (1, 3):
            raise ValueError(
                f'{source}: the images of {split} are {images.dtype} of shape '
                f'{images.shape}; they have to be uint8, [n, height, width], with 1 or '
                '3 channels behind or none'
            )
        if not images.size:
            raise ValueError(f'{source}: there are no images in {split}')
        if labels.shape == (size, 1):
            labels = labels[:, 0]
        if labels.dtype.kind not in 'iu' or labels.shape != (size,):
            raise ValueError(
                f'{source}: the labels of {split} are {labels.dtype} of shape '
                f'{labels.shape}; they have to be {size} integers (of one-hot rows '
                'take the argmax)'
            )
        if split == 'train':
            num_classes = len(np.unique(labels))
        if labels.min() < 0 or labels.max() >= num_classes:
            raise ValueError(
                f'{source}: the labels of {split} go from {labels.min()} to '
                f'{labels.max()}; they have to be from 0 to {num_classes - 1}, since '
                f'{num_classes} classes are trained on'
            )
        shapes.add(tuple(shape))
        streams[split] = arrays.Stream(images.shape, [(images, labels)])
    if len(shapes) > 1:
        raise ValueError(
            f'{source}: the images of train and test differ: '
            f'{" and ".join(map(str, sorted(shapes)))}'
        )
    return num_classes, streams


def _entry(content: Mapping[str, np.ndarray], own: str, other: str) -> np.ndarray:
    """Return an array, under either name."""
    if own not in content and other not in content:
        raise ValueError(f'it has neither {own} nor {other}, only {", ".join(content)}')
    return content[own if own in content else other]


def _of_folder(source: pathlib.Path) -> tuple[int, dict[str, arrays.Stream]]:
    """Return the number of classes, and the splits of a folder of images."""
    folders = {'train': source / 'train'}
    folders['test'] = next(
        (source / name for name in TESTS if (source / name).is_dir()), source / TESTS[0]
    )
    files = {split: _by_class(folder) for split, folder in folders.items()}
    classes = list(files['train'])
    unknown = sorted(set(files['test']) - set(classes))
    if unknown:
        raise ValueError(
            f'{folders["test"]} has the class {unknown[0]!r}, which '
            f'{folders["train"]} has not'
        )
    empty = [name for name, paths in files['train'].items() if not paths]
    if empty:
        raise ValueError(f'there are no images in {folders["train"] / empty[0]}')
    first = _read(files['train'][classes[0]][0])
    streams = {}
    for split, by_class in files.items():
        labelled = [
            (path, classes.index(name))
            for name, paths in by_class.items()
            for path in paths
        ]
        shape = (len(labelled), *first.shape)
        streams[split] = arrays.Stream(shape, _batches(labelled, first.shape))
    return len(classes), streams


def _by_class(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Return the images of each class, in the order of their names."""
    if not folder.is_dir():
        raise ValueError(f'there is no folder {folder} with a folder for each class')
    visible = [path for path in sorted(folder.iterdir()) if path.name[0] != '.']
    stray = [path for path in visible if not path.is_dir()]
    if stray:
        raise ValueError(f'{stray[0]} is in no class: {folder} holds a folder for each')
    found = {
        path.name: [file for file in sorted(path.iterdir()) if file.name[0] != '.']
        for path in visible
    }
    if not any(found.values()):
        raise ValueError(f'there are no images in {folder}')
    return found


def _batches(
    labelled: list[tuple[pathlib.Path, int]], shape: tuple[int, ...]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield images and labels, a batch at a time."""
    for start in range(0, len(labelled), BATCH):
        some = labelled[start : start + BATCH]
        images = [_read(path, shape) for path, _ in some]
        yield np.stack(images), np.array([label for _, label in some])


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
