"""Two processes on one machine, over gloo, are a run on two hosts."""

import http.server
import json
import os
import pathlib
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


def launch_two(workdir, *arguments):
    """Returns two processes that know of each other."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    return [
        launch(
            workdir,
            f'--coordinator=127.0.0.1:{port}',
            '--num_hosts=2',
            f'--host={host}',
            *arguments,
        )
        for host in range(2)
    ]


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
    metrics = tmp_path / records.METRICS
    deadline = time.monotonic() + 200
    while not (metrics.exists() and metrics.read_text().count('\n') > 2):
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < deadline
        time.sleep(0.005)
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
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, arguments, message):
    codes, (said,) = end([launch(tmp_path, *arguments)])
    assert codes == [1]
    assert said.count('\n') == 1
    assert message in said
    assert list(tmp_path.iterdir()) == []


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
