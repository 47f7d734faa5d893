"""What is malformed gives an error of one line, or a recovered run; nothing hangs."""

import errno
import functools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
import runs
from etils import epath
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from orbax.checkpoint import v1 as ocp
from tally import tally
from tiers import quick

from eqprop_jax import _disk as disk
from eqprop_jax import checkpoint, records, training
from eqprop_jax.checkpoint import folders
from eqprop_jax.config import ConfigError, registry
from eqprop_jax.data import NotPreparedError
from eqprop_jax.data import _arrays as arrays
from eqprop_jax.records import files
from eqprop_jax.training.state import init_state

ROOT = pathlib.Path(__file__).parents[1]
SECONDS = 120  # that a command may take
ERRORS = (  # that launch/train.py tells in one line
    ConfigError,
    checkpoint.CheckpointError,
    NotPreparedError,
    records.WorkdirError,
    training.TrainingError,
)
FULL = OSError(errno.ENOSPC, 'No space left on device')


class StopError(Exception):
    """A run is left in the middle."""


def train(workdir, experiment=None):
    return training.train_and_evaluate(
        experiment or tally(), workdir, progress=False, save_every=0.0
    )


def refused(action, error=ERRORS):
    """Returns the message of the error, of one line, that the action raises."""
    with pytest.raises(error) as raised:
        action()
    return one_line(raised.value)


def one_line(error):
    message = str(error)
    assert message
    assert len(message.splitlines()) == 1, message
    return message


def full(*args, **options):
    raise FULL


def at_call(number, fn):
    """Returns the function, which finds the disk full at the call of that number."""
    left = [number]

    @functools.wraps(fn)
    def called(*args, **options):
        left[0] -= 1
        if left[0] == 0:
            raise FULL
        return fn(*args, **options)

    return called


def content(folder):
    """Returns the bytes of all files below a folder."""
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A run that nothing has disturbed: its workdir and last state."""
    workdir = tmp_path_factory.mktemp('whole')
    return workdir, jax.device_get(train(workdir))


@pytest.fixture(scope='module')
def begun(tmp_path_factory):
    """A workdir with two checkpoints of a run that did not end."""
    workdir, left = tmp_path_factory.mktemp('begun'), [6]
    write = records.Writer.write

    def counted(self, *args):
        left[0] -= 1
        if not left[0]:
            raise StopError
        write(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records.Writer, 'write', counted)
        with pytest.raises(StopError):
            train(workdir)
    assert len(both(workdir)) == 2
    return workdir


@pytest.fixture
def copy(begun, tmp_path):
    """A copy of it, to be damaged."""
    shutil.copytree(begun, tmp_path / 'run')
    return tmp_path / 'run'


@pytest.fixture
def ends(whole):
    """Asserts that a run in a workdir comes to the end of the whole one."""

    def run(workdir, *, all_records=True):
        state = train(workdir)
        runs.assert_equal(jax.device_get(state), whole[1])
        saved = checkpoint.restore(workdir, init_state(tally()))
        runs.assert_equal(jax.device_get(saved), whole[1])
        rows, wanted = (
            [(row['step'], row['split'], row['loss']) for row in records.read(folder)]
            for folder in (workdir, whole[0])
        )
        assert rows == wanted if all_records else set(rows) <= set(wanted)
        last, wanted = (
            records.read_data(folder, 'summary')['last']
            for folder in (workdir, whole[0])
        )
        assert last == wanted

    return run


def both(workdir):
    """Returns the checkpoints that the run could go on from, the newest one last."""
    numbers = folders.numbers(folders.folder_of(workdir), '')
    return [workdir / 'checkpoint' / str(number) for number in numbers]


def newest(workdir):
    return both(workdir)[-1]


def biggest(folder):
    paths = [path for path in folder.rglob('*') if path.is_file()]
    return max(paths, key=lambda path: path.stat().st_size)


def sum_up(folder):
    """Lets a changed checkpoint count as whole."""
    (folder / folders.SUMS).unlink(missing_ok=True)
    folders.write_sums(epath.Path(folder))


def flip(path):
    bits = bytearray(path.read_bytes())
    bits[len(bits) // 2] ^= 0x80
    path.write_bytes(bits)


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def append(path, more):
    path.write_bytes(path.read_bytes() + more)


def as_file(path):
    if path.is_dir():
        shutil.rmtree(path)
    path.write_text('a file')


def as_folder(path):
    path.unlink(missing_ok=True)
    path.mkdir(parents=True)
    (path / 'inside').write_text('a file')


def as_pipe(path):
    """Makes a pipe that nobody writes to, or reads from."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def is_now(name, text):
    """Returns what gives a file of a folder another content."""
    return lambda folder: (folder / name).write_bytes(text)


def notes(text):
    """Returns what gives checkpoints other notes, or none, and lets them be whole."""

    def damage(workdir):
        for path in both(workdir):
            (path / folders.NOTES).unlink()
            if text is not None:
                (path / folders.NOTES).write_bytes(text)
            sum_up(path)

    return damage


def metadata(workdir):
    for path in both(workdir):
        halve(path / 'state' / '_METADATA')
        sum_up(path)


