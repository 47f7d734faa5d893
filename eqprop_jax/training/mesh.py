"""How runs are divided among devices: examples along one axis, nudges along another.

    runs       runs that are trained together, and exchange nothing
    data       every device relaxes its own examples of a batch
    contour    and devices side by side the nudges of a contour, for the same examples

Parameters, and what the optimizer remembers, are the same everywhere. Within a phase
nothing is exchanged, so that no device waits for another's slow examples; between them
δ is added up along `contour`, and the gradient along both axes. The images of a data
set are divided along `data`; what a batch needs is sent to where it is relaxed.

A batch that the devices do not divide evenly is filled up. Fillers are copies, count in
no mean, and leave the gradient what it is on one device.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from eqprop_jax import tree
from eqprop_jax.data import _pipeline as pipeline
from eqprop_jax.data._pipeline import DeviceSplit
from eqprop_jax.data._splits import Split

RUNS, DATA, CONTOUR = 'runs', 'data', 'contour'
EVERYWHERE, DIVIDED = PartitionSpec(), PartitionSpec(DATA)
RUNS_DIVIDED = PartitionSpec(RUNS)


def make(data: int | None = None, contour: int = 1) -> Mesh:
    """Returns the devices of a run; those of its mesh along `runs` are one.

    Args:
      data: how many parts a batch has; None: as many as the devices allow.
      contour: how many devices relax one part.

    Raises:
      ValueError: if there are not so many devices, or if they are several hosts' and
        not all of them are taken.
    """
    for name, value in ((DATA, data), (CONTOUR, contour)):
        if value is not None and value < 1:
            raise ValueError(f'{name} has to be a positive integer, not {value}')
    available = jax.device_count()
    if contour > available:
        raise ValueError(f'contour={contour}, but there are {_devices(available)}')
    data = available // contour if data is None else data
    wanted = data * contour
    if wanted > available:
        raise ValueError(
            f'data={data} and contour={contour} need {wanted} devices, but there are '
            f'{_devices(available)}'
        )
    if jax.process_count() > 1 and wanted != available:
        raise ValueError(
            f'data={data} and contour={contour} are {_devices(wanted)}, but '
            f'{jax.process_count()} hosts have {available}: take them all'
        )
    return _mesh(1, data, contour)


def of_runs(mesh: Mesh, num_runs: int) -> Mesh:
    """Returns as many meshes side by side as there are runs, or devices for them."""
    data, contour = mesh.shape[DATA], mesh.shape[CONTOUR]
    return _mesh(min(num_runs, jax.device_count() // (data * contour)), data, contour)


def _mesh(*shape: int) -> Mesh:
    return jax.make_mesh(
        shape,
        (RUNS, DATA, CONTOUR),
        axis_types=(AxisType.Auto,) * 3,
        devices=jax.devices()[: math.prod(shape)],
    )


def everywhere(mesh: Mesh) -> NamedSharding:
    """Returns where that lies which is the same on all devices."""
    return NamedSharding(mesh, EVERYWHERE)


def place(split: Split, mesh: Mesh) -> DeviceSplit:
    """Returns a split divided along `data`, filled up (`pipeline.filler`).

    A host reads those images only that its own devices hold.
    """
    size, parts = len(split.labels), mesh.shape[DATA]
    rows = -(-size // parts) * parts

    def divided(values: np.ndarray, padding: int | float) -> Array:
        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            start, stop, _ = (index or (slice(None),))[0].indices(rows)
            mine = values[start : min(stop, size)]
            missing = (stop - start) - len(mine)
            if not missing:
                return mine
            width = ((0, missing), *((0, 0),) * (values.ndim - 1))
            return np.pad(mine, width, constant_values=padding)

        sharding = NamedSharding(mesh, DIVIDED)
        return jax.make_array_from_callback((rows, *values.shape[1:]), sharding, part)

    return DeviceSplit(
        divided(split.images, 0),
        divided(split.labels, pipeline.filler(split.labels.dtype)),
    )


def part_of_batch(
    positions: Int[Array, ' B'], turns: int = 1
) -> tuple[Int[Array, ' filled'], Int[Array, ' part']]:
    """Returns a batch's positions, filled up, and `Batch.rows` of this device's part.

    The size of each part is a multiple of `turns`.
    """
    parts, size = lax.axis_size(DATA), len(positions)
    share = -(-size // (parts * turns)) * turns
    first = jnp.broadcast_to(positions[:1], (share * parts - size,))
    rows = share * lax.axis_index(DATA) + jnp.arange(share)
    return jnp.concatenate([positions, first]), jnp.where(rows < size, rows, -1)


def gather(split: DeviceSplit, positions: Int[Array, ' filled']) -> DeviceSplit:
    """Returns this device's part of the examples at some positions.

    Positions are those of all parts of a batch, in the whole split. Every device looks
    up what its own part of the split has; what another one needs is sent there.
    """
    if lax.axis_size(DATA) == 1:
        return DeviceSplit(split.images[positions], split.labels[positions])
    here = positions - split.size * lax.axis_index(DATA)
    known = (here >= 0) & (here < split.size)
    found = tree.take(split, jnp.clip(here, 0, split.size - 1))
    found = tree.select(known, found, tree.zeros_like(found))
    return jax.tree.map(lambda part: lax.psum_scatter(part, DATA, tiled=True), found)


def total(tally: Any) -> Any:
    """Returns a `metrics.Tally` of all devices, on each of them.

    Sums go in one message, and the largest in another. Devices along `contour` have the
    same part, but for the order in which they may have rounded: their mean is taken.
    """
    copies = lax.axis_size(CONTOUR)
    if lax.axis_size(DATA) * copies == 1:
        return tally
    sums, as_sums = ravel_pytree(tally.sums)
    largest, as_largest = ravel_pytree(tally.largest)
    return tally.replace(
        sums=as_sums(lax.psum(sums / copies, (DATA, CONTOUR))),
        largest=as_largest(lax.pmax(largest, (DATA, CONTOUR))),
    )


def _devices(count: int) -> str:
    return 'one device' if count == 1 else f'{count} devices'
