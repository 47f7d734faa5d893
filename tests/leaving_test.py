"""However a launcher ends: in seconds, in one line, and with the right exit code."""

import errno
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest
import runs
from tally import tally

from eqprop_jax import checkpoint, records, training
from eqprop_jax.training.display import Display

ROOT = pathlib.Path(__file__).parents[1]
TRAIN = (
    sys.executable,
    str(ROOT / 'launch' / 'train.py'),
    f'--config={ROOT / "configs" / "digits_mlp.py"}',
    f'--compilation_cache={ROOT / ".cache" / "leaving"}',
    '--config.log_every_steps=2',
    '--config.data.num_train=510',
    '--config.diagnostics.every_evals=0',
)
LONG = ('--config.num_epochs=9999', '--save_every=9999')
SHORT = ('--config.num_epochs=1',)
# Long enough for two signals.
SLOW = (
    '--config.solver.tol=1e-30',
    '--config.solver.max_steps=100000',
    '--config.batch_size=510',
)
INTERRUPTED = 'train: interrupted\n'


class Broken(io.StringIO):
    """A stream that takes nothing."""

    def __init__(self, number):
        super().__init__()
        self._error = OSError(number, os.strerror(number))

    def write(self, text):
        raise self._error

    def flush(self):
        raise self._error


@pytest.mark.parametrize('stream', [Broken(errno.EPIPE), Broken(errno.EIO), None])
def test_a_run_goes_on_without_its_display(tmp_path, monkeypatch, stream):
    monkeypatch.setattr(sys, 'stderr', stream)
    state = training.train_and_evaluate(tally(), tmp_path)
    monkeypatch.undo()
    assert int(state.step) == tally().num_steps
    assert (tmp_path / records.SUMMARY).exists()


def test_a_display_escapes_what_it_has_not(tmp_path):
    with (tmp_path / 'log').open('w', encoding='ascii') as stream:
        print('3 ± 1 °', file=Display(stream))
    assert (tmp_path / 'log').read_text() == '3 \\xb1 1 \\xb0\n'


def test_a_failed_run_does_not_wait_for_its_disk(tmp_path, monkeypatch):
    """A checkpoint that hangs, while the records cannot be written."""
    monkeypatch.setattr(checkpoint.saver, 'PATIENCE', 0.1)
    monkeypatch.setattr(checkpoint.folders, 'write_sums', lambda path: time.sleep(3))

    def run():
        with checkpoint.Saver(tmp_path) as saver:
            saver.save({'a': 1.0})
            raise OSError(errno.ENOSPC, 'No space left on device')

    begin = time.monotonic()
    with pytest.raises(OSError, match='No space left'):
        run()
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize('value', [float('nan'), -1.0])
def test_seconds_between_checkpoints(tmp_path, value):
    with pytest.raises(ValueError, match='save_every'):
        training.train_and_evaluate(tally(), tmp_path, save_every=value)


ERRORS = {
    'PermissionError(13, "Permission denied", "x.py")': "Permission denied: 'x.py'",
    'MemoryError()': 'too large for the memory of this machine',
    'jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 1 TB")': 'too large for the mem',
    'jax.errors.JaxRuntimeError("UNAVAILABLE: Socket closed")': 'another host has',
    'ValueError("UNKNOWN: Gloo AllGather failed")': 'another host has ended',
    'app.UsageError("unexpected arguments: x")': 'unexpected arguments: x',
    'KeyboardInterrupt()': 'interrupted',
}


@pytest.mark.parametrize('error', ERRORS)
def test_errors_are_told(monkeypatch, capsys, error):
    monkeypatch.setattr(sys, 'argv', ['leaving_test'])
    with runs.taken_back():
        from eqprop_jax.cli import command

    def fn(argv):
        raise eval(error, vars(command))

    monkeypatch.setattr(os, '_exit', sys.exit)
    with pytest.raises(SystemExit) as ended:
        command.told(fn)([])
    assert ended.value.code == (130 if 'Keyboard' in error else 1)
    said = capsys.readouterr().err
    assert said.startswith('leaving_test: ')
    assert said.count('\n') == 1
    assert ERRORS[error] in said


def test_what_has_to_clean_up_is_given_seconds(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['leaving_test'])
    with runs.taken_back():
        from eqprop_jax.cli import command
    cleaned = []

    def fn(argv):
        command.clean_up_first()
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            cleaned.append(True)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(os, '_exit', sys.exit)
    with pytest.raises(SystemExit) as ended:
        command.told(fn)([])
    assert ended.value.code == 143
    assert cleaned == [True]
    assert capsys.readouterr().err == 'leaving_test: interrupted\n'
    assert signal.getsignal(signal.SIGTERM) is before


def start(*arguments, **options):
    options = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE} | options
    environment = {'JAX_PLATFORMS': 'cpu', 'JAX_ENABLE_X64': '0'}
    environment |= options.pop('env', {})
    return subprocess.Popen(
        arguments, env=os.environ | environment, text=True, **options
    )


