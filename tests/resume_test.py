"""A run that is interrupted or killed goes on as if nothing had happened."""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import runs
from tiers import quick

from eqprop_jax import checkpoint, records, training
from eqprop_jax.checkpoint import folders
from eqprop_jax.training import legs
from eqprop_jax.training.state import init_state

ROOT = pathlib.Path(__file__).parents[1]
KILLS = int(os.environ.get('KILLS', '3'))
CHANGES = runs.FEEDFORWARD | {'eval_every_steps': 4, 'diagnostics.every_evals': 2}


def experiment():
    return runs.experiment(CHANGES)


def run(workdir, save_every=0.0, **options):
    return runs.train(experiment(), workdir, save_every=save_every, **options)


def lines_of(workdir):
    """The records but for what is timed."""
    lines = (workdir / records.METRICS).read_text().splitlines()
    found = [json.loads(line) for line in lines]
    for record in found:
        record.pop('examples_per_second', None)
    return found


def outcome(workdir):
    summary = json.loads((workdir / records.SUMMARY).read_text())
    return {key: summary[key] for key in ('last', 'best', 'seed')}


def assert_same(workdir, other):
    like = init_state(experiment())
    for best in (False, True):
        states = [
            checkpoint.restore(folder, like, best=best) for folder in (workdir, other)
        ]
        for a, b in zip(*map(jax.tree.leaves, states), strict=True):
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert lines_of(workdir) == lines_of(other)
    assert outcome(workdir) == outcome(other)
    assert [path.name for path in workdir.glob('*unfinished*')] == []
    names = {path.name for path in (workdir / 'checkpoint').iterdir()}
    assert sum(name.isdecimal() for name in names) <= 2
    assert sum(name.startswith('best_') for name in names) == 1
    assert len(names) <= 3


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The workdir of a run that nothing has disturbed."""
    workdir = tmp_path_factory.mktemp('whole')
    run(workdir)
    return workdir


class CrashError(Exception):
    """Something that no code here expects."""


def crash():
    raise CrashError


def after(count, action):
    """Returns a way to write that acts instead of the write of that number."""
    write, left = records.Writer.write, [count]

    def counted(self, *args):
        left[0] -= 1
        if left[0] == 0:
            action()
        write(self, *args)

    return counted


@pytest.mark.whole
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_before_it_is_obeyed(tmp_path, monkeypatch, whole, number):
    handler = signal.getsignal(number)
    with monkeypatch.context() as patch:
        act = after(4, lambda: os.kill(os.getpid(), number))
        patch.setattr(records.Writer, 'write', act)
        with pytest.raises(training.Interrupted, match='goes on from there') as raised:
            run(tmp_path, save_every=1e9)
    assert raised.value.number == number
    assert signal.getsignal(number) is handler
    assert records.is_unfinished(tmp_path)
    begun = lines_of(tmp_path)
    assert 0 < len(begun) < len(lines_of(whole))
    run(tmp_path)
    assert_same(tmp_path, whole)
    assert lines_of(tmp_path)[: len(begun)] == begun


@pytest.mark.parametrize('count', quick([1, 2, 5, 6, 7, 9], [7]))
def test_a_crash_at_a_record(tmp_path, monkeypatch, whole, count):
    """Of the first one, before any checkpoint, and between those of an evaluation."""

    def crash():
        raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(records.Writer, 'write', after(count, crash))
        with pytest.raises(CrashError):
            run(tmp_path)
    with (tmp_path / records.METRICS).open('a') as lines:
        lines.write('{"step": 1')  # half a record
    run(tmp_path)
    assert_same(tmp_path, whole)


@pytest.mark.whole
@pytest.mark.parametrize('part', ['sums_of', 'keep_only'])
@pytest.mark.parametrize('count', [1, 3])
def test_a_crash_in_a_save(tmp_path, monkeypatch, whole, part, count):
    done, left = getattr(folders, part), [count]

    def crash(*args):
        left[0] -= 1
        if not left[0]:
            raise CrashError
        return done(*args)

    with monkeypatch.context() as patch:
        patch.setattr(folders, part, crash)
        with pytest.raises(CrashError):
            run(tmp_path)
    run(tmp_path)
    assert_same(tmp_path, whole)


@pytest.mark.whole
def test_a_crash_after_the_last_save(tmp_path, monkeypatch, whole):
    """The next run has no step to take, and still removes what is one too many."""
    last = max(folders.numbers(folders.folder_of(whole), ''))
    done = folders.keep_only

    def crash(folder, keep):
        if last in folders.numbers(folder, ''):
            raise CrashError
        done(folder, keep)

    with monkeypatch.context() as patch:
        patch.setattr(folders, 'keep_only', crash)
        with pytest.raises(CrashError):
            run(tmp_path)
    assert len(folders.numbers(folders.folder_of(tmp_path), '')) == 3
    run(tmp_path)
    assert_same(tmp_path, whole)


@pytest.mark.whole
def test_a_damaged_checkpoint_is_passed_over(tmp_path, monkeypatch, caplog, whole):
    with monkeypatch.context() as patch:
        patch.setattr(records.Writer, 'write', after(9, crash))
        with pytest.raises(CrashError):
            run(tmp_path)
    numbers = folders.numbers(folders.folder_of(tmp_path), '')
    older, newest = (tmp_path / 'checkpoint' / str(number) for number in numbers)
    file = max(newest.rglob('*'), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[:-1])
    run(tmp_path)
    assert f'checkpoint/{newest.name} is damaged' in caplog.text
    assert caplog.text.count('is damaged') == 1
    assert not older.exists()
    assert_same(tmp_path, whole)


@pytest.mark.whole
def test_the_checkpoint_of_another_run_is_passed_over(
    tmp_path, monkeypatch, caplog, whole
):
    """Of the same shapes: copied in by hand, or mixed up between seeds."""
    other = runs.experiment(CHANGES | {'seed': 7})
    runs.train(other, tmp_path / 'other', save_every=0.0)
    with monkeypatch.context() as patch:
        patch.setattr(records.Writer, 'write', after(9, crash))
        with pytest.raises(CrashError):
            run(tmp_path / 'run')
    for name, number in (('run', '98'), ('whole', '99'), ('whole', 'best_99')):
        folder = tmp_path / name
        if name == 'whole' and not folder.exists():
            shutil.copytree(whole, folder)
        last = folders.numbers(tmp_path / 'other' / 'checkpoint', '')[-1]
        source = tmp_path / 'other' / 'checkpoint' / str(last)
        shutil.copytree(source, folder / 'checkpoint' / number)
    run(tmp_path / 'run')
    assert 'checkpoint/98 is of another run, and is passed over' in caplog.text
    assert_same(tmp_path / 'run', whole)
    like, accepts = init_state(experiment()), legs.of(experiment())
    for best in (False, True):
        with pytest.raises(checkpoint.CheckpointError, match='is of another run'):
            checkpoint.restore(tmp_path / 'whole', like, best=best, accepts=accepts)


@pytest.mark.whole
def test_a_run_that_has_ended_begins_anew_if_told(tmp_path, whole):
    for _ in range(2):
        run(tmp_path, overwrite=True)
        assert_same(tmp_path, whole)


@pytest.mark.whole
def test_it_is_killed_at_any_moment(tmp_path, whole):
    """SIGKILL, at random moments of one run; `KILLS=20` for more than three.

    Each comes up to 0.3 s after one of the next four records: in steps, in saves of
    what the record is of, in the records of the next evaluation.
    """
    script = (
        'import sys, pathlib; sys.path.insert(0, sys.argv[1])\n'
        'import resume_test; resume_test.run(pathlib.Path(sys.argv[2]), overwrite=True)'
    )
    workdir = tmp_path / 'run'
    command = [sys.executable, '-c', script, str(ROOT / 'tests'), str(workdir)]
    environment = {
        **os.environ,
        'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'cache'),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
        'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
        'JAX_ENABLE_X64': str(int(jax.config.jax_enable_x64)),
    }

    def size():
        metrics = workdir / records.METRICS
        return metrics.stat().st_size if metrics.exists() else 0

    draw = random.Random(0)
    killed = in_saves = 0
    while killed < KILLS:  # a run that has ended begins anew
        left, before = draw.randint(1, 4), size()
        process = subprocess.Popen(command, env=environment, cwd=ROOT)
        while left and process.poll() is None:
            if size() != before:
                left, before = left - 1, size()
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.3))
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        in_saves += any((workdir / 'checkpoint').glob('*tmp*'))
    assert in_saves or KILLS < 20
    subprocess.run(command, env=environment, cwd=ROOT, check=True)
    assert_same(workdir, whole)


def test_schedulers_send_several_signals_and_people_two():
    """SIGTERM is held back however often; SIGINT once."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with training.interrupts.Watch() as watch:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert watch.number == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)
