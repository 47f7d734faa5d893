"""How a training step divides among devices: what each computes and sends.

Of n = d · c devices, d along `data` and c along `contour`, each has b = ⌈B/d⌉ examples
of a batch of B and does in a step

    operations    b (input + E_0 D + κ E_1 D + rule)
    images        (d − 1) b · (an image and its label)     reduce-scatter among d
    errors        2 (c − 1)/c · 4 U b                      all-reduce among c
    reports       (c − 1) ⌈K/c⌉ b · 9                      all-gather among c
    gradients     2 (n − 1)/n · 4 (P + M)                  all-reduce among all
    largest       2 (n − 1)/n · 4 L                        the same

the last five in bytes, which `communication` finds in the compiled program, too. P are
parameters, U units, M and L metrics, D the operations of the drive, and K the phases of
the contour, each of which reports residual, sweeps and end (9 bytes). E_0 and E_1 are
evaluations of the drive until the slowest example has settled, in the free phase and
under the slowest nudge: at the end of a step devices wait for each other. κ counts a
complex phase for two; on one device it is that of the real and the complex ones, on c
devices, where all are relaxed as complex ones, 2 ⌈K/c⌉.

A step takes operations at the chip's rate and then bytes at its traffic (`Chip`);
latency and the host come on top.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from eqprop_jax import dynamics, training
from eqprop_jax.analysis.methods import row_costs, sweep_cost
from eqprop_jax.config import registry
from eqprop_jax.training import Experiment, mesh, programs
from eqprop_jax.types import Batch, Params
from experiments import budget
from experiments.benchmark import communication
from experiments.budget import BYTES, Chip, Schedule, Size

COLUMNS = ('devices', 'batch_size', 'operations', 'bytes', 'seconds', 'relative')
REPORT = 9  # bytes: a residual, a number of sweeps, whether it has settled
QUICKLY = {  # of machine code that is never run
    'xla_backend_optimization_level': 0,
    'xla_llvm_disable_expensive_passes': True,
}


class Case(NamedTuple):
    """A run that is divided in several ways."""

    build: Callable[[int, int, int], Experiment]
    """(B, d, c) -> the run."""
    strong: int
    """Examples in a batch, however many devices there are."""
    weak: int
    """Examples for each device."""


class Demand(NamedTuple):
    """What a run's steps ask for."""

    size: Size
    image: int
    """Bytes of an image and its label."""
    free: float
    """E_0."""
    nudged: float
    """E_1."""
    costs: tuple[int, ...]
    """Evaluations in a sweep of each of the K phases, on a device that has them all."""
    shared: int
    """The same of a phase where devices share the contour."""
    sums: int
    """M, numbers that are added up beside the gradient."""
    largest: int
    """L, numbers of which the largest is found."""


class Step(NamedTuple):
    """What a device does in a step."""

    operations: float
    compute_seconds: float
    sent: dict[str, float]
    """Bytes, by what they are."""


def compiled(experiment: Experiment) -> jax.stages.Compiled:
    """Returns the program of a chunk of steps, on the experiment's devices."""
    chunk: Any = programs.make_train_chunk(experiment)
    return chunk.lower(*_arguments(experiment)).compile(compiler_options=QUICKLY)


def demand(experiment: Experiment, num_steps: int, num_examples: int) -> Demand:
    """Returns what a run asks for, its sweeps measured after some steps.

    Args:
      experiment: on one device, by a contour.
      num_steps: that are taken first.
      num_examples: of which the slowest is waited for.
    """
    system, section = experiment.system, experiment.config['estimator']
    nudges, correction = registry.contour(section), section.get('correction')
    state, split, *position = _arguments(experiment)
    position[-1] = jnp.int32(num_steps)
    state, chunk = programs.make_train_chunk(experiment)(state, split, *position)
    free, nudged = _evaluations(experiment, state.params, num_examples)
    image, label = split.images[0], split.labels[0]
    x = jax.eval_shape(experiment.preprocess, split.images[:1])
    size = budget.size(system, x.shape[1:], experiment.dataset.num_outputs)
    largest = sum(name.startswith('max_') for name in chunk.metrics)
    penalty = 0 if experiment.penalty is None else size.params
    return Demand(
        size=size,
        image=image.nbytes + label.nbytes,
        free=free,
        nudged=nudged,
        costs=row_costs(system, nudges, correction),
        shared=sweep_cost(system, correction, is_complex=nudges.is_complex),
        sums=2 + len(chunk.metrics) - largest + penalty,
        largest=largest,
    )


