"""Splits against scikit-learn's arrays, the cache against its bytes."""

import hashlib
import http.server
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import tracemalloc
import types

import numpy as np
import pytest
import runs
from sklearn.datasets import load_digits

from eqprop_jax.data import DATASETS, Split, load, prepare
from eqprop_jax.data import _arrays as arrays
from eqprop_jax.data import _catalog as catalog
from eqprop_jax.data import _tfds_reader as tfds_reader

ROOT = pathlib.Path(__file__).parents[1]
SIZES = {'train': 60, 'test': 20}
NUM_CLASSES = 4


def examples(num, *, offset=0):
    """Images that spell their own position, with unequally frequent labels."""
    positions = np.arange(offset, offset + num)
    images = np.zeros((num, 3, 2, 1), np.uint8)
    images[:, 0, 0, 0] = positions
    images[:, 2, 1, 0] = 255 - positions
    return images, np.array([0, 1, 2, 3, 3, 3])[positions % 6].astype(np.int64)


def stream(images, labels, *, batch=7, announced=None):
    batches = [
        (images[start : start + batch], labels[start : start + batch])
        for start in range(0, len(images), batch)
    ]
    return arrays.Stream(announced or images.shape, batches)


def fill(data_dir, name='fashion_mnist', **changes):
    splits = {
        'train': stream(*examples(SIZES['train'])),
        'test': stream(*examples(SIZES['test'], offset=100)),
    }
    folder = arrays.folder_of(name, data_dir)
    arrays.write(
        folder,
        name=name,
        num_classes=NUM_CLASSES,
        versions={'data': 'fake/1.0.0'},
        splits=splits | changes,
    )
    return folder


def place(folder):
    """Where the arrays of a data set are."""
    return folder / json.loads((folder / 'manifest.json').read_text())['folder']


KILLED = '''
import os, pathlib, shutil, sys
sys.path.insert(0, sys.argv[1])
import data_test

left = 0


def counted(fn):
    """Returns a function that ends the process once none is left."""

    def call(*args, **options):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return fn(*args, **options)

    return call


data_dir, code = sys.argv[2], 1
while code:
    data_test.fill(data_dir)
    process = os.fork()
    if not process:
        for owner, names in (
            (pathlib.Path, ('mkdir', 'open', 'unlink', 'rmdir')),
            (os, ('open', 'replace', 'rename', 'rmdir', 'unlink')),
            (data_test.np, ('save', 'load')),
        ):
            for name in names:
                setattr(owner, name, counted(getattr(owner, name)))
        test = data_test.stream(*data_test.examples(5))
        data_test.fill(data_dir, test=test)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    data = data_test.load('fashion_mnist', data_dir=data_dir, held_out=0)
    print(code, len(data.test.labels))
    left += 1
'''


def rows(*splits):
    """Each example as one row of pixels and label, in lexicographic order."""
    table = np.concatenate(
        [np.c_[s.images.reshape(len(s.labels), -1), s.labels] for s in splits]
    )
    return table[np.lexsort(table.T)]


def positions(split):
    return split.images[:, 0, 0, 0].tolist()


class TestDigits:
    def test_splits_partition_scikit_learns_arrays(self):
        data = load('digits')
        digits = load_digits()
        original = Split(digits.images[..., None], digits.target)
        np.testing.assert_array_equal(
            rows(data.train, data.held_out, data.test), rows(original)
        )
        for split, num in ((data.train, 1347), (data.held_out, 150), (data.test, 300)):
            assert split.images.shape == (num, 8, 8, 1)
            assert split.images.dtype == np.uint8
            assert split.labels.dtype == np.int32
        assert data.train.images.max() == data.scale == 16.0
        assert data.num_classes == DATASETS['digits'].num_classes == 10

    @pytest.mark.parametrize('held_out', [3, 150, 701])
    def test_each_class_is_within_one_example_of_its_share(self, held_out):
        data = load('digits', held_out=held_out, num_train=333)
        frequency = np.bincount(load_digits().target) / 1797
        for split in (data.train, data.held_out, data.test):
            counts = np.bincount(split.labels, minlength=10)
            assert np.abs(counts - frequency * len(split.labels)).max() < 2

    def test_seed_decides_and_leaves_the_test_split_alone(self):
        first, again = load('digits', seed=3), load('digits', seed=3)
        other = load('digits', seed=4, held_out=0, num_train=5)
        for one, two in zip(first[1:4], again[1:4], strict=True):
            np.testing.assert_array_equal(one.images, two.images)
            np.testing.assert_array_equal(one.labels, two.labels)
        np.testing.assert_array_equal(first.test.images, other.test.images)
        assert len(other.held_out.labels) == 0
        changed = load('digits', seed=4).held_out
        assert (changed.images != first.held_out.images).any()

    def test_splits_do_not_change_between_releases(self):
        data = load('digits', seed=1)
        digest = hashlib.sha256(data.test.images.tobytes()).hexdigest()
        held_out = hashlib.sha256(data.held_out.images.tobytes()).hexdigest()
        assert (digest[:16], held_out[:16]) == ('e153cb1659e890e0', '67556e5bffd01a48')