RECOVERED = {
    'truncated': lambda w: halve(biggest(newest(w))),
    'emptied': lambda w: biggest(newest(w)).write_bytes(b''),
    'flipped': lambda w: flip(biggest(newest(w))),
    'both flipped': lambda w: [flip(biggest(path)) for path in both(w)],
    'file lost': lambda w: biggest(newest(w)).unlink(),
    'file added': lambda w: (newest(w) / 'more').write_text('x'),
    'sums lost': lambda w: (newest(w) / folders.SUMS).unlink(),
    'sums are junk': lambda w: (newest(w) / folders.SUMS).write_bytes(b'\xff\0'),
    'sums a folder': lambda w: as_folder(newest(w) / folders.SUMS),
    'notes flipped': lambda w: flip(newest(w) / folders.NOTES),
    'notes lost': notes(None),
    'newest lost': lambda w: shutil.rmtree(newest(w)),
    'newest a file': lambda w: as_file(newest(w)),
    'both are files': lambda w: [as_file(path) for path in both(w)],
    'checkpoints lost': lambda w: shutil.rmtree(w / 'checkpoint'),
    'half a checkpoint': lambda w: (w / 'checkpoint/9.orbax-checkpoint-tmp').mkdir(),
    'half a record': lambda w: append(w / 'metrics.jsonl', b'{"step": 1'),
    'a later record': lambda w: append(w / 'metrics.jsonl', b'{"step":99}\n'),
    'junk behind': lambda w: append(w / 'metrics.jsonl', b'\xff\xfe\0'),
    'records lost': lambda w: (w / 'metrics.jsonl').unlink(),
    'half a config': is_now('config.json.unfinished', b'{'),
    'half a summary': is_now('summary.json.unfinished', b'{'),
    'events lost': lambda w: shutil.rmtree(w / 'tensorboard'),
    'sums a pipe': lambda w: as_pipe(newest(w) / folders.SUMS),
    'arrays a pipe': lambda w: as_pipe(biggest(newest(w))),
    'half a config a pipe': lambda w: as_pipe(w / 'config.json.unfinished'),
    'half the records a pipe': lambda w: as_pipe(w / 'metrics.jsonl.unfinished'),
}
OTHER = json.dumps(files.plain(runs.values({'seed': 7} | runs.FEEDFORWARD))).encode()
REFUSED = {
    'notes no JSON': (notes(b'{nope'), 'notes.json cannot be read'),
    'notes empty': (notes(b''), 'notes.json cannot be read'),
    'notes binary': (notes(b'\xff\xfe\0'), 'notes.json cannot be read'),
    'notes a list': (notes(b'[1]'), 'notes.json cannot be read'),
    'metadata': (metadata, 'its metadata are damaged'),
    'config empty': (is_now('config.json', b''), 'config.json is damaged'),
    'config half': (lambda w: halve(w / 'config.json'), 'config.json is damaged'),
    'config a list': (is_now('config.json', b'[]'), 'config.json is damaged'),
    'config binary': (is_now('config.json', b'\xff\xfe\0'), 'config.json is damaged'),
    'config nested': (is_now('config.json', b'[' * 100_000), 'nested too deeply'),
    'config of another': (is_now('config.json', OTHER), 'seed is 7 there, 0 here'),
    'config lost': (lambda w: (w / 'config.json').unlink(), 'but no config.json'),
    'checkpoints a file': (lambda w: as_file(w / 'checkpoint'), 'cannot remove'),
    'config a folder': (lambda w: as_folder(w / 'config.json'), 'no regular file'),
    'config a pipe': (lambda w: as_pipe(w / 'config.json'), 'no regular file'),
    'records a folder': (lambda w: as_folder(w / 'metrics.jsonl'), 'no regular file'),
    'records a pipe': (lambda w: as_pipe(w / 'metrics.jsonl'), 'no regular file'),
    'summary a folder': (lambda w: as_folder(w / 'summary.json'), 'no regular file'),
    'summary a pipe': (lambda w: as_pipe(w / 'summary.json'), 'no regular file'),
}


class TestRunsThatDidNotEnd:
    @pytest.mark.parametrize(
        'name', quick(RECOVERED, ['truncated', 'half a record', 'sums a pipe'])
    )
    def test_recovered(self, copy, ends, name):
        RECOVERED[name](copy)
        with runs.within(SECONDS):
            ends(copy)

    @pytest.mark.parametrize('name', REFUSED)
    def test_refused(self, copy, name):
        """And left as it was found, so that it can be mended."""
        damage, message = REFUSED[name]
        damage(copy)
        before = content(copy)
        with runs.within(SECONDS):
            assert message in refused(lambda: train(copy))
        assert content(copy) == before

    @pytest.mark.whole
    @pytest.mark.parametrize(
        'damage',
        [
            halve,
            lambda path: path.write_bytes(b''),
            lambda path: path.write_bytes(b'\0\xff\xfe' * 50),
            lambda path: path.write_bytes(b'[1]\n{"step": 1}\n{"step": "one"}\n'),
            lambda path: path.write_bytes(b'[' * 100_000 + b'\n'),
        ],
        ids=['half', 'empty', 'binary', 'other JSON', 'nested'],
    )
    def test_lost_records_are_told(self, copy, ends, caplog, damage):
        damage(copy / 'metrics.jsonl')
        with caplog.at_level('WARNING', logger='absl'):
            ends(copy, all_records=False)
        assert re.search(r'metrics\.jsonl is damaged: .* are lost', caplog.text)

    def test_a_damaged_record_costs_no_other(self, copy, ends, caplog):
        first, *others = (copy / 'metrics.jsonl').read_bytes().splitlines(True)
        (copy / 'metrics.jsonl').write_bytes(b''.join([first[5:], *others]))
        with caplog.at_level('WARNING', logger='absl'):
            ends(copy, all_records=False)
        assert 'metrics.jsonl is damaged' in caplog.text
        assert len(records.read(copy)) == 7

    def test_events_that_are_a_file(self, copy, ends):
        as_file(copy / 'tensorboard')
        assert 'tensorboard' in refused(lambda: train(copy), records.WorkdirError)
        (copy / 'tensorboard').unlink()
        ends(copy)

    def test_a_linked_workdir(self, copy, ends):
        (copy.parent / 'link').symlink_to(copy)
        ends(copy.parent / 'link')
        assert (copy / 'summary.json').exists()


