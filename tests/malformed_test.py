"""What is malformed gives an error of one line, or a recovered run; nothing hangs."""

import errno
import json
import shutil

import jax
import numpy as np
import pytest
import runs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eqprop_jax import build, checkpoint, records, training
from eqprop_jax.checkpoint import folders
from eqprop_jax.data import NotPreparedError, arrays
from eqprop_jax.records import files
from eqprop_jax.training.state import init_state

ERRORS = (
    build.ConfigError,
    checkpoint.CheckpointError,
    NotPreparedError,
    records.WorkdirError,
    training.TrainingError,
)
CHANGES = {'eval_every_steps': 4}


def experiment(changes=None):
    return runs.experiment(CHANGES | (changes or {}))


def one_line(raised):
    return one_line_of(raised.value)


def one_line_of(error):
    message = str(error)
    assert message
    assert '\n' not in message
    return message


class StopError(Exception):
    """A run is left in the middle."""


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A run that nothing has disturbed: its workdir and last state."""
    workdir = tmp_path_factory.mktemp('whole')
    return workdir, jax.device_get(runs.train(experiment(), workdir))


@pytest.fixture(scope='module')
def begun(tmp_path_factory):
    """A workdir with two checkpoints of a run that did not end."""
    workdir = tmp_path_factory.mktemp('begun')
    write, left = records.Writer.write, [9]

    def counted(self, *args):
        left[0] -= 1
        if not left[0]:
            raise StopError
        write(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records.Writer, 'write', counted)
        with pytest.raises(StopError):
            training.train_and_evaluate(
                experiment(), workdir, progress=False, save_every=0.0
            )
    return workdir


@pytest.fixture
def copy(begun, tmp_path):
    """A copy of it, to be damaged."""
    shutil.copytree(begun, tmp_path / 'run')
    return tmp_path / 'run'


def newest(workdir):
    number = folders.numbers(folders.folder_of(workdir), '')[-1]
    return workdir / 'checkpoint' / str(number)


def biggest(folder):
    paths = [path for path in folder.rglob('*') if path.is_file()]
    return max(paths, key=lambda path: path.stat().st_size)


def sum_up(folder):
    (folder / folders.SUMS).unlink()
    folders.write_sums(folders.epath.Path(folder))


def resumes(workdir, whole):
    """Asserts that the run goes on, or starts anew, to the end of the whole one."""
    state = runs.train(experiment(), workdir)
    runs.assert_equal(jax.device_get(state), whole[1])
    steps = [row['step'] for row in records.read(workdir)]
    assert steps == sorted(steps)
    assert (workdir / records.SUMMARY).exists()


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x80
    path.write_bytes(content)


DAMAGES = {
    'truncated': lambda w: biggest(newest(w)).write_bytes(b'half'),
    'emptied': lambda w: biggest(newest(w)).write_bytes(b''),
    'flipped': lambda w: flip(biggest(newest(w))),
    'file lost': lambda w: biggest(newest(w)).unlink(),
    'sums lost': lambda w: (newest(w) / folders.SUMS).unlink(),
    'sums are junk': lambda w: (newest(w) / folders.SUMS).write_bytes(b'\xff\0'),
    'notes damaged': lambda w: (newest(w) / folders.NOTES).write_text('{'),
    'newest lost': lambda w: shutil.rmtree(newest(w)),
    'all lost': lambda w: shutil.rmtree(w / 'checkpoint'),
    'a file added': lambda w: (newest(w) / 'more').write_text('x'),
    'leftovers': lambda w: (w / 'checkpoint' / '9.orbax-checkpoint-tmp').mkdir(),
    'half a record': lambda w: (w / 'metrics.jsonl').open('a').write('{"step": 1'),
    'record of later': lambda w: (w / 'metrics.jsonl').open('a').write('{"step":99}\n'),
    'junk at the end': lambda w: (w / 'metrics.jsonl').open('ab').write(b'\xff\xfe\n'),
    'half a summary': lambda w: (w / 'summary.json.unfinished').write_text('{'),
    'half a config': lambda w: (w / 'config.json.unfinished').write_text('{'),
}


@pytest.mark.filterwarnings('ignore::ResourceWarning')
@pytest.mark.parametrize('name', DAMAGES)
def test_a_damaged_run_recovers(copy, whole, name):
    DAMAGES[name](copy)
    resumes(copy, whole)


def lost_notes(workdir):
    for path in (workdir / 'checkpoint').iterdir():
        if (path / folders.NOTES).exists():
            (path / folders.NOTES).unlink()
            sum_up(path)


def test_a_checkpoint_without_notes_is_no_start(copy, whole):
    lost_notes(copy)
    resumes(copy, whole)


def junk_notes(workdir):
    (newest(workdir) / folders.NOTES).write_text('[1')
    sum_up(newest(workdir))


REFUSED = {
    'notes are no JSON': (junk_notes, checkpoint.CheckpointError),
    'config empty': (
        lambda w: (w / 'config.json').write_text(''),
        records.WorkdirError,
    ),
    'config a list': (
        lambda w: (w / 'config.json').write_text('[]'),
        records.WorkdirError,
    ),
    'config lost': (lambda w: (w / 'config.json').unlink(), records.WorkdirError),
    'config of another': (
        lambda w: (w / 'config.json').write_text(
            json.dumps(files.plain(runs.values({'seed': 7})))
        ),
        records.WorkdirError,
    ),
    'metrics a folder': (
        lambda w: [(w / 'metrics.jsonl').unlink(), (w / 'metrics.jsonl').mkdir()],
        records.WorkdirError,
    ),
}


@pytest.mark.parametrize('name', REFUSED)
def test_what_cannot_go_on_says_so(copy, begun, whole, name):
    """And leaves what it found, so that it can be mended."""
    damage, error = REFUSED[name]
    damage(copy)
    with pytest.raises(error) as raised:
        runs.train(experiment(), copy)
    assert 'run' in one_line(raised)
    shutil.rmtree(copy)
    shutil.copytree(begun, copy)
    resumes(copy, whole)


@pytest.mark.parametrize(
    'swap',
    [
        lambda a: np.asarray(a, np.float64) if a.dtype == np.float32 else a,
        lambda a: np.asarray(a, np.complex64) if a.dtype == np.float32 else a,
        lambda a: a[..., None],
        lambda a: a[:1] if a.ndim else a,
    ],
    ids=['float64', 'complex', 'one more axis', 'shorter'],
)
def test_arrays_of_another_kind(tmp_path, whole, swap):
    checkpoint.save(tmp_path, jax.tree.map(lambda a: swap(np.asarray(a)), whole[1]))
    with pytest.raises(checkpoint.CheckpointError) as raised:
        checkpoint.restore(tmp_path, init_state(experiment()))
    assert 'another configuration' in one_line(raised)


FULL = OSError(errno.ENOSPC, 'No space left on device')


def full(*args, **options):
    raise FULL


@pytest.mark.parametrize(
    ('where', 'name'),
    [
        (files, 'write_whole'),
        (folders, 'sums_of'),
        (folders, 'keep_only'),
        (files.epath.Path, 'mkdir'),
    ],
    ids=['records', 'sums', 'older checkpoints', 'folders'],
)
def test_a_full_disk(tmp_path, whole, where, name):
    workdir = tmp_path / 'run'
    if name == 'mkdir':
        where = type(files.folder(workdir))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, name, full)
        if where is files:
            patch.setattr(records.run, name, full)
        with pytest.raises(ERRORS) as raised:
            runs.train(experiment(), workdir)
    assert 'No space left' in one_line(raised)
    resumes(workdir, whole)


def test_a_full_disk_at_a_record(tmp_path, whole):
    add, left = files.epath.Path.open, [3]
    kind = type(files.folder(tmp_path))
    add = kind.open

    def sometimes(self, mode='r', **options):
        if mode == 'a':
            left[0] -= 1
            if left[0] == 0:
                raise FULL
        return add(self, mode, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, 'open', sometimes)
        with pytest.raises(records.WorkdirError) as raised:
            runs.train(experiment(), tmp_path)
    assert 'No space left' in one_line(raised)
    resumes(tmp_path, whole)


@pytest.mark.parametrize(
    'name', ['with space', 'ünï çödé', 'trailing/', 'deep/er/still', 'new\nline']
)
def test_odd_names_of_workdirs(tmp_path, whole, name):
    resumes(tmp_path / name, whole)


@pytest.mark.parametrize(
    'name',
    ['/proc/nothing', 'file', 'file/below', 'a' * 300, 's4://bucket/run', '[a]*'],
)
def test_workdirs_that_cannot_be(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'file').write_text('mine')
    with pytest.raises(records.WorkdirError) as raised:
        training.train_and_evaluate(experiment(), name, progress=False)
    one_line(raised)
    assert (tmp_path / 'file').read_text() == 'mine'


def test_a_linked_workdir(tmp_path, whole):
    (tmp_path / 'there').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'there')
    resumes(tmp_path / 'link', whole)
    assert (tmp_path / 'there' / 'summary.json').exists()


@pytest.fixture
def cached(tmp_path):
    """A folder of data sets with a small one in it."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (60, 8, 8, 1), dtype=np.uint8)
    stream = arrays.Stream(images.shape, [(images, np.arange(60, dtype=np.int32) % 10)])
    arrays.write(
        arrays.folder_of('mnist', tmp_path),
        name='mnist',
        num_classes=10,
        versions={},
        splits={'train': stream, 'test': stream},
    )
    return tmp_path


