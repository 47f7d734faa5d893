"""Images of one's own come back from the cache as they were in their files."""

import functools
import pathlib

import numpy as np
import pytest
import runs
from PIL import Image

from eqprop_jax.data import _arrays as arrays
from eqprop_jax.data import load, prepare_files

ROOT = pathlib.Path(__file__).parents[1]
SIZES = {'train': 12, 'test': 5}
NAMES = ('ant', 'bee', 'cow')


def examples(split, channels):
    random = np.random.default_rng(len(split))
    shape = (SIZES[split], 4, 6, *([channels] if channels else []))
    labels = np.arange(SIZES[split]) % len(NAMES)
    return random.integers(0, 256, shape, dtype=np.uint8), labels


def write_npz(path, channels=None, keras=False, **changes):
    names = ('x_{}', 'y_{}') if keras else ('{}_images', '{}_labels')
    content = {}
    for split in SIZES:
        for name, values in zip(names, examples(split, channels), strict=True):
            content[name.format(split)] = values
    np.savez(path, **(content | changes))
    return path


def write_folder(path, channels, test='test'):
    """Lossless files, named in an order that is not that of their classes."""
    for split, folder in (('train', 'train'), ('test', test)):
        for position, (pixels, label) in enumerate(
            zip(*examples(split, channels), strict=True)
        ):
            place = path / folder / NAMES[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place / f'{position:02d}.png')
    (path / 'train' / '.hidden').touch()
    return path


def loaded(name, data_dir):
    return load(name, data_dir=data_dir, held_out=0)


@pytest.mark.parametrize('channels', [None, 1, 3])
@pytest.mark.parametrize('keras', [False, True])
def test_an_npz_comes_back(tmp_path, channels, keras):
    source = write_npz(tmp_path / 'own.npz', channels, keras)
    prepare_files('own', source, data_dir=tmp_path)
    data = loaded('own', tmp_path)
    assert (data.num_classes, data.scale) == (3, 255.0)
    for split in SIZES:
        images, labels = examples(split, channels)
        found = getattr(data, split)
        np.testing.assert_array_equal(
            found.images, images if channels else images[..., None]
        )
        np.testing.assert_array_equal(found.labels, labels)


@pytest.mark.parametrize('channels', [None, 3])
@pytest.mark.parametrize('test', ['test', 'val', 'validation'])
def test_a_folder_comes_back_class_by_class(tmp_path, channels, test):
    source = write_folder(tmp_path / 'own', channels, test)
    prepare_files('own', source, data_dir=tmp_path)
    data = loaded('own', tmp_path)
    for split in SIZES:
        images, labels = examples(split, channels)
        order = np.argsort(labels, kind='stable')
        found = getattr(data, split)
        wanted = images if channels else images[..., None]
        np.testing.assert_array_equal(found.images, wanted[order])
        np.testing.assert_array_equal(found.labels, labels[order])


def test_an_existing_data_set_is_kept_unless_told(tmp_path):
    source = write_npz(tmp_path / 'own.npz')
    folder = prepare_files('own', source, data_dir=tmp_path)
    before = (folder / 'manifest.json').read_bytes()
    other = write_npz(tmp_path / 'other.npz', 3)
    with pytest.raises(ValueError, match='--overwrite'):
        prepare_files('own', other, data_dir=tmp_path)
    assert (folder / 'manifest.json').read_bytes() == before
    prepare_files('own', other, data_dir=tmp_path, overwrite=True)
    assert loaded('own', tmp_path).train.images.shape == (12, 4, 6, 3)


def refusal(tmp_path, source):
    with pytest.raises(ValueError, match='.') as error:
        prepare_files('own', source, data_dir=tmp_path)
    assert not arrays.folder_of('own', tmp_path).exists()
    return str(error.value)


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'train_images': np.zeros((12, 4, 6))}, ['train', 'float64', 'uint8']),
        ({'test_images': np.zeros((5, 24), np.uint8)}, ['test', '(5, 24)']),
        ({'train_labels': np.zeros(11, int)}, ['(11,)', '12 integers']),
        ({'train_labels': np.zeros(12)}, ['float64', '12 integers']),
        ({'train_labels': np.eye(12, dtype=int)}, ['(12, 12)', 'argmax']),
        ({'test_labels': np.array([0, 1, -1, 0, 0])}, ['test', 'from -1 to 1']),
        ({'test_labels': np.array([0, 1, 3, 0, 0])}, ['test', 'to 3', '0 to 2']),
        ({'train_labels': 1 + np.arange(12) % 3}, ['train', 'from 1 to 3']),
        ({'train_labels': np.array([0] * 11 + [2**32 + 1])}, ['4294967297']),
        ({'train_images': np.zeros((12, 3, 4, 6), np.uint8)}, ['(12, 3, 4, 6)']),
        ({'test_images': np.zeros((5, 4, 7), np.uint8)}, ['(4, 6, 1)', '(4, 7, 1)']),
        (
            {
                'test_images': np.zeros((0, 4, 6), np.uint8),
                'test_labels': np.zeros(0, int),
            },
            ["'test' is empty", 'no images'],
        ),
        ({'test_images': np.array([None] * 5)}, ['no .npz file of images']),
    ],
)
def test_an_npz_of_another_kind_is_refused(tmp_path, changes, said):
    message = refusal(tmp_path, write_npz(tmp_path / 'own.npz', **changes))
    assert all(words in message for words in said), message