class TestCheckpoints:
    @pytest.mark.parametrize(
        'swap',
        [
            lambda a: a.astype(np.complex64),
            lambda a: a.astype(np.float16),
            lambda a: a[..., None],
            lambda a: a[:1] if a.ndim else a[None],
        ],
        ids=['complex', 'float16', 'one more axis', 'shorter'],
    )
    def test_arrays_of_another_kind(self, tmp_path, whole, swap):
        checkpoint.save(tmp_path, jax.tree.map(lambda a: swap(np.asarray(a)), whole[1]))
        message = refused(lambda: checkpoint.restore(tmp_path, init_state(tally())))
        assert 'has the state of another configuration' in message

    @pytest.mark.filterwarnings('ignore')
    def test_files_that_are_not_orbaxs(self, whole, tmp_path, caplog, capfd):
        """Though the sums say that they are whole; and orbax logs nothing of it."""
        like, told = init_state(tally()), 0
        for path in content(newest(whole[0])):
            copy = tmp_path / 'copy'
            shutil.copytree(whole[0], copy)
            (copy / path.relative_to(whole[0])).write_bytes(b'\xff\0junk' * 20)
            sum_up(newest(copy))
            try:
                checkpoint.restore(copy, like)
            except checkpoint.CheckpointError as error:
                told += 'cannot be read' in one_line(error)
            shutil.rmtree(copy)
        assert told >= 3
        assert caplog.text == ''
        assert capfd.readouterr().err == ''

    def test_a_folder_that_cannot_be_read(self, whole, monkeypatch):
        def locked(self):
            raise PermissionError(errno.EACCES, 'Permission denied')

        monkeypatch.setattr(type(epath.Path(whole[0])), 'iterdir', locked)
        message = refused(lambda: checkpoint.restore(whole[0], init_state(tally())))
        assert 'cannot be read ([Errno 13] Permission denied)' in message


class TestFullDisk:
    @pytest.mark.parametrize('name', ['config.json', 'metrics.jsonl', 'summary.json'])
    def test_at_a_whole_file(self, tmp_path, monkeypatch, ends, name):
        write = disk.write_whole

        def written(path, content):
            if path.name == name:
                raise FULL
            write(path, content)

        with monkeypatch.context() as patch:
            patch.setattr(disk, 'write_whole', written)
            message = refused(lambda: train(tmp_path / 'run'), records.WorkdirError)
        assert 'No space left on device' in message
        ends(tmp_path / 'run')

    @pytest.mark.parametrize('number', quick([1, 4], [4]))
    @pytest.mark.parametrize('part', ['record', 'events'])
    def test_at_a_record(self, tmp_path, monkeypatch, ends, part, number):
        kind, count = type(epath.Path(tmp_path)), at_call(number, lambda: None)
        plain = kind.open

        def opened(self, mode='r', **options):
            if mode == 'a':
                count()
            return plain(self, mode, **options)

        with monkeypatch.context() as patch:
            if part == 'record':
                patch.setattr(kind, 'open', opened)
            else:
                write = at_call(number, records.writer.Events.write)
                patch.setattr(records.writer.Events, 'write', write)
            message = refused(lambda: train(tmp_path), records.WorkdirError)
        assert 'No space left on device' in message
        ends(tmp_path)

    @pytest.mark.parametrize('number', quick([1, 3], [3]))
    @pytest.mark.parametrize('part', ['save_async', 'result', 'sums_of', 'keep_only'])
    def test_at_a_checkpoint(self, tmp_path, monkeypatch, ends, part, number):
        save, count = ocp.save_async, at_call(number, lambda: None)

        def saved(path, arrays):
            written = save(path, arrays)
            return types.SimpleNamespace(result=lambda: (written.result(), count()))

        with monkeypatch.context() as patch:
            if part == 'save_async':
                patch.setattr(ocp, part, at_call(number, save))
            elif part == 'result':
                patch.setattr(ocp, 'save_async', saved)
            else:
                patch.setattr(folders, part, at_call(number, getattr(folders, part)))
            message = refused(lambda: train(tmp_path), checkpoint.CheckpointError)
        assert 'No space left on device' in message
        ends(tmp_path)

    def test_what_ends_a_run_is_not_hidden(self, tmp_path, monkeypatch):
        """By records that cannot be closed, either."""

        def leave(error):
            with records.Writer(tmp_path):
                if error is not None:
                    raise error

        with monkeypatch.context() as patch:
            patch.setattr(records.writer.Events, 'close', full)
            with pytest.raises(StopError):
                leave(StopError())
            message = refused(lambda: leave(None), records.WorkdirError)
        assert 'No space left on device' in message

    @pytest.fixture
    def disk(self, tmp_path):
        """Mounts a disk of some KiB; skips where that is not allowed."""
        folder = tmp_path / 'disk'
        folder.mkdir()

        def mount(options):
            if shutil.which('mount') is None or os.geteuid() != 0:
                pytest.skip('only root mounts disks')
            command = ['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', folder]
            if subprocess.run(command, capture_output=True, timeout=SECONDS).returncode:
                pytest.skip('disks cannot be mounted here')
            return folder

        yield mount
        if os.path.ismount(folder):
            subprocess.run(['umount', '-l', folder], check=True, timeout=SECONDS)

    @pytest.mark.whole
    @pytest.mark.filterwarnings('ignore')
    @pytest.mark.parametrize('size', [4, 16, 60])
    def test_in_earnest(self, disk, ends, size):
        workdir = disk(f'size={size}k') / 'run'
        message = refused(lambda: train(workdir))
        assert re.search('No space left|RESOURCE_EXHAUSTED', message)
        disk('remount,size=10m')
        ends(workdir)

    @pytest.mark.whole
    def test_of_a_launcher(self, disk):
        """The threads that write a checkpoint are neither waited for nor heard."""
        command = [
            sys.executable,
            ROOT / 'launch' / 'train.py',
            f'--config={ROOT / "configs" / "digits_mlp.py"}',
            f'--workdir={disk("size=600k") / "run"}',
            f'--compilation_cache={ROOT / ".cache" / "jax"}',
            '--config.diagnostics.every_evals=0',
            '--save_every=0',
        ]
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS
        )
        assert result.returncode == 1
        lines = result.stderr.replace('\r', '\n').split('\n')
        (said,) = (line for line in lines if line and '%|' not in line)
        assert said.startswith('train: cannot write')

    def test_of_the_array_cache(self, disk):
        folder = disk('size=64k')
        with pytest.raises(OSError, match='No space left'):
            fill(folder, num=2000)
        assert list((folder / 'eqprop_arrays').iterdir()) == []
        fill(folder)
        runs.experiment(cached_in(folder))


