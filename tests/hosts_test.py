"""Two processes on one machine, over gloo, are a run on two hosts."""

import http.server
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from eqprop_jax import records
from eqprop_jax.training import hosts

pytestmark = pytest.mark.whole

ROOT = pathlib.Path(__file__).parents[1]
ARGUMENTS = (
    f'--config={ROOT / "configs" / "digits_mlp.py"}',
    f'--compilation_cache={ROOT / ".cache" / "hosts"}',
    '--config.num_epochs=3',
    '--config.log_every_steps=2',
    '--config.data.num_train=510',  # ten steps an epoch
    '--config.optimizer.name=sgd',
    '--config.optimizer.learning_rate=0.1',
    '--config.diagnostics.every_evals=0',
)
SLURM = {name: '2' for name in hosts.SLURM}


def launch(workdir, *arguments):
    return subprocess.Popen(
        [
            sys.executable,
            str(ROOT / 'launch' / 'train.py'),
            f'--workdir={workdir}',
            *ARGUMENTS,
            *arguments,
        ],
        env=os.environ
        | {'JAX_PLATFORMS': 'cpu', 'JAX_ENABLE_X64': '0', 'JAX_NUM_CPU_DEVICES': '1'},
        stderr=subprocess.PIPE,
        text=True,
    )


def launch_two(workdir, *arguments, own=((), ()), workdirs=None):
    """Returns two processes that know of each other, with arguments of their own."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    return [
        launch(
            (workdirs or (workdir, workdir))[host],
            f'--coordinator=127.0.0.1:{port}',
            '--num_hosts=2',
            f'--host={host}',
            *arguments,
            *own[host],
        )
        for host in range(2)
    ]


def until_begun(workdir, processes):
    """Returns once a run has written some records."""
    metrics = workdir / records.METRICS
    deadline = time.monotonic() + 200
    while not (metrics.exists() and metrics.read_text().count('\n') > 2):
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < deadline
        time.sleep(0.005)


def assert_told(processes, message, seconds):
    """Asserts that all end within seconds, each with that message in its last line."""
    begin = time.monotonic()
    codes, said = end(processes)
    assert time.monotonic() - begin < seconds
    assert codes == [1] * len(processes), said
    for text in said:
        *shown, last, nothing = text.replace('\r', '\n').split('\n')
        assert last.startswith('train: '), text
        assert re.search(message, last), text
        assert nothing == ''
        assert all('%|' in line or not line for line in shown), text


def end(processes):
    """Returns exit codes and what they said."""
    said = [process.communicate(timeout=240)[1] for process in processes]
    return [process.returncode for process in processes], said


def newest(workdir):
    """Returns the arrays of the last checkpoint."""
    names = [path.name for path in (workdir / 'checkpoint').iterdir()]
    number = max(int(name) for name in names if name.isdecimal())
    return ocp.load(str(workdir / 'checkpoint' / str(number)))


def assert_close(workdir, wanted):
    found, wanted = newest(workdir), newest(wanted)
    assert found.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-6, atol=1e-6)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The workdir of the run in one process."""
    workdir = tmp_path_factory.mktemp('one')
    codes, said = end([launch(workdir)])
    assert codes == [0], said
    return workdir


def test_two_hosts_are_one_run(tmp_path, whole):
    codes, said = end(launch_two(tmp_path))
    assert codes == [0, 0], said
    assert_close(tmp_path, whole)
    one, two = (records.read(folder) for folder in (whole, tmp_path))
    assert [row['step'] for row in one] == [row['step'] for row in two]
    for name in ('loss', 'error', 'residual'):
        values = ([row[name] for row in rows] for rows in (one, two))
        np.testing.assert_allclose(*values, rtol=1e-3, atol=1e-6)
    summary = json.loads((tmp_path / records.SUMMARY).read_text())
    assert summary['hardware'].startswith('2 x ')
    assert len(list((tmp_path / 'tensorboard').iterdir())) == 1