class TestCache:
    def test_round_trip(self, tmp_path):
        folder = fill(tmp_path)
        data = load('fashion_mnist', data_dir=tmp_path, held_out=0)
        assert folder == tmp_path / 'eqprop_arrays' / 'fashion_mnist'
        assert isinstance(data.train.images, np.memmap)
        assert (data.num_classes, data.scale) == (NUM_CLASSES, 255.0)
        for split, (images, labels) in (
            (data.train, examples(SIZES['train'])),
            (data.test, examples(SIZES['test'], offset=100)),
        ):
            np.testing.assert_array_equal(split.images, images)
            np.testing.assert_array_equal(split.labels, labels)
            assert split.labels.dtype == np.int32

    def test_manifest_describes_the_files(self, tmp_path):
        folder = fill(tmp_path, 'imagenet_resized/32x32')
        assert folder.name == 'imagenet_resized_32x32'
        manifest = json.loads((folder / 'manifest.json').read_text())
        assert manifest['name'] == 'imagenet_resized/32x32'
        assert len(manifest['files']) == 4
        for name, entry in manifest['files'].items():
            content = (place(folder) / name).read_bytes()
            assert entry['sha256'] == hashlib.sha256(content).hexdigest()
            assert entry['bytes'] == len(content)
        assert manifest['files']['test_images.npy']['shape'] == [20, 3, 2, 1]
        assert manifest['files']['test_labels.npy']['dtype'] == 'int32'

    def test_held_out_and_train_part_the_training_split(self, tmp_path):
        fill(tmp_path)
        data = load('fashion_mnist', data_dir=tmp_path, held_out=12, seed=5)
        fewer = load(
            'fashion_mnist', data_dir=tmp_path, held_out=12, num_train=24, seed=5
        )
        train, held_out = positions(data.train), positions(data.held_out)
        assert sorted(train + held_out) == list(range(SIZES['train']))
        assert train == sorted(train)
        assert positions(fewer.held_out) == held_out
        assert set(positions(fewer.train)) < set(train)
        assert np.bincount(data.held_out.labels).tolist() == [2, 2, 2, 6]
        assert np.bincount(fewer.train.labels).tolist() == [4, 4, 4, 12]

    @pytest.mark.parametrize(('held_out', 'copies'), [(0, 0), (500, 1)])
    def test_images_are_copied_once_at_most(self, tmp_path, held_out, copies):
        images = np.zeros((20_000, 16, 16, 1), np.uint8)
        labels = np.arange(len(images)) % NUM_CLASSES
        test = stream(images[:20], labels[:20])
        fill(tmp_path, train=stream(images, labels, batch=1000), test=test)
        tracemalloc.start()
        try:
            data = load('fashion_mnist', data_dir=tmp_path, held_out=held_out)
            held, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert len(data.train.labels) == len(images) - held_out
        # beside the images, some integers for each example: labels and the draw
        assert held < copies * images.nbytes + 16 * len(images)
        assert peak < copies * images.nbytes + 64 * len(images)

    def test_another_tfds_set_is_known_once_it_is_cached(self, tmp_path):
        fill(tmp_path, 'kmnist')
        assert load('kmnist', data_dir=tmp_path, held_out=1).name == 'kmnist'

    @pytest.mark.parametrize(
        ('name', 'damage', 'message'),
        [
            ('train_images.npy', lambda b: b[:-1] + b'\x00', 'sha256'),
            ('test_labels.npy', lambda b: b[:-4] + b'\x01\0\0\0', 'sha256'),
            ('test_images.npy', lambda b: b[:-1], 'bytes instead of'),
            ('manifest.json', lambda b: b[:-9], 'is damaged'),
            ('manifest.json', lambda b: b'{}', 'is damaged'),
        ],
    )
    def test_damage_is_named(self, tmp_path, name, damage, message):
        folder = fill(tmp_path)
        path = (folder if name == 'manifest.json' else place(folder)) / name
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(ValueError, match=f'{name}.*{message}.*--overwrite'):
            load('fashion_mnist', data_dir=tmp_path)

    def test_missing_file_is_named(self, tmp_path):
        (place(fill(tmp_path)) / 'test_labels.npy').unlink()
        with pytest.raises(ValueError, match=r'test_labels\.npy is missing'):
            load('fashion_mnist', data_dir=tmp_path)

    def test_large_files_are_checked_by_size(self, tmp_path, monkeypatch):
        path = place(fill(tmp_path)) / 'train_images.npy'
        monkeypatch.setattr(arrays, 'HASHED_BYTES', 200)
        path.write_bytes(path.read_bytes()[:-1] + b'\x00')
        load('fashion_mnist', data_dir=tmp_path, held_out=0)
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(ValueError, match='bytes instead of'):
            load('fashion_mnist', data_dir=tmp_path)

    def test_half_written_folder_is_ignored(self, tmp_path):
        (fill(tmp_path) / 'manifest.json').unlink()
        with pytest.raises(FileNotFoundError, match='is not prepared'):
            load('fashion_mnist', data_dir=tmp_path)

    @pytest.mark.parametrize(
        ('changed', 'message'),
        [
            (stream(*examples(20), announced=(21, 3, 2, 1)), 'announced 21.*holds 20'),
            (stream(*examples(20), announced=(19, 3, 2, 1)), 'announced'),
            (stream(*examples(20), announced=(20, 2, 3, 1)), 'announced'),
            (stream(examples(20)[0], np.full(20, 4)), 'label 4 of example 0'),
            (stream(examples(20)[0], np.full(20, -1)), 'label -1'),
        ],
    )
    def test_failed_write_leaves_what_was_there(self, tmp_path, changed, message):
        with pytest.raises(ValueError, match=message):
            fill(tmp_path, test=changed)
        assert list((tmp_path / 'eqprop_arrays').iterdir()) == []
        folder = fill(tmp_path)
        changed = stream(examples(20)[0], np.full(20, 9))
        with pytest.raises(ValueError, match='label 9'):
            fill(tmp_path, test=changed)
        assert list((tmp_path / 'eqprop_arrays').iterdir()) == [folder]
        load('fashion_mnist', data_dir=tmp_path, held_out=0)

    def test_write_replaces(self, tmp_path):
        fill(tmp_path)
        folder = fill(tmp_path, test=stream(*examples(5)))
        data = load('fashion_mnist', data_dir=tmp_path, held_out=0)
        assert positions(data.test) == [0, 1, 2, 3, 4]
        assert list((tmp_path / 'eqprop_arrays').iterdir()) == [folder]

    def test_caches_of_older_versions(self, tmp_path):
        """They have the arrays beside the manifest, and are read, and replaced."""
        folder = fill(tmp_path)
        for path in place(folder).iterdir():
            path.rename(folder / path.name)
        place(folder).rmdir()
        manifest = json.loads((folder / 'manifest.json').read_text())
        del manifest['folder']
        (folder / 'manifest.json').write_text(json.dumps(manifest))
        data = load('fashion_mnist', data_dir=tmp_path, held_out=0)
        assert positions(data.train) == list(range(SIZES['train']))
        leftover = folder.with_name('.fashion_mnist.incomplete.abc')
        other = folder.with_name('.fashion_mnist_2.incomplete.abc')
        for path in (leftover / 'new', other):
            path.mkdir(parents=True)
        fill(tmp_path, train=stream(*examples(5)))
        assert positions(data.train) == list(range(SIZES['train']))  # mapped still
        names = {path.name for path in folder.iterdir()}
        assert names == {'manifest.json', place(folder).name}
        assert set(folder.parent.iterdir()) == {folder, other}

    def test_an_interrupted_preparation_is_cleared_away(self, tmp_path):
        folder = fill(tmp_path)
        others = ('arrays.backup', 'arrays.0123456', 'notes')
        for name in ('arrays.01234567', *others):
            (folder / name).mkdir()
        with pytest.raises(ValueError, match='announced'):
            fill(tmp_path, test=stream(*examples(20), announced=(21, 3, 2, 1)))
        kept = {'manifest.json', place(folder).name, *others}
        assert {path.name for path in folder.iterdir()} == kept
        load('fashion_mnist', data_dir=tmp_path, held_out=0)

    @pytest.mark.filterwarnings('ignore')
    def test_a_preparation_is_killed(self, tmp_path):
        """Before any of its calls: the old data are there, or from one on the new."""
        command = [sys.executable, '-c', KILLED, str(ROOT / 'tests'), str(tmp_path)]
        result = subprocess.run(command, capture_output=True, text=True)
        found = [line.split() for line in result.stdout.splitlines()]
        assert len(found) > 10, result.stderr[-2000:]
        assert [code for code, _ in found] == ['9'] * (len(found) - 1) + ['0']
        sizes = [int(size) for _, size in found]
        assert sizes == sorted(sizes, reverse=True)
        assert set(sizes) == {SIZES['test'], 5}
        assert sizes.count(5) > 1
        assert len(list(fill(tmp_path).iterdir())) == 2

    def test_a_data_set_is_always_there(self, tmp_path):
        """It is read over and over while it is written anew over and over."""
        fill(tmp_path)
        found, failures, stop = set(), [], threading.Event()

        def read():
            while not stop.is_set():
                try:
                    data = load('fashion_mnist', data_dir=tmp_path, held_out=0)
                    found.add(len(data.test.labels))
                except Exception as error:
                    failures.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            for _ in range(30):
                fill(tmp_path, test=stream(*examples(5)))
                fill(tmp_path)
        finally:
            stop.set()
            reader.join()
        assert not failures
        assert found == {5, SIZES['test']}

    def test_one_process_at_a_time(self, tmp_path):
        script = (
            'import sys, time; sys.path.insert(0, sys.argv[1]); import data_test\n'
            'def batches():\n'
            '    print("writes", flush=True); time.sleep(60); yield\n'
            'stream = data_test.arrays.Stream((20, 3, 2, 1), batches())\n'
            'data_test.fill(sys.argv[2], train=stream)'
        )
        command = [sys.executable, '-c', script, str(ROOT / 'tests'), str(tmp_path)]
        other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        with other.stdout as said:
            assert said.readline() == 'writes\n'
            with pytest.raises(ValueError, match='in use by another process'):
                fill(tmp_path)
            other.kill()
            other.wait()
        assert len(list(fill(tmp_path).iterdir())) == 2

    def test_label_outside_the_classes_is_named_when_read(self, tmp_path):
        folder = fill(tmp_path)
        manifest = json.loads((folder / 'manifest.json').read_text())
        manifest['num_classes'] = 3
        (folder / 'manifest.json').write_text(json.dumps(manifest))
        with pytest.raises(
            ValueError, match=r"'fashion_mnist', split 'train': label 3 of example 3"
        ):
            load('fashion_mnist', data_dir=tmp_path)

    def test_default_folder(self, tmp_path, monkeypatch):
        monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'here'))
        assert arrays.data_root() == tmp_path / 'here'
        assert arrays.data_root('elsewhere') == pathlib.Path('elsewhere')
        monkeypatch.delenv('TFDS_DATA_DIR')
        monkeypatch.setenv('HOME', str(tmp_path))
        assert arrays.data_root() == tmp_path / 'tensorflow_datasets'
        assert arrays.data_root('~/sets') == tmp_path / 'sets'
        with pytest.raises(ValueError, match=r'local folder.*gs://bucket'):
            load('mnist', data_dir='gs://bucket/sets')