class TestWorkdirs:
    @pytest.mark.whole
    @pytest.mark.parametrize(
        'name',
        [
            'with space',
            'ünï çödé 漢字',
            'trailing/',
            'new\nline\ttab',
            'quo\'te"s %20#',
            'a' * 255,
            '~nobody here/-dash:run',
        ],
    )
    def test_odd_names(self, tmp_path, monkeypatch, ends, name):
        monkeypatch.chdir(tmp_path)
        ends(name)

    @pytest.mark.parametrize(
        'name',
        [
            '/proc/nothing',
            '/dev/null',
            'file',
            'file/below',
            'a' * 300,
            'dangling',
            'loop/below',
            'lr=[0.1]',
            'back\\slash',
            'star*',
            's4://bucket/run',
            'file:///tmp/run',
        ],
    )
    def test_names_that_cannot_be(self, tmp_path, monkeypatch, name):
        monkeypatch.chdir(tmp_path)
        (tmp_path / 'file').write_text('mine')
        (tmp_path / 'dangling').symlink_to('nowhere')
        (tmp_path / 'loop').symlink_to('loop')
        before = sorted(tmp_path.iterdir())
        message = refused(lambda: train(name), records.WorkdirError)
        assert re.search('cannot|neither', message)
        assert sorted(tmp_path.iterdir()) == before
        assert (tmp_path / 'file').read_text() == 'mine'

    def test_a_bucket_without_its_package(self, monkeypatch):
        monkeypatch.setitem(sys.modules, 'gcsfs', None)
        message = refused(lambda: train('gs://bucket/run'), records.WorkdirError)
        assert 'gcsfs' in message

    def test_read_only(self, tmp_path, monkeypatch, ends):
        def locked(self, *args, **options):
            raise PermissionError(errno.EROFS, 'Read-only file system')

        with monkeypatch.context() as patch:
            kind = type(epath.Path(tmp_path))
            for name in ('mkdir', 'write_text', 'open', 'rename', 'replace'):
                patch.setattr(kind, name, locked)
            message = refused(lambda: train(tmp_path / 'run'), records.WorkdirError)
        assert 'Read-only file system' in message
        assert not (tmp_path / 'run').exists()
        ends(tmp_path / 'run')


def fill(data_dir, num=60):
    """Puts a small data set into the array cache; returns its folder."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (num, 8, 8, 1), dtype=np.uint8)
    batches = [(images, np.arange(num, dtype=np.int32) % 10)]
    folder = arrays.folder_of('mnist', data_dir)
    arrays.write(
        folder,
        name='mnist',
        num_classes=10,
        versions={},
        splits=dict.fromkeys(arrays.SPLITS, arrays.Stream(images.shape, batches)),
    )
    return folder


def cached_in(data_dir):
    return {
        'data.name': 'mnist',
        'data.data_dir': str(data_dir),
        'data.held_out': 10,
        'data.num_train': 40,
    }


def place(folder):
    """Returns where the arrays of a data set in the cache are."""
    return folder / json.loads((folder / 'manifest.json').read_text())['folder']


def manifest(key, change):
    """Returns what replaces a value of a cache's manifest by a function of it."""

    def damage(folder):
        path = folder / 'manifest.json'
        values = json.loads(path.read_text())
        path.write_text(json.dumps(values | {key: change(values[key])}))

    return damage


