"""Many hosts: one program on all of them, one of them writes.

Each host runs the same command and holds a part of the devices (JAX's multi-controller
runtime). What a host would decide by its own clock, signals or disk is agreed upon.
"""

import importlib.util
import itertools
import json
import os
import pathlib
import re
import time
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import config as settings
from jax._src import distributed  # whose client has no public name
from jax.experimental import multihost_utils

from eqprop_jax import _disk as disk
from eqprop_jax import records

# Of a step that srun has started: as JAX's own detection asks for.
SLURM = (
    'SLURM_JOB_ID',
    'SLURM_STEP_NODELIST',
    'SLURM_NTASKS',
    'SLURM_PROCID',
    'SLURM_LOCALID',
)
WORKERS = 'worker-network-endpoints'
TOKEN = 'hosts.token'  # that the first host leaves in a workdir for the others to find
SEEN_WITHIN = 10.0  # seconds that a shared folder has to show it
LONG = 3_600_000  # milliseconds; JAX ends the wait for a host that is gone
LOST = ('Gloo', 'NCCL', 'coordination', 'UNAVAILABLE', 'unhealthy', 'Socket closed')
FLAGS = ('jax_enable_x64', 'jax_platforms', 'jax_num_cpu_devices')
_numbers = itertools.count()  # of exchanges, the same on all hosts


class HostsError(RuntimeError):
    """The hosts cannot make a run together; the message says why."""


def initialize(
    coordinator: str | None = None,
    num_hosts: int | None = None,
    host: int | None = None,
    *,
    timeout: float = 60.0,
    prepare: Callable[[], Any] | None = None,
) -> None:
    """Joins the hosts of a run, before any device is used; nothing to do for one.

    Without arguments hosts are found where SLURM has started several tasks by srun, or
    where a Cloud TPU slice has several workers.

    JAX aborts the process of a host that does not find the others, or that loses one
    later: `explain` has in words what is printed then.

    Args:
      coordinator: address and port of the first host, 'node1:1234', for all the same.
      num_hosts: how many there are.
      host: which of them this is, from 0 on.
      timeout: seconds within which they have to find each other, and within which one
        that is gone is noticed; at least 10.
      prepare: called before they are joined, if there are several.

    Raises:
      HostsError: if only some of the three are given, or do not fit each other, or if
        the others cannot be reached.
    """
    given = {'coordinator': coordinator, 'num_hosts': num_hosts, 'host': host}
    missing = [name for name, value in given.items() if value is None]
    where: tuple[Any, ...] = ()
    if coordinator is not None and num_hosts is not None and host is not None:
        if not 0 <= host < num_hosts:
            raise HostsError(f'host lies from 0 to {num_hosts - 1}, not {host}')
        if not re.fullmatch(r'.+:[1-9]\d{0,4}', coordinator):
            raise HostsError(
                f'coordinator is {coordinator}, without a port: give it the address '
                'and a free port of host 0, as in node1:1234'
            )
        where = (coordinator, num_hosts, host)
    elif len(missing) < len(given):
        raise HostsError(
            f'{", ".join(missing)} is missing: hosts that are told of each other need '
            'coordinator, num_hosts and host'
        )
    elif not several(os.environ, has_tpu=_has_tpu()):
        return
    if prepare is not None:
        prepare()
    settings.update('jax_enable_preemption_service', False)  # it takes SIGTERM
    seconds = max(1, int(timeout) - 5)  # JAX waits 5 s longer than it is told
    try:
        jax.distributed.initialize(
            *where,
            initialization_timeout=seconds,
            heartbeat_timeout_seconds=seconds,
        )
    except (RuntimeError, ValueError) as error:
        raise HostsError(explain(str(error)) or disk.reason(error)) from error


def explain(said: str) -> str | None:
    """Returns in words what JAX says where it misses a host, None for anything else."""
    if 'ALREADY_EXISTS' in said:
        return 'two hosts have the same number: every one needs a --host of its own'
    if 'RegisterTask' in said:
        return (
            'the hosts have not found each other within --timeout: --coordinator has '
            'to be an address of host 0 that all reach, and every host has to be '
            'started, with a --host of its own'
        )
    if any(word in said for word in LOST):
        return (
            'another host has ended or cannot be reached, and has perhaps told why: '
            'started again on all hosts, the run goes on from its last checkpoint'
        )
    return None


def part() -> None:
    """Waits until all hosts leave, so that none of them takes that for a failure."""
    if distributed.global_state.client is not None:
        jax.distributed.shutdown()


def agree(config: Mapping[str, Any]) -> None:
    """Raises HostsError on all hosts if what they run, or run on, is not the same.

    It is called before anything is built.

    Args:
      config: plain values, as JSON has them.
    """
    if distributed.global_state.client is None:
        return
    program = {name: getattr(settings, name) for name in FLAGS}
    versions = {'commit': records.commit(), 'jax': jax.__version__}
    _agree_on(_flat(config) | program | versions)
    here = jax.local_devices()
    _agree_on({'devices': f'{len(here)} x {here[0].device_kind}'})


