"""Prepare an image set once, as plain arrays that training reads.

    eqprop-prepare --dataset=fashion_mnist [--data_dir=DIR] [--overwrite]

takes it from TFDS, which needs the tfds extra (pip install 'eqprop_jax[tfds]').
Images of your own need nothing more; any name will do, and --config.data.name takes it:

    eqprop-prepare --dataset=letters --source=letters.npz
    eqprop-prepare --dataset=letters --source=letters/

The file holds train_images, train_labels, test_images and test_labels, the folder
train/CLASS/*.png and test/CLASS/*.png (`eqprop_jax.data._files_reader`). Afterwards
neither TensorFlow nor TFDS is needed, and the folder eqprop_arrays can be copied to
machines that have no network.
"""

from eqprop_jax.cli import command

import os

from absl import flags, logging

from eqprop_jax.data import DATASETS, load, prepare, prepare_files

CHOICES = ', '.join(name for name in DATASETS if name != 'digits')

DATASET = flags.DEFINE_string(
    'dataset',
    '',
    f'{CHOICES}, another TFDS image classification set, or with --source your own.',
)
SOURCE = command.define_path(
    'source', None, 'An .npz file or a folder of images, to read instead of TFDS.'
)
DATA_DIR = command.define_path(
    'data_dir',
    None,
    'Folder of all data sets; default: $TFDS_DATA_DIR, or else ~/tensorflow_datasets.',
)
OVERWRITE = flags.DEFINE_boolean('overwrite', False, 'Write existing arrays anew.')
flags.register_validator('dataset', bool, f'Name a data set: {CHOICES}, ...')


@command.told
def main(argv: list[str]) -> None:
    """Fill the array cache, read it back and report what it holds."""
    command.begin(argv, logging.ERROR)
    command.clean_up_first()
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    name, data_dir = DATASET.value, DATA_DIR.value
    try:
        if SOURCE.value is None:
            folder = prepare(name, data_dir=data_dir, overwrite=OVERWRITE.value)
        else:
            folder = prepare_files(
                name, SOURCE.value, data_dir=data_dir, overwrite=OVERWRITE.value
            )
        data = load(name, data_dir=data_dir, held_out=0)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        command.fail(str(error))
    height, width, channels = data.train.images.shape[1:]
    print(
        f'{name}: {len(data.train.labels):,} training and {len(data.test.labels):,} '
        f'test images, {height}x{width}x{channels}, {data.num_classes} classes, in '
        f'{folder}'
    )


def run() -> None:
    """The command."""
    command.run(main)