def entries(change):
    """Returns what replaces the entries of all files in it."""
    return manifest('files', lambda files: {k: change(v) for k, v in files.items()})


def array(name, make):
    """Returns what replaces an array by one made of it, or by bytes, as described."""

    def damage(folder):
        path = place(folder) / f'{name}.npy'
        made = make(np.load(path))
        if isinstance(made, bytes):
            path.write_bytes(made)
        else:
            np.save(path, made)
        new = {'sha256': arrays._sha256(path), 'bytes': path.stat().st_size}
        manifest('files', lambda files: files | {path.name: new})(folder)

    return damage


CACHES = {
    'truncated': lambda f: halve(place(f) / 'train_images.npy'),
    'another sum': lambda f: flip(place(f) / 'train_images.npy'),
    'file lost': lambda f: (place(f) / 'test_labels.npy').unlink(),
    'file a folder': lambda f: as_folder(place(f) / 'test_labels.npy'),
    'manifest no JSON': is_now('manifest.json', b'{'),
    'manifest a list': is_now('manifest.json', b'[]'),
    'manifest binary': is_now('manifest.json', b'\xff\xfe\0'),
    'manifest nested': is_now('manifest.json', b'[' * 100_000),
    'manifest without keys': is_now('manifest.json', b'{}'),
    'manifest a folder': lambda f: as_folder(f / 'manifest.json'),
    'folder a list': manifest('folder', list),
    'folder lost': manifest('folder', lambda name: 'arrays.01234567'),
    'files a list': manifest('files', list),
    'files without sums': entries(lambda entry: {'bytes': entry['bytes']}),
    'files without bytes': entries(lambda entry: {'sha256': entry['sha256']}),
    'files without entries': entries(lambda entry: None),
    'classes in words': manifest('num_classes', str),
    'classes a fraction': manifest('num_classes', lambda n: n + 0.5),
    'classes none': manifest('num_classes', lambda n: None),
    'classes negative': manifest('num_classes', lambda n: -n),
    'classes too few': manifest('num_classes', lambda n: n - 7),
    'classes too many': manifest('num_classes', lambda n: n + 1),
    'label too large': array('train_labels', lambda a: a + np.int32(1)),
    'label negative': array('test_labels', lambda a: a - np.int32(1)),
    'labels fewer': array('train_labels', lambda a: a[:50]),
    'labels of floats': array('train_labels', lambda a: a + 0.5),
    'labels of bools': array('train_labels', lambda a: a > 0),
    'labels in columns': array('train_labels', lambda a: a[:, None]),
    'images fewer': array('train_images', lambda a: a[:50]),
    'images empty': array('train_images', lambda a: a[:0]),
    'images flat': array('train_images', lambda a: a[..., 0]),
    'images a number': array('train_images', lambda a: a[0, 0, 0, 0]),
    'images of NaN': array('train_images', lambda a: a * np.nan),
    'images of words': array('train_images', lambda a: a.astype('U1')),
    'images of another size': array('test_images', lambda a: a[:, 1:]),
    'no array': array('train_images', lambda a: b''),
    'a zip': array('train_labels', lambda a: b'PK\x03\x04' * 20),
    'a pickle': array('train_labels', lambda a: b'\x80\x04K\x01.'),
}


class TestArrayCache:
    @pytest.mark.parametrize('name', quick(CACHES, list(CACHES)[::6]))
    def test_damages(self, tmp_path, name):
        CACHES[name](fill(tmp_path))
        changes = cached_in(tmp_path)
        refused(lambda: runs.experiment(changes), ConfigError)
        fill(tmp_path)  # as prepare_data.py --overwrite does
        assert runs.experiment(changes).num_steps > 0

    @pytest.mark.parametrize(
        'name',
        ['../../etc', '/etc', '..', '.', '', 'a/../../b', 'x' * 300, 'a\nb', '~', '*'],
    )
    def test_names_stay_in_their_folder(self, tmp_path, name):
        root = tmp_path / 'eqprop_arrays'
        root.mkdir()
        for folder in (root, tmp_path):
            (folder / 'manifest.json').write_text('{}')  # of something else
        assert arrays.folder_of(name, tmp_path).resolve().parent == root
        changes = {'data.name': name, 'data.data_dir': str(tmp_path)}
        message = refused(lambda: runs.experiment(changes), ConfigError)
        assert 'data set' in message

    @pytest.mark.parametrize(
        'folder', ['gs://bucket', '/proc/nothing', '/dev/null', '~nobody', 'x' * 5000]
    )
    def test_folders_that_cannot_be(self, folder):
        refused(lambda: runs.experiment(cached_in(folder)))