def test_one_is_told_to_leave_and_both_save(tmp_path, whole):
    """At the same step; the run goes on in one process."""
    processes = launch_two(tmp_path, '--save_every=1000')
    until_begun(tmp_path, processes)
    processes[1].send_signal(signal.SIGTERM)
    codes, said = end(processes)
    assert codes == [143, 143], said
    steps = [text.partition('interrupted after step ')[2].split()[0] for text in said]
    assert steps[0] == steps[1]
    assert int(newest(tmp_path)['step']) == int(steps[0]) < 30
    assert records.is_unfinished(tmp_path)
    codes, said = end([launch(tmp_path)])
    assert codes == [0], said
    assert_close(tmp_path, whole)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--num_hosts=2'], 'coordinator, host is missing'),
        (
            ['--coordinator=127.0.0.1:1', '--num_hosts=2', '--host=2'],
            'host lies from 0 to 1, not 2',
        ),
        (
            ['--coordinator=127.0.0.1', '--num_hosts=2', '--host=1'],
            'coordinator is 127.0.0.1, without a port',
        ),
        (['--timeout=nan'], '--timeout=nan'),
        (['--timeout=1'], '--timeout=1'),
        (['--save_every=nan'], '--save_every=nan'),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, arguments, message):
    codes, (said,) = end([launch(tmp_path, *arguments)])
    assert codes == [1]
    assert said.count('\n') == 1
    assert message in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('own', 'message'),
    [
        ('--config.seed=1', r'seed is 0 on host 0, 1 on host 1'),
        (
            '--config.optimizer.learning_rate=0.2',
            r'optimizer.learning_rate is 0.1 on host 0, 0.2 on host 1',
        ),
    ],
)
def test_hosts_that_differ(tmp_path, own, message):
    """Before anything is written."""
    processes = launch_two(tmp_path / 'run', own=((), (own,)))
    assert_told(processes, message, 60)
    assert not (tmp_path / 'run').exists()


def test_a_workdir_that_is_not_shared(tmp_path):
    folders = (tmp_path / 'one', tmp_path / 'two')
    processes = launch_two(None, workdirs=folders)
    assert_told(processes, 'host 1 does not see what host 0 writes', 90)
    assert not any(folders[0].iterdir())


@pytest.mark.parametrize('killed', [0, 1])
def test_a_host_is_killed(tmp_path, whole, killed):
    """And the run is whole when it is started again."""
    arguments = ('--save_every=1000', '--timeout=15')
    processes = launch_two(tmp_path, *arguments)
    until_begun(tmp_path, processes)
    processes[killed].kill()
    processes.pop(killed).communicate()
    assert_told(processes, 'another host has ended or cannot be reached', 30)
    codes, said = end([launch(tmp_path)])
    assert codes == [0], said
    assert_close(tmp_path, whole)


def test_a_host_that_hangs(tmp_path):
    processes = launch_two(tmp_path, '--config.num_epochs=3000', '--timeout=15')
    until_begun(tmp_path, processes)
    processes[1].send_signal(signal.SIGSTOP)
    try:
        assert_told(processes[:1], 'another host has ended or cannot be reached', 30)
    finally:
        processes[1].send_signal(signal.SIGCONT)
    assert_told(processes[1:], 'another host has ended or cannot be reached', 30)


@pytest.mark.parametrize(
    'own',
    [
        ((), ('--host=0',)),
        (('--host=1',), ()),
        ((), ('--coordinator=127.0.0.1:9',)),
        (('--coordinator=nowhere.invalid:9',), ('--coordinator=nowhere.invalid:9',)),
        (('--num_hosts=3',), ('--num_hosts=3',)),
    ],
    ids=['two first', 'no first', 'another address', 'no address', 'one missing'],
)
def test_hosts_that_do_not_meet(tmp_path, own):
    processes = launch_two(tmp_path / 'run', '--timeout=15', own=own)
    assert_told(processes, 'have not found each other|the same number', 60)
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    ('environment', 'several'),
    [
        ({'SLURM_JOB_ID': '1', 'SLURM_NTASKS': '2'}, False),  # of no step
        (SLURM, True),
        (SLURM | {'SLURM_NTASKS': '1'}, False),
        ({'TPU_WORKER_HOSTNAMES': '10.0.0.1,10.0.0.2'}, False),
    ],
)
def test_where_several_hosts_are_found(environment, several):
    assert hosts.several(environment, has_tpu=False) is several


@pytest.mark.parametrize(
    ('environment', 'several'),
    [
        ({}, False),  # nobody tells
        ({'TPU_WORKER_HOSTNAMES': 'localhost'}, False),
        ({'TPU_WORKER_HOSTNAMES': '10.0.0.1,10.0.0.2'}, True),
    ],
)
def test_workers_of_a_tpu_slice(environment, several):
    nowhere = {'GCE_METADATA_IP': '127.0.0.1:9'}
    assert hosts.several(environment | nowhere, has_tpu=True) is several


@pytest.mark.parametrize(
    ('workers', 'several'), [('a:b:10.0.0.1', False), ('10.0.0.1,10.0.0.2', True)]
)
def test_workers_of_a_tpu_vm(workers, several):
    """By a metadata server, as Google's does it."""

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            known = self.path.endswith('/attributes/worker-network-endpoints')
            asked = self.headers['Metadata-Flavor'] == 'Google'
            self.send_response(200 if known and asked else 403)
            self.end_headers()
            self.wfile.write(workers.encode())

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(('127.0.0.1', 0), Server) as server:
        threading.Thread(target=server.handle_request).start()
        address = f'127.0.0.1:{server.server_port}'
        found = hosts.several({'GCE_METADATA_IP': address}, has_tpu=True)
    assert found is several
