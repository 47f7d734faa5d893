"""What is on the disk when something older goes, and whose folders are written to."""

import contextlib
import os
import pathlib
import shutil
import threading
import types

import jax.numpy as jnp
import numpy as np
import pytest
import runs
from etils import epath
from fsspec.implementations import memory
from orbax.checkpoint import v1 as ocp
from tally import tally

from eqprop_jax import _disk as disk
from eqprop_jax import checkpoint, records
from eqprop_jax.checkpoint import folders, saver

STATE = {'a': jnp.arange(3), 'b': {'c': jnp.ones(2)}}


@pytest.fixture
def synced(monkeypatch):
    """How many bytes a file had when it was last brought to the disk; None: a folder.

    What is moved afterwards is found where it was.
    """
    found = {}

    def fsync(file):
        path = pathlib.Path(os.readlink(f'/proc/self/fd/{file}'))
        found[path] = None if path.is_dir() else path.stat().st_size

    monkeypatch.setattr(os, 'fsync', fsync)
    return found


class TestOnTheDisk:
    def test_a_file_before_its_name_and_its_name_at_last(
        self, tmp_path, monkeypatch, synced
    ):
        kind, moved = type(epath.Path(tmp_path)), []
        replace = kind.replace

        def replaced(path, target):
            moved.append((dict(synced), str(target)))
            synced.clear()
            return replace(path, target)

        monkeypatch.setattr(kind, 'replace', replaced)
        disk.write_whole(tmp_path / 'file', 'content')
        assert moved == [({tmp_path / 'file.unfinished': 7}, str(tmp_path / 'file'))]
        assert synced == {tmp_path: None}
        assert (tmp_path / 'file').read_text() == 'content'

    def test_new_folders_have_their_names(self, tmp_path, synced):
        (tmp_path / 'a').mkdir()
        for _ in range(2):
            disk.make(epath.Path(tmp_path / 'a' / 'b' / 'c'))
        assert set(synced) == {tmp_path / 'a' / 'b', tmp_path / 'a'}
        assert (tmp_path / 'a' / 'b' / 'c').is_dir()

    def test_a_checkpoint_before_its_sums_and_before_older_ones_go(
        self, tmp_path, monkeypatch, synced
    ):
        """Else a power cut can leave none: the newest empty, the older removed."""
        kept = []

        def check(folder, *args):
            path = pathlib.Path(folder) / str(folders.numbers(folder, '')[-1])
            files = {file for file in path.rglob('*') if file.name != folders.SUMS}
            assert {path, path.parent, tmp_path} | files <= set(synced)
            for file in files:
                assert synced[file] in (None, file.stat().st_size)
            return path

        def sums_written(path, write=folders.write_sums):
            write(path)
            path = check(path.parent)
            assert path / f'{folders.SUMS}.unfinished' in synced

        def keep_only(folder, count, keep=folders.keep_only):
            kept.append(check(folder))
            synced.clear()
            keep(folder, count)

        monkeypatch.setattr(folders, 'write_sums', sums_written)
        monkeypatch.setattr(folders, 'keep_only', keep_only)
        for _ in range(2):
            with contextlib.suppress(AssertionError):  # at the end, of nothing new
                checkpoint.save(tmp_path, STATE, {'notes': 1})
        assert [path.name for path in kept] == ['1', '2']

    def test_records_before_the_checkpoint_that_they_belong_to(
        self, tmp_path, monkeypatch, synced
    ):
        save, sizes = checkpoint.Saver.save, []

        def saved(self, state, notes=None, *, best=False):
            if not best:
                sizes.append(synced[tmp_path / 'metrics.jsonl'])
                assert sizes[-1] == (tmp_path / 'metrics.jsonl').stat().st_size
                (events,) = (tmp_path / 'tensorboard').iterdir()
                assert synced[events] == events.stat().st_size
            return save(self, state, notes, best=best)

        monkeypatch.setattr(checkpoint.Saver, 'save', saved)
        runs.train(tally(), tmp_path, save_every=0.0)
        assert len(sizes) > 2
        assert sizes == sorted(sizes)
        for name in ('config.json', 'summary.json'):
            size = (tmp_path / name).stat().st_size
            assert synced[tmp_path / f'{name}.unfinished'] == size

    def test_folders_that_cannot_be_synced(self, tmp_path, monkeypatch):
        """As of some network file systems; errors of the disk are raised."""
        code = disk.NO_SYNC[0]

        def fsync(file):
            if os.path.isdir(f'/proc/self/fd/{file}'):
                raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, 'fsync', fsync)
        disk.write_whole(tmp_path / 'file', 'content')
        code = 5
        with pytest.raises(OSError, match='Input/output'):
            disk.write_whole(tmp_path / 'file', 'content')

    def test_links_are_followed(self, tmp_path):
        (tmp_path / 'there').mkdir()
        (tmp_path / 'file').symlink_to(tmp_path / 'there' / 'file')
        for content in ('one', 'two'):
            disk.write_whole(tmp_path / 'file', content)
            assert (tmp_path / 'there' / 'file').read_text() == content
        (tmp_path / 'null').symlink_to('/dev/null')
        with pytest.raises(OSError, match='no regular file'):
            disk.write_whole(tmp_path / 'null', 'content')