MORE = {  # keys that the configuration of `runs` leaves at their defaults
    'system.angle': None,
    'system.classes': None,
    'solver.step_size': 1.0,
    'solver.clip': None,
    'nudged_solver.step_size': 1.0,
    'estimator.half_step': False,
    'estimator.skip_unconverged': False,
    'homeostasis.fraction': 1.0,
    'optimizer.momentum': 0.9,
    'optimizer.weight_decay': 0.0,
    'optimizer.warmup_steps': 0,
    'optimizer.clip_norm': None,
    'optimizer.layers': None,
}
WRONG = ('two\nwords', True, None, [1, 'a'], {'a': 1}, 1j, float('nan'), 10**400)


class TestConfigurations:
    @pytest.mark.parametrize('section', ['', 'mesh', 'data.augment', *runs.SECTIONS])
    def test_unknown_keys(self, section):
        key = f'{section}.no_such_key'.lstrip('.')
        message = refused(lambda: runs.experiment({key: 1}), ConfigError)
        assert f'unknown key {key}' in message

    @pytest.mark.parametrize(
        'section', ['', 'mesh', 'data.augment', *runs.SECTIONS], ids=str
    )
    def test_values_of_wrong_type(self, section):
        """Each is refused in one line, unless it is none: None may be meant."""
        tree, number = runs.values(MORE), 0
        for name in filter(None, section.split('.')):
            tree = tree[name]
        for key in tree:
            for value in WRONG:
                own = {f'{section}.{key}'.lstrip('.'): value}
                try:
                    runs.experiment(own if isinstance(tree[key], dict) else MORE | own)
                except ConfigError as error:
                    one_line(error)
                    number += 1
        assert number >= (len(WRONG) - 2) * len(tree)

    @pytest.mark.parametrize(
        'changes',
        [
            {'seed': -1},
            {'seed': 2**31},
            {'data.seed': -1},
            {'data.seed': 2**32},
            {'batch_size': 111},
            {'num_epochs': 2**31 - 1},
            {'num_epochs': 10**12},
            {'solver.max_steps': 2**31},
            {'solver.max_steps': 2 * 10**9},  # whose end nobody would see
            {'nudged_solver.max_steps': 100_001},
            {'estimator.num_points': 10**6},
            {'homeostasis.num_probes': 10**9},
            {'solver.tol': 10**30},
            {'solver.tol': 1e39},
            {'optimizer.clip_norm': 2**31},
            {'optimizer.layers': {'layer_1': {'weight_decay': 2**31}}},
            {'system.sizes': (64, 10**30, 10)},
            {'system.sizes': ()},
            {'system.classes': 10**30},
            {'data.augment.pad': 2**40},
            {'mesh.data': 10**9},
            {'mesh.contour': 3},
            {'estimator.num_points': -(10**9)},
            {'system.name': ['mlp']},
            {'estimator.name': {'contour': 1}},
        ],
        ids=str,
    )
    def test_out_of_range(self, changes):
        refused(lambda: runs.experiment(changes), ConfigError)

    @pytest.mark.whole
    @pytest.mark.filterwarnings('ignore:overflow')
    @pytest.mark.parametrize(
        'changes',
        [
            {
                'optimizer.name': 'sgd',
                'optimizer.learning_rate': 3e38,
                'optimizer.weight_decay': 1e30,
            },
            {'estimator.radius': 1e-300},
        ],
        ids=str,
    )
    def test_numbers_that_overflow_later(self, tmp_path, changes):
        short = {'num_epochs': 1, 'data.num_train': 20}
        message = refused(
            lambda: train(tmp_path, runs.experiment(short | changes)),
            training.TrainingError,
        )
        assert re.search('step 1 .* is not finite', message)
        assert not (tmp_path / 'checkpoint').exists()


WORDS = st.sampled_from([True, None, 'many', (1,), {}])
NUMBERS = st.one_of(
    st.sampled_from([0, 0.0, -1, 1e-300, 1e-40, 1e30, 1e300, 2**31, 10**400]),
    st.sampled_from([float('nan'), float('inf'), -float('inf'), -1e-9]),
    st.floats(-10, 10),
    WORDS,
)
COUNTS = st.one_of(
    st.integers(-2, 9),
    st.sampled_from([-(10**9), 2**31, 10**12, 10**400, 1.0, 0.5, float('nan')]),
    WORDS,
)
KEYS = {
    'data': {'std_factor': NUMBERS, 'held_out': COUNTS, 'num_train': COUNTS},
    'data.augment': {'pad': COUNTS},
    'solver': {'tol': NUMBERS, 'step_size': NUMBERS, 'max_steps': COUNTS},
    'nudged_solver': {'tol': NUMBERS, 'step_size': NUMBERS, 'max_steps': COUNTS},
    'system': {'angle': NUMBERS},
    'estimator': {'radius': NUMBERS, 'num_points': COUNTS},
    'homeostasis': {'weight': NUMBERS, 'fraction': NUMBERS, 'num_probes': COUNTS},
    'optimizer': {
        **dict.fromkeys(('learning_rate', 'momentum', 'weight_decay'), NUMBERS),
        **{'clip_norm': NUMBERS, 'warmup_steps': COUNTS},
    },
    'diagnostics': dict.fromkeys(runs.SECTIONS['diagnostics'], COUNTS),
    'mesh': dict.fromkeys(('data', 'contour'), st.sampled_from([-1, 0, 1, 2, 10**9])),
    '': dict.fromkeys(registry.TOP_LEVEL, COUNTS),
}
STRATEGIES = {
    f'{section}.{key}'.lstrip('.'): values
    for section, keys in KEYS.items()
    for key, values in keys.items()
}