def manifest(folder, **changes):
    path = folder / 'manifest.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def labels_out_of_range(folder):
    np.save(folder / 'train_labels.npy', np.full(60, 11, np.int32))
    described = arrays._describe(folder / 'train_labels.npy')
    known = json.loads((folder / 'manifest.json').read_text())['files']
    manifest(folder, files=known | {'train_labels.npy': described})


CACHES = {
    'truncated': lambda f: (f / 'train_images.npy').write_bytes(b'\x93NUMPY'),
    'flipped': lambda f: flip(f / 'train_images.npy'),
    'lost': lambda f: (f / 'test_labels.npy').unlink(),
    'manifest no JSON': lambda f: (f / 'manifest.json').write_text('{'),
    'manifest a list': lambda f: (f / 'manifest.json').write_text('[]'),
    'manifest without files': lambda f: (f / 'manifest.json').write_text('{}'),
    'classes are words': lambda f: manifest(f, num_classes='ten'),
    'classes too few': lambda f: manifest(f, num_classes=3),
    'classes too many': lambda f: manifest(f, num_classes=11),
    'labels out of range': labels_out_of_range,
}


@pytest.mark.parametrize('name', CACHES)
def test_a_damaged_cache(cached, name):
    changes = {
        'data.name': 'mnist',
        'data.data_dir': str(cached),
        'data.held_out': 10,
        'data.num_train': 40,
    }
    runs.experiment(changes)
    CACHES[name](arrays.folder_of('mnist', cached))
    with pytest.raises(build.ConfigError) as raised:
        runs.experiment(changes)
    one_line(raised)