class TestRefusals:
    @pytest.mark.parametrize(
        ('sizes', 'message'),
        [
            ({'held_out': -1}, r'held_out = -1 .*choose 0 to 1496'),
            ({'held_out': 1497}, r'held_out = 1497 .*choose 0 to 1496'),
            ({'num_train': -2}, r'num_train = -2 .*choose 1 to 1347'),
            ({'num_train': 0}, r'num_train = 0 .*choose 1 to 1347'),
            ({'num_train': 1348}, r'num_train = 1348 .*choose 1 to 1347'),
            ({'num_train': 1298, 'held_out': 200}, r'choose 1 to 1297, which held_out'),
            ({'seed': -1}, r'seed = -1: choose 0 to'),
        ],
    )
    def test_sizes(self, sizes, message):
        with pytest.raises(ValueError, match=message):
            load('digits', **sizes)

    def test_default_held_out_may_be_too_large(self, tmp_path):
        fill(tmp_path)
        with pytest.raises(ValueError, match=r'held_out = 5000 .*choose 0 to 59'):
            load('fashion_mnist', data_dir=tmp_path)

    @pytest.mark.parametrize('name', sorted(set(DATASETS) - {'digits'}))
    def test_not_prepared_names_the_command(self, tmp_path, name, monkeypatch):
        monkeypatch.setitem(sys.modules, 'tensorflow_datasets', None)
        with pytest.raises(FileNotFoundError) as error:
            load(name, data_dir=tmp_path)
        command = f'eqprop-prepare --dataset={name} --data_dir={tmp_path}`'
        assert command in str(error.value)
        assert "pip install 'eqprop_jax[tfds]'" in str(error.value)

    @pytest.mark.parametrize('name', ['fashion', '', '../mnist', 'Digits'])
    def test_unknown_name_lists_the_choices(self, tmp_path, name):
        with pytest.raises(ValueError, match='unknown data set') as error:
            load(name, data_dir=tmp_path)
        for choice in DATASETS:
            assert choice in str(error.value)
        assert 'prepare another TFDS' in str(error.value)