def content(folder):
    """Returns the bytes of all files below a folder, and when they were written."""
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob('*')
        if path.is_file()
    }


class TestOthersFilesStay:
    @pytest.mark.parametrize(
        'name',
        [
            'checkpoint/mine',
            'checkpoint/5/mine',
            'tensorboard/events.out.tfevents.1.mine',
            'metrics.jsonl',
            'summary.json',
            'bias.json',
            'curves.png',
        ],
    )
    def test_of_a_folder_that_is_no_run(self, tmp_path, name):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('mine')
        before = content(tmp_path)
        message = f'holds {name.split("/")[0]} but no config.json.*choose another'
        for _ in range(2):
            with pytest.raises(records.WorkdirError, match=message):
                runs.train(tally(), tmp_path, overwrite=True)
        assert content(tmp_path) == before

    @pytest.mark.parametrize('overwrite', [False, True])
    def test_beside_those_of_a_run(self, tmp_path, monkeypatch, overwrite):
        """When it goes on, and when it begins anew."""
        names = (
            *('notes.txt', 'mine.unfinished', 'checkpoint/mine', 'checkpoint/007/x'),
            *('checkpoint/6_backup/x', 'checkpoint/6.bak/x', 'checkpoint/best/x'),
            *('checkpoint/0/x', 'checkpoint/mine~/x', 'checkpoint/١/x'),
            *('tensorboard/events.mine', 'tensorboard/mine/events.out.tfevents.1.a'),
        )
        if overwrite:
            runs.train(tally(), tmp_path)
        else:
            with monkeypatch.context() as patch:
                patch.setattr(records, 'write_summary', lambda *_: 1 / 0)
                with pytest.raises(ZeroDivisionError):
                    runs.train(tally(), tmp_path)
        mine = {}
        for path in (tmp_path / name for name in names):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text('mine')
            mine |= {path: (b'mine', path.stat().st_mtime_ns)}
        (tmp_path / 'kept').mkdir()
        (tmp_path / 'checkpoint' / '1').symlink_to(tmp_path / 'kept')
        own = tmp_path / 'checkpoint' / '9.orbax-checkpoint-tmp-12' / 'd'
        own.mkdir(parents=True)
        runs.train(tally(), tmp_path, overwrite=overwrite)
        assert mine.items() <= content(tmp_path).items()
        assert (tmp_path / 'kept').is_dir()
        assert not own.parent.exists()
        checkpoint.remove(tmp_path)
        assert mine.items() <= content(tmp_path).items()
        assert folders.numbers(folders.folder_of(tmp_path), 'best_') == []

    def test_a_checkpoint_folder_that_is_a_link(self, tmp_path):
        (tmp_path / 'there').mkdir()
        (tmp_path / 'run').mkdir()
        (tmp_path / 'run' / 'checkpoint').symlink_to(tmp_path / 'there')
        checkpoint.save(tmp_path / 'run', STATE)
        assert (tmp_path / 'there' / '1').is_dir()
        checkpoint.remove(tmp_path / 'run')
        assert list((tmp_path / 'there').iterdir()) == []
        assert (tmp_path / 'run' / 'checkpoint').is_symlink()


