"""Many hosts: one program on all of them, one of them writes.

Each host runs the same command and holds a part of the devices (JAX's multi-controller
runtime). What a host would decide by its own clock, signals or disk is agreed upon.
"""

import importlib.util
import os
import pathlib
import re
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import config as settings
from jax._src import distributed  # whose client has no public name
from jax.experimental import multihost_utils

from eqprop_jax import _disk as disk

# Of a step that srun has started: as JAX's own detection asks for.
SLURM = (
    'SLURM_JOB_ID',
    'SLURM_STEP_NODELIST',
    'SLURM_NTASKS',
    'SLURM_PROCID',
    'SLURM_LOCALID',
)
WORKERS = 'worker-network-endpoints'
LOST = ('Gloo', 'NCCL', 'coordination', 'UNAVAILABLE', 'unhealthy', 'Socket closed')


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


def is_first() -> bool:
    """Returns whether this host writes records and checkpoints."""
    return jax.process_index() == 0


def largest(*values: int) -> tuple[int, ...]:
    """Returns, on all hosts, the largest that any of them has, of each value."""
    if jax.process_count() == 1:
        return values
    everywhere = multihost_utils.process_allgather(np.array(values, np.int32))
    return tuple(int(value) for value in everywhere.max(axis=0))
