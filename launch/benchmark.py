"""Measures what a step costs by every method, beside backprop and published schedules.

    python launch/benchmark.py [--filter=mlp] [--json=new.json] [--compare=old.json]

A row for each network, batch and method: seconds a step with half the spread between
the quartiles, compilation, evaluations of the drive, operations by an analytic model,
their rate as a fraction of that of a large product, memory, the cosine of the gradient
to the exact one, the layer whose error vector is furthest off and by how much of its
length, and how many times faster it is than the published schedule and slower than
backprop of the feed-forward network, the latter only where δ is within 5 % of the exact
one in its worst layer. Ratios are medians over rounds.

Small batches are also divided among several devices (`--devices`), as data-parallel
training does it: a product of 50 rows leaves all but one core of a CPU idle. Ratios of
these rows are to the published schedule and to backprop on one.

Images are those of Fashion-MNIST and CIFAR-10 where `launch/prepare_data.py` has
prepared them, and else enlarged digits.
"""

import checkout as checkout
from eqprop_jax.cli import command

import json
import os
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import tqdm
from absl import app, flags

from eqprop_jax import records
from experiments.benchmark import measure, methods, networks, references, report

JSON = command.define_path('json', None, 'File that the rows are written to.')
COMPARE = command.define_path('compare', None, 'File of an earlier run.')
FILTER = flags.DEFINE_string(
    'filter', '', 'Part of "network/batch/method", such as mlp, /500/ or corrected.'
)
ROUNDS = flags.DEFINE_integer(
    'rounds', 5, 'Timings of a method, at most.', lower_bound=1
)
CONV_BATCH = flags.DEFINE_integer(
    'conv_batch', 8, 'Images in a batch of the convolutional network.', lower_bound=1
)

DEVICES = flags.DEFINE_integer(
    'devices',
    None,
    'Devices that batches of 50 are divided among, in rows of their own; on a CPU its '
    'cores are made to be that many. By default 2 where there are as many.',
    lower_bound=1,
)

TRACE = command.define_path(
    'trace', None, 'Folder for a profile of one more round, to be opened by xprof.'
)

SHARED = (
    methods.PUBLISHED,
    'symmetric',
    'complex step',
    'complex step, loose',
    'corrected',
    'corrected, loose',
    'tangent',
    'tangent, loose',
    methods.BACKPROP,
)  # what is measured on several devices, too


@command.told
def main(argv: list[str]) -> None:
    """Measures what is asked for and prints the table."""
    command.begin(argv)
    _provide_devices()
    earlier = _read(COMPARE.value) if COMPARE.value else None
    command.check_file(JSON)
    cases = {name: make for name, make in _cases().items() if _methods_of(name)}
    if not cases:
        command.fail(
            f'--filter={FILTER.value} matches nothing; there are '
            f'{", ".join(_cases())}, each with {", ".join(methods.NAMES)}'
        )
    begin = time.perf_counter()
    peak = measure.ceiling()
    print(f'{_hardware()}; a large float32 product: {peak / 1e9:.0f} GFLOP/s')
    rows = []
    for name, make in cases.items():
        found = _rows(name, make(), peak)
        rows += found
        print(report.table(found))
    run = _provenance(peak, time.perf_counter() - begin)
    if earlier:
        print(report.comparison(rows, earlier))
    if JSON.value:
        pathlib.Path(JSON.value).write_text(
            json.dumps({'run': run, 'rows': rows}, indent=1) + '\n'
        )
        print(f'written to {JSON.value}')