def moved(workdir):
    """Moves a run away, and begins another one of the same configuration there."""
    workdir.rename(workdir.with_name('away'))
    begin(workdir)


def replaced(workdir):
    text = (workdir / 'config.json').read_bytes()
    (workdir / 'config.json').unlink()
    (workdir / 'config.json').write_bytes(text)


def begin(workdir):
    records.claim(workdir, tally().config)
    with records.Writer(workdir) as writer:
        writer.write(1, 1.0, 'train', {'loss': 7.0})
    checkpoint.save(workdir, STATE)


GONE = {
    'moved': moved,
    'moved away': lambda w: w.rename(w.with_name('away')),
    'deleted': shutil.rmtree,
    'another in its place': lambda w: [shutil.rmtree(w), begin(w)],
    'config deleted': lambda w: (w / 'config.json').unlink(),
    'config replaced': replaced,
    'config claimed again': lambda w: records.claim(w, tally().config),
    'records deleted': lambda w: (w / 'metrics.jsonl').unlink(),
    'a file in its place': lambda w: [shutil.rmtree(w), w.write_text('a file')],
}


METADATA = '_CHECKPOINT_METADATA'


class TestTheFolderOfARun:
    @pytest.mark.parametrize('name', GONE)
    def test_is_compared_before_every_record(self, tmp_path, name):
        workdir = tmp_path / 'run'
        records.claim(workdir, tally().config)
        for act in (
            lambda writer: writer.write(3, 1.0, 'train', {'loss': 1.0}),
            lambda writer: writer.flush(),
            lambda writer: writer.check(),
        ):
            with records.Writer(workdir) as writer:
                writer.write(2, 1.0, 'train', {'loss': 1.0})
                writer.flush()  # of events, too, which have their own file open
                assert writer.is_ours()
                GONE[name](workdir)
                before = content(tmp_path)
                assert not writer.is_ours()
                for _ in range(2):
                    with pytest.raises(records.WorkdirError) as raised:
                        act(writer)
            assert content(tmp_path) == before
            message = str(raised.value)
            assert '\n' not in message
            assert str(workdir) in message
            assert 'records up to step 2' in message
            for path in tmp_path.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            records.claim(workdir, tally().config)

    def test_is_compared_before_checkpoints_go(self, tmp_path):
        """The new one is left unfinished; nothing of another run is removed."""
        ours = [True]
        with checkpoint.Saver(tmp_path, is_ours=lambda: ours[0]) as saver:
            saver.save(STATE)
            saver.wait()
            ours[0] = False
            for _ in range(2):
                saver.save(STATE)
        names = sorted(path.name for path in (tmp_path / 'checkpoint').iterdir())
        assert names == ['1', '2', '3']
        found = [(tmp_path / 'checkpoint' / n / folders.SUMS).exists() for n in names]
        assert found == [True, False, False]

    @pytest.mark.filterwarnings('ignore')  # of what orbax was just writing there
    @pytest.mark.parametrize('count', [1, 4, 7])
    def test_a_run_whose_folder_is_moved_stops(self, tmp_path, monkeypatch, count):
        write, left = records.Writer.write, [count]
        workdir, after = tmp_path / 'run', []

        def counted(self, *args):
            left[0] -= 1
            if left[0] == 0:
                monkeypatch.setattr(records.Writer, 'write', write)
                moved(workdir)
                after.append(content(workdir))
            write(self, *args)

        monkeypatch.setattr(records.Writer, 'write', counted)
        with pytest.raises((records.WorkdirError, checkpoint.CheckpointError)):
            runs.train(tally(), workdir, save_every=0.0)
        for found in (*after, now := content(workdir)):
            for path in [path for path in found if path.name == METADATA]:
                del found[path]  # Orbax may just finish one
        assert [now] == after
        state = runs.train(tally(), tmp_path / 'away', save_every=0.0)
        whole = runs.train(tally(), tmp_path / 'whole')
        runs.assert_equal(state, whole)


