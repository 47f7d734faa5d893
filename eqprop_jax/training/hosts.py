"""Many hosts: one program on all of them, one of them writes.

Each host runs the same command and holds a part of the devices (JAX's multi-controller
runtime). What a host would decide by its own clock, signals or disk is agreed upon.
"""

import importlib.util
import os
import pathlib
import urllib.request
from collections.abc import Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils

# Of a step that srun has started: as JAX's own detection asks for.
SLURM = (
    'SLURM_JOB_ID',
    'SLURM_STEP_NODELIST',
    'SLURM_NTASKS',
    'SLURM_PROCID',
    'SLURM_LOCALID',
)
WORKERS = 'worker-network-endpoints'


def initialize(
    coordinator: str | None = None,
    num_hosts: int | None = None,
    host: int | None = None,
) -> None:
    """Joins the hosts of a run, before any device is used; nothing to do for one.

    Without arguments hosts are found where SLURM has started several tasks by srun, or
    where a Cloud TPU slice has several workers.

    Args:
      coordinator: address and port of the first host, 'node1:1234', for all the same.
      num_hosts: how many there are.
      host: which of them this is, from 0 on.

    Raises:
      ValueError: if only some of the three are given, or the number is out of range.
      RuntimeError: if the others cannot be reached.
    """
    given = {'coordinator': coordinator, 'num_hosts': num_hosts, 'host': host}
    missing = [name for name, value in given.items() if value is None]
    if coordinator is not None and num_hosts is not None and host is not None:
        if not 0 <= host < num_hosts:
            raise ValueError(f'host lies from 0 to {num_hosts - 1}, not {host}')
        jax.distributed.initialize(coordinator, num_hosts, host)
    elif len(missing) < len(given):
        raise ValueError(
            f'{", ".join(missing)} is missing: hosts that are told of each other need '
            'coordinator, num_hosts and host'
        )
    elif several(os.environ, has_tpu=_has_tpu()):
        jax.distributed.initialize()


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