@st.composite
def absurd(draw):
    """Draws values of one or two of the numeric keys."""
    keys = st.lists(st.sampled_from(sorted(STRATEGIES)), min_size=1, max_size=2)
    return {key: draw(STRATEGIES[key], label=key) for key in draw(keys)}


@pytest.mark.whole
@pytest.mark.filterwarnings('ignore')
@settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(changes=absurd())
def test_absurd_hyperparameters(changes):
    """Each is refused in one line, or builds a run that takes a step or two.

    What comes of the steps is finite, or else they were not taken.
    """
    small = {'data.num_train': 40, 'system.sizes': (64, 5, 4, 10)}
    try:
        built = runs.experiment(small | changes)
    except ConfigError as error:
        one_line(error)
        return
    state, chunk = runs.run_chunk(built, init_state(built), 0, 0, 2)
    assert bool(chunk.finite.all()) == (int(state.step) == 2)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def launched(script, *arguments, cwd):
    """Returns exit code, lines on stderr, and stdout of a launcher."""
    result = runs.launch(script, *arguments, cwd=cwd, TFDS_DATA_DIR=str(cwd))
    assert 'Traceback' not in result.stderr
    return result.returncode, result.stderr.splitlines(), result.stdout


FILES = {
    'absent': (None, r'No such file'),
    'no Python': (b'this is not python', r'SyntaxError|NameError'),
    'binary': (b'\0\xff\xfe', r'SyntaxError'),
    'raises on import': (b'raise RuntimeError("no\\nway")', r'no way .*line 1\)'),
    'imports in vain': (b'import no_such_module', r'no_such_module.*line 1\)'),
    'no get_config': (b'x = 1', r'no attribute .get_config'),
    'raises': (
        b'def get_config():\n    raise ValueError("no\\nway")',
        r'no way .*line 2\)',
    ),
    'raises KeyError': (
        b'def get_config():\n    raise KeyError("way")',
        r'KeyError: .way. .*line 2\)',
    ),
    'a dict': (b'def get_config():\n    return {"a": 1}', r'ConfigDict, not .* dict'),
    'a number': (b'def get_config():\n    return 3', r'ConfigDict, not .* int'),
    'takes a variant': (b'def get_config(variant): pass', r'TypeError'),
}


class TestTrainLauncher:
    @pytest.mark.parametrize('name', FILES)
    def test_configurations(self, tmp_path, name):
        program, pattern = FILES[name]
        if program is not None:
            (tmp_path / 'config.py').write_bytes(program)
        code, lines, _ = launched(
            'train', '--config=config.py', '--workdir=run', cwd=tmp_path
        )
        assert (code, len(lines)) == (1, 1), lines
        assert lines[0].startswith('train: ')
        assert re.search(pattern, lines[0]), lines
        assert not (tmp_path / 'run').exists()

    @pytest.mark.parametrize(
        ('flags', 'pattern'),
        [
            ([], '--workdir must have a value'),
            (['--workdir=run', '--config='], 'empty string'),
            (['--workdir=run', '--config=.'], 'Is a directory'),
            (['--workdir=run', '--config.seed=one'], "config.seed=one: .*'one'"),
            (['--workdir=run', '--config.seed='], 'config.seed='),
            (['--workdir=run', '--config.system.sizes=(64,'], 'config.system.sizes'),
            (['--workdir=run', '--config.system.sizes.x=3'], 'config.system.sizes.x=3'),
            (['--workdir=run', '--config.system.sizes[0]=3'], 'not a valid index'),
            (['--workdir=run', '--config.data=digits'], 'config.data=digits'),
            (['--workdir=run', '--config.a.b=3'], "no section 'a'"),
            (['--workdir=run', '--keep=0'], 'keep=0'),
            (['--workdir=run', '--save_every=-1'], 'save_every=-1'),
            (['--workdir=run', '--no_such_flag'], 'no_such_flag'),
        ],
    )
    def test_flags(self, tmp_path, flags, pattern):
        config = f'--config={ROOT}/configs/digits_mlp.py'
        code, lines, _ = launched('train', config, *flags, cwd=tmp_path)
        assert (code, len(lines)) == (1, 1), lines
        assert re.search(pattern, lines[0]), lines
        assert not (tmp_path / 'run').exists()

    @pytest.mark.whole
    def test_a_workdir_of_two_lines_and_no_curves(self, tmp_path):
        """Pictures that cannot be drawn do not undo a run."""
        values = runs.values({'num_epochs': 1, 'data.num_train': 20} | runs.FEEDFORWARD)
        (tmp_path / 'config.py').write_text(
            'import ml_collections\n\n\ndef get_config():\n'
            f'    return ml_collections.ConfigDict({values!r})\n'
        )
        cache = f'--compilation_cache={ROOT / ".cache" / "jax"}'
        flags = ('--config=config.py', '--workdir=two\nlines/run', cache)
        workdir = tmp_path / 'two\nlines' / 'run'
        as_folder(workdir / 'curves.png.unfinished')
        code, lines, _ = launched('train', *flags, cwd=tmp_path)
        assert code == 1
        assert 'its curves cannot be drawn' in lines[-1]
        assert sum(line.startswith('train: ') for line in lines) == 1
        assert (workdir / 'summary.json').exists()
        (workdir / 'config.json').write_text('{')
        code, lines, _ = launched('train', *flags, cwd=tmp_path)
        assert (code, len(lines)) == (1, 1), lines
        assert 'two lines/run/config.json is damaged' in lines[0]