def test_a_clock_that_is_set_back(tmp_path, monkeypatch):
    """TensorBoard reads the files of a run in the order of their names."""
    names = []
    for step, now in ((0, 2e9), (4, 1e9), (4, 3e9), (8, 3e9), (9, 12.5)):
        monkeypatch.setattr('time.time', lambda now=now: now)
        with records.Writer(tmp_path, step):
            names += {path.name for path in (tmp_path / 'tensorboard').iterdir()} - {
                *names
            }
    assert len(names) == 5
    assert names == sorted(names)
    monkeypatch.setattr('time.time', lambda: 12.5)
    with records.Writer(tmp_path):
        (new,) = (tmp_path / 'tensorboard').iterdir()
    assert '.0000000012.' in new.name


def test_lost_sums_are_told(tmp_path, caplog):
    with checkpoint.Saver(tmp_path, keep=2) as saver:
        for number in range(3):
            saver.save({'a': jnp.full(2, number)})
    like = {'a': jnp.zeros(2, int)}
    np.testing.assert_array_equal(checkpoint.restore(tmp_path, like)['a'], 2)
    assert caplog.text == ''
    (tmp_path / 'checkpoint' / '3' / folders.SUMS).unlink()
    np.testing.assert_array_equal(checkpoint.restore(tmp_path, like)['a'], 1)
    (record,) = caplog.records
    message = record.getMessage()
    assert record.levelname == 'WARNING'
    assert f'{tmp_path}/checkpoint/3 has no SHA256SUMS' in message
    assert f'{tmp_path}/checkpoint/2 is read instead' in message


def test_an_error_does_not_wait_for_a_save_that_never_ends(tmp_path, monkeypatch):
    """As one of Orbax after an error of the disk."""
    end = threading.Event()
    endless = types.SimpleNamespace(result=end.wait)
    monkeypatch.setattr(ocp, 'save_async', lambda *_: endless)
    monkeypatch.setattr(saver, 'PATIENCE', 0.01)
    monkeypatch.setattr(folders, 'write_sums', lambda _: None)
    with runs.within(60):

        def leave():
            with checkpoint.Saver(tmp_path) as own:
                own.save(STATE)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            leave()
    end.set()


def test_in_a_bucket(monkeypatch):
    """Where nothing is synced, held or compared, and what is no run is refused."""
    monkeypatch.setattr(epath.gpath, '_is_tf_installed', lambda: False)
    kept = memory.MemoryFileSystem()
    kind = epath.backend._FileSystemSpecBackend
    monkeypatch.setattr(kind, '_get_filesystem', lambda *_: kept)  # cached no longer
    workdir = 'gs://bucket/run'
    with records.locked(workdir):
        records.claim(workdir, tally().config)
        with records.Writer(workdir) as writer:
            writer.write(1, 1.0, 'train', {'loss': 7.0})
            records.claim(workdir, tally().config)
            writer.write(2, 1.0, 'train', {'loss': 7.0})
            writer.flush()
        assert [row['step'] for row in records.read(workdir)] == [1, 2]
        records.write_summary(workdir, {'last': 1})
        assert records.is_finished(workdir)
        records.reopen(workdir)
        assert records.is_unfinished(workdir)
    (records.folder(workdir) / records.CONFIG).unlink()
    with pytest.raises(records.WorkdirError, match='holds metrics.jsonl but no config'):
        records.claim(workdir, tally().config)
    ours = ('1/SHA256SUMS', 'best_2/SHA256SUMS', '3.orbax-checkpoint-tmp-1/x')
    for name in (*ours, '6_backup/x', '7/x'):
        (records.folder(workdir) / 'checkpoint' / name).write_text('x')
    assert folders.highest_number(folders.folder_of(workdir)) == 7
    checkpoint.remove(workdir)
    left = (records.folder(workdir) / 'checkpoint').iterdir()
    assert sorted(path.name for path in left) == ['6_backup', '7']