def _agree_on(facts: Mapping[str, Any]) -> None:
    """Raises HostsError on all hosts, and names what differs, if facts do."""
    first, *others = (json.loads(text) for text in exchange(json.dumps(facts)))
    for host, other in enumerate(others, start=1):
        differences = [
            f'{name} is {first.get(name)} on host 0, {other.get(name)} on host {host}'
            for name in sorted(first.keys() | other.keys())
            if first.get(name) != other.get(name)
        ]
        if differences:
            raise HostsError(
                f'the hosts differ ({disk.first_three(differences)}): start the same '
                'command on the same code and the same kind of machine'
            )


def _flat(values: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Returns nested values by dotted names, those without a form in JSON in words."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f'{prefix}{key}.')
        else:
            flat[f'{prefix}{key}'] = repr(value)
    return flat


def exchange(text: str) -> list[str]:
    """Returns what every host has given, in their order, on each of them."""
    state = distributed.global_state
    if state.client is None:
        return [text]
    key = f'eqprop_jax/{next(_numbers)}'
    state.client.key_value_set(f'{key}/{state.process_id}', text)
    return [
        state.client.blocking_key_value_get(f'{key}/{host}', LONG)
        for host in range(state.num_processes)
    ]


def first_does(action: Callable[[], Any]) -> None:
    """Lets the first host do something, while the others wait.

    Raises:
      WorkdirError: on all hosts, if it does on the first.
    """
    said = ''
    if is_first():
        try:
            action()
        except records.WorkdirError as error:
            said = str(error)
    said, *_ = exchange(said)
    if said:
        raise records.WorkdirError(said)


def share(workdir: str | os.PathLike[str]) -> None:
    """Raises HostsError on all hosts unless all of them see the same folder there."""
    if jax.process_count() == 1:
        return
    path = records.folder(workdir) / TOKEN
    word, *_ = exchange(uuid.uuid4().hex)
    first_does(lambda: _write(path, word))
    deadline, seen = time.monotonic() + SEEN_WITHIN, False
    while not (seen := _reads(path, word)) and time.monotonic() < deadline:
        time.sleep(0.1)
    blind = [
        str(i) for i, text in enumerate(exchange(word if seen else '')) if not text
    ]
    if is_first():
        path.unlink(missing_ok=True)
    if blind:
        raise HostsError(
            f'host {", ".join(blind)} does not see what host 0 writes to {workdir}: '
            'choose a --workdir that all hosts share, or gs://bucket/folder'
        )


def several(environment: Mapping[str, str], *, has_tpu: bool) -> bool:
    """Returns whether an environment is that of one of several hosts.

    Workers of a TPU slice are listed by Kubernetes in the environment, and for a VM by
    its metadata server.

    References:
      https://docs.jax.dev/en/latest/_autosummary/jax.distributed.initialize.html
      https://slurm.schedmd.com/srun.html#SECTION_OUTPUT-ENVIRONMENT-VARIABLES
      https://docs.cloud.google.com/compute/docs/metadata/querying-metadata
    """
    if all(name in environment for name in SLURM):
        return int(environment['SLURM_NTASKS']) > 1
    if not has_tpu:
        return False
    workers = environment.get('TPU_WORKER_HOSTNAMES')
    return ',' in (_workers_of_vm(environment) if workers is None else workers)


def _has_tpu() -> bool:
    chips = (*pathlib.Path('/dev').glob('accel*'), *pathlib.Path('/dev').glob('vfio/*'))
    return bool(chips) and importlib.util.find_spec('libtpu') is not None


def _workers_of_vm(environment: Mapping[str, str]) -> str:
    """Returns the addresses of a TPU VM's slice; '' where nobody tells."""
    server = environment.get('GCE_METADATA_IP', 'metadata.google.internal')
    request = urllib.request.Request(
        f'http://{server}/computeMetadata/v1/instance/attributes/{WORKERS}',
        headers={'Metadata-Flavor': 'Google'},
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return ''


def _write(path: records.Path, word: str) -> None:
    """Writes the token; raises WorkdirError if it cannot."""
    try:
        path.write_text(word)
    except OSError as error:
        raise records.WorkdirError(
            f'cannot write to {path.parent} ({error})'
        ) from error


def _reads(path: records.Path, word: str) -> bool:
    """Returns whether a file can be read and says so."""
    try:
        return path.read_text() == word
    except OSError:
        return False


def is_first() -> bool:
    """Returns whether this host writes records and checkpoints."""
    return jax.process_index() == 0


def largest(*values: int) -> tuple[int, ...]:
    """Returns, on all hosts, the largest that any of them has, of each value."""
    if jax.process_count() == 1:
        return values
    everywhere = multihost_utils.process_allgather(np.array(values, np.int32))
    return tuple(int(value) for value in everywhere.max(axis=0))