@pytest.mark.parametrize(
    ('name', 'num_classes', 'test_split'),
    [
        ('mnist', 10, 'test'),
        ('fashion_mnist', 10, 'test'),
        ('cifar10', 10, 'test'),
        ('cifar100', 100, 'test'),
        ('svhn_cropped', 10, 'test'),
        ('imagenet_resized/32x32', 1000, 'validation'),
    ],
)
def test_table_is_that_of_the_tfds_catalogue(name, num_classes, test_split):
    """As https://www.tensorflow.org/datasets/catalog has it."""
    wanted = catalog.Source(name, num_classes, 'train', test_split)
    assert DATASETS[name] == wanted


class Image(types.SimpleNamespace):
    pass


class ClassLabel(types.SimpleNamespace):
    pass


@pytest.fixture
def fake_tfds(monkeypatch):
    """Stands in for TFDS with one prepared set of array records, and counts reads."""
    reads = []
    content = {
        split: [
            {'image': image, 'label': label, 'id': b''}
            for image, label in zip(*examples(num), strict=True)
        ]
        for split, num in SIZES.items()
    }
    info = types.SimpleNamespace(
        features={
            'image': Image(shape=(3, 2, 1), np_dtype=np.uint8),
            'label': ClassLabel(num_classes=NUM_CLASSES),
        },
        supervised_keys=('image', 'label'),
        splits={
            split: types.SimpleNamespace(num_examples=num)
            for split, num in SIZES.items()
        },
        file_format=types.SimpleNamespace(value='array_record'),
        full_name='tiny/1.0.0',
    )
    builder = types.SimpleNamespace(
        info=info,
        is_prepared=lambda: True,
        as_data_source=lambda split: reads.append(split) or content[split],
    )
    tfds = types.SimpleNamespace(
        __version__='0',
        builder=lambda name, data_dir: builder,
        features=types.SimpleNamespace(Image=Image, ClassLabel=ClassLabel),
        info=info,
        reads=reads,
    )
    monkeypatch.setitem(sys.modules, 'tensorflow_datasets', tfds)
    monkeypatch.setattr(tfds_reader, 'BATCH', 16)
    return tfds