def test_missing_entries_are_named(tmp_path):
    np.savez(tmp_path / 'own.npz', train_images=np.zeros((1, 2, 2), np.uint8))
    message = refusal(tmp_path, tmp_path / 'own.npz')
    assert 'neither train_labels nor y_train, only train_images' in message


def test_what_is_no_npz_is_refused(tmp_path):
    for content in (b'', b'no archive'):
        (tmp_path / 'own.npz').write_bytes(content)
        assert 'no .npz file' in refusal(tmp_path, tmp_path / 'own.npz')
    np.save(tmp_path / 'own.npy', np.zeros(3))
    assert 'no .npz file' in refusal(tmp_path, tmp_path / 'own.npy')
    with pytest.raises(FileNotFoundError, match='nowhere'):
        prepare_files('own', tmp_path / 'nowhere', data_dir=tmp_path)
    for name in ('digits', 'cifar10'):
        with pytest.raises(ValueError, match='is a data set already'):
            prepare_files(name, tmp_path / 'own.npz', data_dir=tmp_path)


def test_damaged_archives_and_other_entries(tmp_path):
    source = tmp_path / 'own.npz'
    content = {'class_names': np.array(NAMES, object)}
    for split in SIZES:
        images, labels = examples(split, 3)
        content |= {f'{split}_images': images, f'{split}_labels': labels[:, None]}
    np.savez_compressed(source, **content)
    prepare_files('own', source, data_dir=tmp_path)
    assert loaded('own', tmp_path).num_classes == 3
    source.write_bytes(
        bytes(
            ~b & 255 if 60 < i < 4000 else b for i, b in enumerate(source.read_bytes())
        )
    )
    with pytest.raises(ValueError, match='no .npz file'):
        prepare_files('other', source, data_dir=tmp_path)


def test_a_damaged_cache_says_where_its_files_were(tmp_path):
    source = write_npz(tmp_path / 'own.npz')
    folder = prepare_files('own', source, data_dir=tmp_path)
    (file,) = folder.glob('arrays.*/test_labels.npy')
    file.unlink()
    with pytest.raises(ValueError, match=f'--source={source} --overwrite'):
        loaded('own', tmp_path)


def test_images_of_more_than_eight_bits_are_refused(tmp_path):
    source = write_folder(tmp_path / 'own', None)
    deep = Image.fromarray(np.full((4, 6), 2700, np.uint16))
    deep.save(source / 'test' / 'bee' / 'deep.png')
    assert 'more than 8 bits' in refusal(tmp_path, source)


def test_folders_of_another_kind_are_refused(tmp_path):
    source = write_folder(tmp_path / 'own', 3)
    wide = source / 'test' / 'bee' / 'wide.png'
    Image.fromarray(np.zeros((4, 7, 3), np.uint8)).save(wide)
    assert f'{wide} is 4x7' in refusal(tmp_path, source)
    wide.write_text('no image')
    assert f'{wide} cannot be read as an image' in refusal(tmp_path, source)
    wide.unlink()
    (source / 'test' / 'dog').mkdir()
    assert "the class 'dog'" in refusal(tmp_path, source)
    (source / 'train' / 'dog').mkdir()
    assert f'no images in {source / "train" / "dog"}' in refusal(tmp_path, source)
    (source / 'train' / 'dog').rmdir()
    (source / 'test' / 'dog').rmdir()
    (source / 'train' / 'list.txt').touch()
    assert 'list.txt is in no class' in refusal(tmp_path, source)
    (source / 'train' / 'list.txt').unlink()
    (source / 'test').rename(source / 'exam')
    assert 'there is no folder' in refusal(tmp_path, source)
    (source / 'test').mkdir()
    assert 'there are no images' in refusal(tmp_path, source)


@pytest.mark.whole
def test_a_run_trains_on_them(tmp_path):
    source = write_folder(tmp_path / 'own', None)
    launch = functools.partial(runs.launch, TFDS_DATA_DIR=str(tmp_path))
    prepared = launch('prepare_data', '--dataset=own', f'--source={source}')
    assert prepared.stdout.startswith(
        'own: 12 training and 5 test images, 4x6x1, 3 classes'
    )
    trained = launch(
        'train',
        '--config=configs/digits_mlp.py',
        f'--workdir={tmp_path / "run"}',
        '--config.data.name=own',
        '--config.data.held_out=3',
        '--config.system.sizes=(24, 8, 3)',
        '--config.batch_size=3',
        '--config.num_epochs=1',
        '--config.diagnostics.every_evals=0',
        '--config.mesh.data=1',
        f'--compilation_cache={ROOT / ".cache" / "jax"}',
    )
    assert trained.returncode == 0, trained.stderr
    assert 'test error' in trained.stdout
    again = launch('prepare_data', '--dataset=own', f'--source={source}')
    assert again.returncode == 1
    assert again.stderr.startswith('prepare_data: there is a data set')