def end(process, seconds):
    """Returns code and what was said; asserts that neither takes longer."""
    try:
        return (process.wait(seconds), *process.communicate(timeout=5))
    finally:
        process.kill()


def until_begun(workdir, number=4):
    metrics, deadline = workdir / records.METRICS, time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count('\n') >= number):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def told(text):
    """Returns what was said beside the progress bar."""
    lines = text.replace('\r', '\n').split('\n')
    return [line for line in lines if line and 'step' not in line[:90]]


@pytest.mark.whole
@pytest.mark.parametrize('seconds', [0.3, 1, 3, 5])
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_signals_before_the_first_step(tmp_path, number, seconds):
    """While it is imported, built and compiled."""
    train = start(*TRAIN, *LONG, *SLOW, f'--workdir={tmp_path}', cwd=tmp_path)
    time.sleep(seconds)
    train.send_signal(number)
    time.sleep(2)
    late = train.poll() is None
    if late:  # it saves first, which takes long here
        train.send_signal(signal.SIGINT)
    code, _, said = end(train, 10)
    assert code in (128 + number, *([130] if late else []))
    assert late or 'asked to leave: saving first' in said or said == INTERRUPTED


@pytest.mark.whole
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    'script', ['sweep', 'evaluate', 'diagnose', 'figures', 'benchmark', 'prepare_data']
)
def test_signals_to_the_other_launchers(tmp_path, script, number):
    path = ROOT / 'launch' / f'{script}.py'
    process = start(sys.executable, str(path), cwd=tmp_path)
    time.sleep(0.3)
    process.send_signal(number)
    code, _, said = end(process, 10)
    assert (code, said) == (128 + number, f'{script}: interrupted\n')


@pytest.mark.whole
def test_a_second_one_is_obeyed_at_once(tmp_path):
    train = start(*TRAIN, *LONG, *SLOW, f'--workdir={tmp_path}')
    while not (tmp_path / records.METRICS).exists():
        time.sleep(0.1)
    time.sleep(3)
    train.send_signal(signal.SIGINT)
    time.sleep(1)
    assert train.poll() is None
    train.send_signal(signal.SIGINT)
    code, _, said = end(train, 5)
    assert code == 130
    assert told(said) == [
        'train: asked to leave: saving first; Ctrl-C to leave at once',
        'train: left at once; what was saved last stays',
    ]


@pytest.mark.whole
@pytest.mark.parametrize('display', ['tee', 'full', 'closed'])
def test_a_signal_where_nobody_reads(tmp_path, display):
    """Ctrl-C ends `tee`, too: the state is saved all the same."""
    read, write = os.pipe()
    full = os.open('/dev/full', os.O_WRONLY)
    to = {'tee': write, 'full': full}.get(display)
    train = start(
        *(('bash', '-c', 'exec "$@" >&- 2>&-', 'bash') if to is None else ()),
        *TRAIN,
        *LONG,
        f'--workdir={tmp_path}',
        stdout=to,
        stderr=to,
    )
    os.close(write)
    os.close(full)
    until_begun(tmp_path)
    os.close(read)
    train.send_signal(signal.SIGINT)
    assert end(train, 60)[0] == 130
    rows = records.read(tmp_path)
    assert checkpoint.newest(tmp_path) is not None
    assert rows[-1]['step'] > 0


@pytest.mark.whole
def test_what_is_printed_is_lost(tmp_path):
    """Only that, and it is told."""
    with open('/dev/full', 'w') as full:
        train = start(*TRAIN, *SHORT, f'--workdir={tmp_path}', stdout=full)
        code, _, said = end(train, 120)
    assert code == 1
    assert 'the end was reached, but standard output cannot be' in told(said)[-1]
    assert json.loads((tmp_path / records.SUMMARY).read_text())['last']


@pytest.mark.whole
@pytest.mark.parametrize(
    ('variable', 'value', 'message'),
    [
        ('JAX_PLATFORMS', 'cuda', 'no device with JAX_PLATFORMS=cuda'),
        ('JAX_PLATFORMS', 'magic', 'no device with JAX_PLATFORMS=magic'),
        ('JAX_NUM_CPU_DEVICES', 'two', 'JAX cannot start.*jax_num_cpu_devices'),
        ('JAX_NUM_CPU_DEVICES', '0', 'no device'),
        ('JAX_ENABLE_X64', 'maybe', 'JAX cannot start.*JAX_ENABLE_X64'),
    ],
)
def test_environments(tmp_path, variable, value, message):
    train = start(*TRAIN, f'--workdir={tmp_path / "run"}', env={variable: value})
    code, _, said = end(train, 60)
    assert code == 1
    assert said.count('\n') == 1, said
    assert re.search(message, said)
    assert not (tmp_path / 'run').exists()