class TestPrepare:
    def test_fills_the_cache_once(self, tmp_path, fake_tfds):
        folder = prepare('tiny', data_dir=tmp_path)
        data = load('tiny', data_dir=tmp_path, held_out=0)
        images, labels = examples(SIZES['train'])
        np.testing.assert_array_equal(data.train.images, images)
        np.testing.assert_array_equal(data.train.labels, labels)
        manifest = json.loads((folder / 'manifest.json').read_text())
        assert manifest['versions'] == {'data': 'tiny/1.0.0', 'tfds': '0'}
        assert prepare('tiny', data_dir=tmp_path) == folder
        assert fake_tfds.reads == ['train', 'test']
        prepare('tiny', data_dir=tmp_path, overwrite=True)
        assert fake_tfds.reads == ['train', 'test'] * 2

    def test_validation_split_stands_in_for_a_missing_test_split(
        self, tmp_path, fake_tfds
    ):
        del fake_tfds.info.splits['test']
        with pytest.raises(ValueError, match="no split 'validation', only train"):
            prepare('tiny', data_dir=tmp_path)

    @pytest.mark.parametrize(
        ('changes', 'message'),
        [
            ({'label': Image(shape=(3, 2, 1))}, 'not an image classification set'),
            ({'image': ClassLabel(num_classes=2)}, 'not an image classification set'),
            ({'image': Image(shape=(None, None, 3), np_dtype='uint8')}, 'of one size'),
            ({'image': Image(shape=(3, 2, 1), np_dtype='uint16')}, 'only uint8'),
        ],
    )
    def test_other_kinds_of_data_are_refused(
        self, tmp_path, fake_tfds, changes, message
    ):
        fake_tfds.info.features.update(changes)
        with pytest.raises(ValueError, match=message):
            prepare('tiny', data_dir=tmp_path)

    def test_without_tfds_the_extra_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, 'tensorflow_datasets', None)
        with pytest.raises(ImportError, match=r"pip install 'eqprop_jax\[tfds\]'"):
            prepare('mnist', data_dir=tmp_path)

    def test_digits_need_no_preparation(self):
        with pytest.raises(ValueError, match='nothing to prepare'):
            prepare('digits')

    def test_reachability(self, monkeypatch):
        monkeypatch.setenv('no_proxy', '*')

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.send_error(int(self.path[1:]))

            def log_message(self, format, *args):
                pass

        with socket.socket() as unused:
            unused.bind(('127.0.0.1', 0))
            dead = f'http://127.0.0.1:{unused.getsockname()[1]}/'
        with http.server.HTTPServer(('127.0.0.1', 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            alive = f'http://127.0.0.1:{server.server_port}'
            assert tfds_reader._any_answers([dead, f'{alive}/404'])
            assert not tfds_reader._any_answers([dead, f'{alive}/503'])
            server.shutdown()
        assert not tfds_reader._any_answers([dead])


def run(*args):
    environment = os.environ | {'PYTHONPATH': str(ROOT)}
    return subprocess.run(
        [sys.executable, *args],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_sources_import_neither_jax_nor_tfds():
    code = (
        'import sys, types\n'
        'for name in ("eqprop_jax", "eqprop_jax.data"):\n'
        '    sys.modules[name] = package = types.ModuleType(name)\n'
        '    package.__path__ = [name.replace(".", "/")]\n'
        'from eqprop_jax.data import _sources\n'
        'print([m for m in ("jax", "tensorflow_datasets") if m in sys.modules])\n'
    )
    assert run('-c', code).stdout == '[]\n'


def test_launcher_reports_errors_in_one_line():
    result = runs.launch('prepare_data', '--dataset=digits')
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(
        "prepare_data: 'digits' is part of"
    )
    assert 'Traceback' not in result.stderr


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('file_format', ['array_record', 'tfrecord'])
def test_reads_what_tfds_prepared(tmp_path, file_format):
    tfds = pytest.importorskip('tensorflow_datasets')
    pytest.importorskip('tensorflow')
    content = {
        split: np.random.default_rng(num).integers(
            0, 256, (num, 28, 28, 1), dtype=np.uint8
        )
        for split, num in SIZES.items()
    }
    builder = tfds.builder('kmnist', data_dir=tmp_path)
    builder._split_generators = lambda *args, **kwargs: {
        split: ((i, {'image': x, 'label': i % 10}) for i, x in enumerate(images))
        for split, images in content.items()
    }
    builder.download_and_prepare(file_format=file_format)
    prepare('kmnist', data_dir=tmp_path)
    data = load('kmnist', data_dir=tmp_path, held_out=0)
    assert data.num_classes == 10
    for split, images in ((data.train, content['train']), (data.test, content['test'])):
        original = Split(images, np.arange(len(images)) % 10)
        np.testing.assert_array_equal(rows(split), rows(original))