@pytest.mark.parametrize(
    'name', ['../../etc', '/etc', '..', '.', 'a/../../b', 'x' * 300]
)
def test_names_stay_in_their_folder(tmp_path, name):
    root = tmp_path / 'eqprop_arrays'
    assert arrays.folder_of(name, tmp_path).parent == root
    with pytest.raises((build.ConfigError, NotPreparedError)) as raised:
        runs.experiment({'data.name': name, 'data.data_dir': str(tmp_path)})
    one_line(raised)


@pytest.mark.parametrize('section', ['', *(f'{name}.' for name in runs.SECTIONS)])
def test_unknown_keys(section):
    with pytest.raises(build.ConfigError) as raised:
        runs.experiment({f'{section}no_such_key': 1})
    assert 'no_such_key' in one_line(raised)


NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1e-30, 1e30, 1e308, float('nan'), float('inf'), -1e-9]),
    st.integers(-3, 40),
    st.floats(-10, 10),
    st.sampled_from([True, None, 'many', (1,), {}]),
)
KEYS = (
    *('seed', 'batch_size', 'num_epochs', 'log_every_steps', 'eval_every_steps'),
    *('data.held_out', 'data.num_train', 'data.std_factor', 'data.augment.pad'),
    *('solver.tol', 'solver.max_steps', 'solver.step_size', 'nudged_solver.tol'),
    *('estimator.radius', 'estimator.num_points', 'homeostasis.weight'),
    *('homeostasis.num_probes', 'homeostasis.fraction', 'optimizer.learning_rate'),
    *('optimizer.weight_decay', 'optimizer.clip_norm', 'optimizer.warmup_steps'),
    *('optimizer.momentum', 'diagnostics.num_examples', 'mesh.data', 'mesh.contour'),
)


@settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.dictionaries(st.sampled_from(KEYS), NUMBERS, min_size=1, max_size=3))
def test_absurd_hyperparameters(changes):
    """Each is refused in one line, or builds a run that has a first state."""
    try:
        built = runs.experiment(changes)
    except build.ConfigError as error:
        one_line_of(error)
        return
    assert built.num_steps > 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(init_state(built)))


@pytest.mark.parametrize(
    'changes',
    [
        {'optimizer.learning_rate': 1e30},
        {'optimizer.weight_decay': 1e30, 'optimizer.name': 'sgd'},
        {'homeostasis.weight': 1e38},
        {'estimator.radius': 1e30},
        {'solver.step_size': 1e20},
    ],
    ids=str,
)
def test_absurd_runs_end(tmp_path, changes):
    """In an error, or at the end, and never with numbers that are not finite."""
    try:
        state = runs.train(experiment(changes), tmp_path)
    except training.TrainingError as error:
        one_line_of(error)
        state = {}
    params = getattr(state, 'params', state)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