def step(demand: Demand, chip: Chip, batch_size: int, data: int, contour: int) -> Step:
    """Returns what a device does in a step, by the formulae above.

    Args:
      demand: of the run.
      chip: each device.
      batch_size: B.
      data: d, at most B.
      contour: c, at most K.

    Raises:
      ValueError: if a device has no example, or no phase.
    """
    phases, size = len(demand.costs), demand.size
    if not 1 <= contour <= phases:
        raise ValueError(f'{phases} phases cannot be divided among {contour}')
    each = math.ceil(phases / contour)
    costs = sum(demand.costs) if contour == 1 else each * demand.shared
    alone = Schedule(free=demand.free, nudged=costs * demand.nudged, is_complex=False)
    work = budget.step(size, alone, chip, batch_size, groups=data, sharing=1)
    examples, devices = math.ceil(batch_size / data), data * contour
    reduced = 2 * (devices - 1) / devices * BYTES
    return Step(
        operations=work.operations,
        compute_seconds=work.compute_seconds,
        sent={
            'images': (data - 1) * examples * demand.image,
            'errors': 2 * (contour - 1) / contour * BYTES * size.units * examples,
            'reports': (contour - 1) * each * examples * REPORT,
            'gradients': reduced * (size.params + demand.sums),
            'largest': reduced * demand.largest,
        },
    )


def devices_data(
    cases: Mapping[str, Case],
    chip: Chip,
    *,
    divisions: Sequence[int] = (1, 2, 4, 8),
    sharing: Sequence[int] = (1, 2, 3),
    most: int = 256,
    num_steps: int = 10,
) -> dict[str, Any]:
    """Returns what figures.devices draws: bytes, time, and what devices are good for.

    Args:
      cases: by the network's name.
      chip: each device.
      divisions: d of the programs that are compiled, as far as there are devices.
      sharing: c, of those programs and on paper.
      most: devices on paper, which double from c on.
      num_steps: after which sweeps are measured.

    Returns:
      For every network, c and kind of scaling what follows from `compiled` programs and
      on `paper`. Lists go by `devices`: `batch_size`; `operations` and `bytes` of a
      device and step; `seconds`; `relative`, the seconds of one device over theirs.
    """
    networks, curves = {}, {}
    for name, case in cases.items():
        asked = demand(case.build(case.weak, 1, 1), num_steps, case.strong)
        networks[name] = {
            **asked._asdict(),
            'size': asked.size._asdict(),
            'batch_size': {'strong': case.strong, 'weak': case.weak},
        }
        curves[name] = {
            str(c): _curves(case, asked, chip, divisions, c, most) for c in sharing
        }
    return {'network': networks, 'chip': chip._asdict(), 'curves': curves}


def _curves(
    case: Case, asked: Demand, chip: Chip, divisions: Sequence[int], c: int, most: int
) -> dict[str, Any]:
    """Returns both kinds of scaling, compiled and on paper, for one c."""

    @functools.cache
    def in_program(batch_size: int, d: int) -> float:
        messages = communication.collectives(compiled(case.build(batch_size, d, c)))
        return sum((message.sent for message in messages), 0.0)

    def by_formulae(batch_size: int, d: int) -> float:
        return sum(step(asked, chip, batch_size, d, c).sent.values())

    def curve(
        batch: Callable[[int], int],
        divisions: Sequence[int],
        sent: Callable[[int, int], float],
    ) -> dict[str, list]:
        alone = step(asked, chip, batch(1), 1, 1).compute_seconds
        rows = []
        for d in divisions:
            size = batch(d * c)
            work, amount = step(asked, chip, size, d, c), sent(size, d)
            seconds = work.compute_seconds + amount / chip.traffic
            found = (seconds, alone / seconds)
            rows.append((d * c, size, work.operations, amount, *map(_short, found)))
        columns = zip(*rows, strict=True) if rows else ((),) * len(COLUMNS)
        return dict(zip(COLUMNS, map(list, columns), strict=True))

    few = [d for d in divisions if d * c <= jax.device_count()]
    many = [2**power for power in range(most.bit_length()) if 2**power * c <= most]
    return {
        kind: {
            'compiled': curve(batch, few, in_program),
            'paper': curve(batch, many, by_formulae),
        }
        for kind, batch in (
            ('strong', lambda devices: case.strong),
            ('weak', lambda devices: case.weak * devices),
        )
    }


def _evaluations(
    experiment: Experiment, params: Params, num_examples: int
) -> tuple[float, float]:
    """Returns E_0 and E_1, of the slowest of some examples."""
    batch = training.first_examples(experiment, num_examples)

    def sweeps(params: Params, batch: Batch) -> tuple[Array, Array]:
        free = dynamics.relax(experiment.system, params, batch.x, experiment.solve)
        info = experiment.estimate(params, batch, free, jax.random.key(0)).info
        return jnp.max(free.num_steps), jnp.max(info.num_steps)

    free, nudged = jax.jit(sweeps)(params, batch)
    return 1 + float(free), 1 + float(nudged)


def _short(value: float) -> float:
    return float(f'{value:.6g}')


def _arguments(experiment: Experiment) -> tuple:
    """Returns those of a chunk without a step."""
    split = mesh.place(experiment.dataset.train, experiment.mesh)
    zero = jnp.zeros((), jnp.int32)
    return training.init_state(experiment), split, zero, zero, zero
