"""What the hosts of a run have to have in common, compared before it begins.

Texts are exchanged by the service that the hosts were joined by, and not by devices,
which may differ.
"""

import itertools
import json
import os
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax import config as settings
from jax._src import distributed  # whose client has no public name

from eqprop_jax import _disk as disk
from eqprop_jax import records
from eqprop_jax.records import files
from eqprop_jax.training.hosts import HostsError, is_first

FLAGS = ('jax_enable_x64', 'jax_platforms', 'jax_num_cpu_devices')
TOKEN = 'hosts.token'  # that the first host leaves in a workdir for the others to find
SEEN_WITHIN = 10.0  # seconds that a shared folder has to show it
LONG = 3_600_000  # milliseconds; JAX ends the wait for a host that is gone
_numbers = itertools.count()  # of exchanges, the same on all hosts


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
    agree_on(files.flat(config) | program | versions)
    here = jax.local_devices()
    agree_on({'devices': f'{len(here)} x {here[0].device_kind}'})


def agree_on(facts: Mapping[str, Any]) -> None:
    """Raises HostsError on all hosts, and names what differs, if facts do."""
    said = exchange(json.dumps(facts, default=repr))
    first, *others = (json.loads(text) for text in said)
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