def cast(workdir):
    """Puts a checkpoint of another type in the place of the last one."""
    kept = ocp.load(str(newest(workdir)))
    shutil.rmtree(workdir / 'checkpoint')
    changed = {
        name: np.asarray(a).astype(np.float16 if a.ndim else a.dtype)
        for name, a in kept.items()
    }
    checkpoint.save(workdir, changed)


ENDED = {
    'truncated': (lambda w: halve(biggest(newest(w))), 'is damaged'),
    'emptied': (lambda w: biggest(newest(w)).write_bytes(b''), 'is damaged'),
    'flipped': (lambda w: flip(biggest(newest(w))), 'is damaged'),
    'sums a folder': (lambda w: as_folder(newest(w) / folders.SUMS), 'cannot be read'),
    'newest a file': (lambda w: as_file(newest(w)), 'cannot be read'),
    'checkpoints a file': (lambda w: as_file(w / 'checkpoint'), 'has no checkpoint'),
    'checkpoints lost': (lambda w: shutil.rmtree(w / 'checkpoint'), 'no checkpoint'),
    'another type': (cast, 'another configuration'),
    'metadata': (metadata, 'cannot be read'),
    'config empty': (is_now('config.json', b''), 'config.json is damaged'),
    'config a list': (is_now('config.json', b'[]'), 'config.json is damaged'),
    'config of nothing': (is_now('config.json', b'{}'), 'is missing'),
    'config lost': (lambda w: (w / 'config.json').unlink(), 'has no config.json'),
    'no run': (as_file, 'has no config.json'),
}
SUMMARIES = {
    name: (is_now('summary.json', text), 'summary.json is damaged')
    for name, text in {
        'summary empty': b'',
        'summary a list': b'[1]',
        'summary binary': b'\xff\xfe\0',
        'summary nested': b'[' * 100_000,
        'summary of nothing': b'{}',
        'summary of words': b'{"last": {"test": {"error": "none"}}}',
    }.items()
}
# Runs one launcher on many workdirs, since most of its seconds go into imports.
DRIVER = """
import contextlib, importlib, io, json, os, sys
os._exit = sys.exit
sys.path.insert(0, sys.argv[1])
from absl import flags
launcher = importlib.import_module('eqprop_jax.cli.' + sys.argv[2])
workdirs, sys.argv[0] = sys.argv[3:], sys.argv[2]
for workdir in workdirs:
    flags.FLAGS.unparse_flags()
    argv = flags.FLAGS(['launcher', '--workdir=' + workdir, '--compilation_cache='])
    told, code = io.StringIO(), 0
    with contextlib.redirect_stderr(told):
        try:
            launcher.main(argv)
        except SystemExit as exit:
            code = exit.code
        except Exception as error:
            code = repr(error)
    print(json.dumps([code, told.getvalue()]))
"""


@pytest.mark.whole
@pytest.mark.parametrize(
    ('script', 'cases'),
    [('evaluate', ENDED | SUMMARIES), ('diagnose', ENDED)],
    ids=['evaluate', 'diagnose'],
)
def test_damaged_runs_that_have_ended(tmp_path, script, cases):
    changes = {'num_epochs': 1, 'data.num_train': 20} | runs.FEEDFORWARD
    runs.train(runs.experiment(changes), tmp_path / 'run')
    for name, (damage, _) in cases.items():
        shutil.copytree(tmp_path / 'run', tmp_path / name)
        damage(tmp_path / name)
    workdirs = [*(str(tmp_path / name) for name in cases), 's4://bucket/run']
    result = subprocess.run(
        [sys.executable, '-c', DRIVER, str(ROOT), script, *workdirs],
        env=os.environ | {'JAX_PLATFORMS': 'cpu'},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert result.stderr == ''
    found = [json.loads(line) for line in result.stdout.splitlines()]
    messages = [message for _, message in cases.values()] + ['neither a local folder']
    for workdir, message, (code, told) in zip(workdirs, messages, found, strict=True):
        assert code == 1, (workdir, code, told)
        assert told.startswith(f'{script}: ')
        assert told.count('\n') == 1, told
        assert message in told


@pytest.mark.parametrize(
    'name', ['../x', '/etc/passwd', 'a/../../b', '../..', '..', 'new\nline', '~']
)
def test_rows_of_a_sweep_stay_in_its_workdir(tmp_path, name):
    (tmp_path / 'config.py').write_text(
        'from configs import digits_mlp\n\n\ndef get_config():\n'
        '    return digits_mlp.get_config()\n\n\ndef sweep(add):\n'
        f'    add({name!r}, {{}})\n'
    )
    flags = ('--config=config.py', '--workdir=sweep', '--dry_run', '--seeds=0')
    code, lines, told = launched('sweep', *flags, cwd=tmp_path)
    if code:
        assert (code, len(lines)) == (1, 1), lines
    else:
        workdir = tmp_path / re.search(r'--workdir=(\S+)', told)[1]
        assert (tmp_path / 'sweep').resolve() in workdir.resolve().parents