def _cases() -> dict[str, Callable[[], networks.Network]]:
    """Returns the networks by 'network/batch'."""

    def mlp(batch: int) -> networks.Network:
        return networks.mlp(90.0, batch, max(2, 1000 // batch))

    def trained(batch: int) -> networks.Network:
        """Returns the published one, from 0°, after an epoch.

        At initialisation some examples are next to losing their equilibrium, and no
        method is within 5 % of a gradient that they dominate.
        """
        network = networks.mlp(0.0, batch, max(2, 1000 // batch))
        images, labels = networks.pictures('fashion_mnist', (28, 28, 1), 'unit')
        epoch = networks.cut(images, labels, 50, len(images) // 50)
        return network._replace(params=references.trained(network, epoch))

    made: dict[str, Callable[[], networks.Network]] = {}
    for batch in (50, 500):
        made[f'mlp trained/{batch}'] = lambda batch=batch: trained(batch)
        made[f'mlp 90°/{batch}'] = lambda batch=batch: mlp(batch)
    batch = CONV_BATCH.value
    return made | {f'conv 0°/{batch}': lambda: networks.conv(batch)}


def _methods_of(case: str) -> list[str]:
    """Returns the methods that the filter lets pass on a network."""
    names = [*methods.NAMES, *(_divided() if case.endswith('/50') else ())]
    wanted = report.words(FILTER.value)
    return [name for name in names if wanted in report.words(f'{case}/{name}')]


def _divided() -> dict[str, str]:
    """Returns the rows of several devices, and whose method each is."""
    count = _count()
    return {f'{name}, {count} devices': name for name in SHARED if count > 1}


def _count() -> int:
    """Returns the number of devices that a batch is divided among."""
    return min(DEVICES.value or 2, jax.device_count())


def _provide_devices() -> None:
    """Makes a CPU count as several devices, if asked to or by default."""
    count = DEVICES.value or min(2, os.cpu_count() or 1)
    if 50 % count:
        command.fail(f'--devices={count} does not divide a batch of 50')
    jax.config.update('jax_num_cpu_devices', count)  # no matter to accelerators
    if DEVICES.value and jax.device_count() < count:
        command.fail(f'--devices={count}, but there are {jax.device_count()}')


def _rows(case: str, network: networks.Network, peak: float) -> list[dict[str, Any]]:
    """Measures a network and returns its rows, as the JSON file has them."""
    everything = methods.methods(network)
    for divided, name in _divided().items():
        everything[divided] = everything[name]._replace(devices=_count())
    chosen = {name: everything[name] for name in _methods_of(case)}
    trace = TRACE.value and str(pathlib.Path(TRACE.value) / case.replace('/', '_'))
    bar = tqdm.tqdm(
        total=len(chosen) + ROUNDS.value + 1 + bool(trace), desc=case, leave=False
    )

    def tell(text: str) -> None:
        bar.set_postfix_str(text)
        bar.update()

    with bar:
        found = measure.measure(
            network, chosen, rounds=ROUNDS.value, report=tell, trace=trace
        )

    return report.rows(case, found, peak)


def _read(path: str) -> dict[str, Any]:
    """Returns an earlier run; ends with a message unless it is one."""
    try:
        earlier = json.loads(pathlib.Path(path).read_text())
    except (OSError, ValueError) as error:
        command.fail(f'--compare={path}: {error}')
    if not isinstance(earlier, dict) or not {'run', 'rows'} <= set(earlier):
        command.fail(f'--compare={path} is no file that --json has written')
    return earlier


def _provenance(peak: float, seconds: float) -> dict[str, Any]:
    """Returns where the numbers come from."""
    return {
        'command': ' '.join(['python launch/benchmark.py', *sys.argv[1:]]),
        **records.provenance(),
        'hardware': _hardware(),
        'jax': jax.__version__,
        'data': {
            name: networks.prepared(name).name for name in ('fashion_mnist', 'cifar10')
        },
        'peak_flops': peak,
        'seconds': round(seconds, 1),
    }


def _hardware() -> str:
    device = jax.devices()[0]
    count = os.cpu_count() if device.platform == 'cpu' else jax.device_count()
    return f'{count} x {device.device_kind}'


if __name__ == '__main__':
    app.run(main)
