r"""Makes the figures of the analysis: measures what they show, then draws it.

    python launch/figures.py --figure=convergence --figure=oscillation

All but two are measured on networks with random weights and some of scikit-learn's
digits: `scaling` goes through networks of many sizes, and `devices` compiles training
for up to eight devices, which a CPU is made to count as. `fig1` to `fig4` are named
after those of Laborieux and Zenke 2024. The numbers go to <data>/<figure>.json, the
pictures, which are drawn from these alone, to <out>/<figure>.png.

`fig3` and `fig4` are drawn from what training came to, and part of `all` where there is
a record of it. To train anew:

    python launch/sweep.py --config=configs/fig3_fmnist.py --workdir=runs/fig3
    python launch/results.py --config=configs/fig3_fmnist.py --collect=runs/fig3 \
        --hardware='8 cores of ...'
"""

import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

import eqprop_jax as ep
from eqprop_jax import build
from eqprop_jax.analysis import budget, exhibits, scaling
from eqprop_jax.benchmark import devices, digits
from eqprop_jax.figures import angles as angles_figure
from eqprop_jax.figures import convergence as convergence_figure
from eqprop_jax.figures import devices as devices_figure
from eqprop_jax.figures import homeostasis as homeostasis_figure
from eqprop_jax.figures import jacobians as jacobians_figure
from eqprop_jax.figures import oscillation as oscillation_figure
from eqprop_jax.figures import processes as processes_figure
from eqprop_jax.figures import scaling as scaling_figure
from eqprop_jax.figures import two_biases as two_biases_figure

FIGURE = flags.DEFINE_multi_string(
    'figure',
    ['all'],
    'What to make: convergence, oscillation, processes, scaling, devices, fig1, fig2, '
    'fig3, fig4 (of Laborieux and Zenke 2024), or all.',
)
OUT = flags.DEFINE_string('out', 'docs/images', 'Folder of the pictures.')
DATA = flags.DEFINE_string('data', 'results/figures', 'Folder of the numbers.')
RECORDS = flags.DEFINE_string('records', 'results', 'Folder of the records of sweeps.')
DRAW_ONLY = flags.DEFINE_bool(
    'draw_only', False, 'Draw from the numbers that are there; measure nothing.'
)
SIZES = flags.DEFINE_list(
    'sizes', ['64', '64', '64', '32', '10'], 'Of the network, from inputs to classes.'
)
NUM_IMAGES = flags.DEFINE_integer('num_images', 16, 'In the batch.', lower_bound=1)
SEED = flags.DEFINE_integer('seed', 0, 'Of the weights and of the noise.')
NUM_POINTS = flags.DEFINE_list(
    'num_points', ['1', '2', '4', '6', '8'], 'Nudges on the circles of `convergence`.'
)
POINTS = flags.DEFINE_integer(
    'points', 0, 'Values on a horizontal axis, at most; 0: all.', lower_bound=0
)
CACHE = flags.DEFINE_string(
    'compilation_cache',
    os.path.join(os.path.expanduser('~'), '.cache', 'eqprop_jax'),
    'Folder that keeps compiled programs between runs; empty: none.',
)

ANGLE = 90.0  # degrees between free feedback and the transposes
ANGLES = [0.0, 30.0, 60.0, 90.0]
MANY = 16  # batches, for densities
SMALL = (64, 20, 16, 12, 10)  # whose Jacobian can be looked at
RADII = [10 ** (power / 3) for power in range(-27, 1)]
SWEEPS = [2**power for power in range(8)]  # at each point
PERIODS = [2**power for power in range(9)]
GROWTH = {
    'width': [32, 64, 128, 256, 512],
    'depth': [2, 3, 4, 5, 6],
    'batch_size': [4, 16, 64, 256, 1024],
    'num_points': [2, 4, 6, 8],
    'tol': [1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 1e-4],
}
DEVICES = 8
TPU_V5E = budget.Chip(rate=0.5 * 197e12, memory=16e9, traffic=200e9)


def main(argv: list[str]) -> None:
    """Measures and draws what is asked for."""
    if len(argv) > 1:
        raise app.UsageError(f'unexpected arguments: {" ".join(argv[1:])}')
    logging.set_verbosity(logging.WARNING)
    jax.config.update('jax_enable_x64', True)
    if CACHE.value:
        jax.config.update('jax_compilation_cache_dir', CACHE.value)
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    names = chosen(FIGURE.value)
    if 'devices' in names and not DRAW_ONLY.value:
        jax.config.update('jax_num_cpu_devices', DEVICES)  # no matter to accelerators
    try:
        for name in names:
            if name in TRAINED:
                print(TRAINED[name].draw(RECORDS.value, OUT.value))
                continue
            measure, draw = FIGURES[name]
            if not DRAW_ONLY.value:
                begin = time.perf_counter()
                data = measure()
                run = provenance(name, time.perf_counter() - begin)
                data = {'run': run, 'network': network_values(), **data}
                ep.records.write_data(DATA.value, name, data)
            print(draw(DATA.value, OUT.value))
    except ep.records.WorkdirError as error:
        measured = DRAW_ONLY.value and name in FIGURES
        hint = '; leave out --draw_only to measure' if measured else ''
        _fail(f'{error}{hint}')
    except OSError as error:
        _fail(f'cannot write to {OUT.value} ({error})')
    except KeyboardInterrupt:
        _fail('interrupted', 130)


def chosen(values: list[str]) -> list[str]:
    """Returns the figures that the flags name, each once."""
    names = {name for value in values for name in value.split(',')}
    known = [*FIGURES, *TRAINED]
    if unknown := sorted(names - {*known, 'all'}):
        _fail(f'no figure {unknown[0]!r}; choose from {", ".join(known)}, all')
    if 'all' in names:
        folder = pathlib.Path(RECORDS.value)
        names |= {*FIGURES}
        names |= {n for n in TRAINED if (folder / f'{TRAINED[n].RECORD}.json').exists()}
    return [name for name in known if name in names]


def network(
    feedback: str = 'free',
    angle: float = ANGLE,
    sizes: Sequence[int] = (),
    batches: int = 1,
) -> exhibits.Network:
    """Returns a network at its free equilibrium.

    Args:
      feedback: as in `systems.mlp`.
      angle: of free feedback to the transposes, in degrees.
      sizes: (): those of --sizes.
      batches: of --num_images each.
    """
    try:
        return digits.network(
            sizes or [int(size) for size in SIZES.value],
            feedback=feedback,
            angle=angle if feedback == 'free' else None,
            num_images=batches * NUM_IMAGES.value,
            seed=SEED.value,
        )
    except ValueError as error:
        _fail(f'--sizes={",".join(SIZES.value)}: {error}')


def measure_fig1() -> dict[str, Any]:
    """Measures three Jacobians, and the error vectors that come of them."""
    kinds = {'tied': 'tied', f'untied, {ANGLE:g}°': 'free', 'feed-forward': 'none'}
    networks = {
        name: network(feedback=kind, sizes=SMALL) for name, kind in kinds.items()
    }
    return {
        'network': network_values() | {'sizes': list(SMALL)},
        **exhibits.jacobians_data(networks),
    }


def measure_fig2() -> dict[str, Any]:
    """Measures both biases, and the estimate of a nudge that turns."""
    return exhibits.two_biases_data(
        network(feedback='tied'),
        network(),
        {angle: network(angle=angle, batches=MANY) for angle in thinned(ANGLES)},
        radii=thinned(RADII[-13:]),
    )


def measure_convergence() -> dict[str, Any]:
    """Measures the error of contours over the radius."""
    counts = NUM_POINTS.value
    if not all(count.isdecimal() and int(count) for count in counts):
        _fail(f'--num_points={",".join(counts)}: these are positive integers')
    return exhibits.convergence_data(
        network(), radii=thinned(RADII), num_points=[int(count) for count in counts]
    )


def measure_oscillation() -> dict[str, Any]:
    """Measures the online estimator over its patience, and in noise."""
    return exhibits.oscillation_data(
        network(),
        sweeps=thinned(SWEEPS),
        periods=thinned(PERIODS),
        rng=jax.random.key(SEED.value + 1),
    )


def measure_processes() -> dict[str, Any]:
    """Measures the updates of EP and of BPTT, tied and untied."""
    networks = {'tied': network(feedback='tied'), 'untied': network()}
    return exhibits.processes_data(networks)


def measure_scaling() -> dict[str, Any]:
    """Measures the cost of a gradient as networks, batches and demands grow."""
    data = ep.data.load('digits')
    with jax.enable_x64(False):
        axes = scaling.scaling_data(
            jnp.asarray(data.train.images / data.scale, 'float32'),
            jax.nn.one_hot(data.train.labels, data.num_classes, dtype='float32'),
            jax.random.key(SEED.value),
            {name: thinned(values) for name, values in GROWTH.items()},
        )
    return {'network': scaling.DEFAULT._asdict(), 'axes': axes}


def measure_devices() -> dict[str, Any]:
    """Compiles training for several devices and works out what they are good for."""
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    from configs import divided

    def case(
        variant: str, shape: tuple[int, int, int], strong: int, weak: int
    ) -> devices.Case:
        config = divided.get_config(variant)
        digits.write_enlarged(folder, config.data.name, shape)
        config.data.data_dir = folder

        def make(batch_size: int, data: int, contour: int) -> ep.training.Experiment:
            config.batch_size = batch_size
            config.mesh.update(data=data, contour=contour)
            return build.experiment(config)

        return devices.Case(make, strong, weak)

    with jax.enable_x64(False), tempfile.TemporaryDirectory() as folder:
        return devices.devices_data(
            {
                'MLP 784-256-256-10': case('mlp', (28, 28, 1), 512, 64),
                'conv net 32-64-128-128': case('conv', (32, 32, 3), 256, 32),
            },
            TPU_V5E,
            divisions=thinned([1, 2, 4, 8]),
        )


def thinned(values: list) -> list:
    """Returns as many of the values as --points lets pass, the ends among them."""
    count = min(POINTS.value or len(values), len(values))
    places = np.linspace(0, len(values) - 1, count).round().astype(int)
    return [values[place] for place in places]


def network_values() -> dict[str, Any]:
    """Returns what the network of the figures is, for their titles."""
    return {
        'sizes': [int(size) for size in SIZES.value],
        'angle': ANGLE,
        'num_images': NUM_IMAGES.value,
        'seed': SEED.value,
    }


def provenance(name: str, seconds: float) -> dict[str, Any]:
    """Returns where numbers come from."""
    changed = {
        flag: flags.FLAGS[flag]
        for flag in ('sizes', 'num_images', 'seed', 'num_points', 'points')
        if flags.FLAGS[flag].value != flags.FLAGS[flag].default
    }
    command = ['python launch/figures.py', f'--figure={name}']
    return {
        'command': ' '.join(
            [*command, *(flag.serialize() for flag in changed.values())]
        ),
        **ep.records.provenance(),
        'hardware': f'{os.cpu_count()} cores, {jax.devices()[0].device_kind}',
        'jax': jax.__version__,
        'seconds': round(seconds, 1),
    }


def _fail(message: str, code: int = 1) -> NoReturn:
    print(f'figures: {message}', file=sys.stderr)
    sys.exit(code)


FIGURES = {
    'convergence': (measure_convergence, convergence_figure.draw),
    'oscillation': (measure_oscillation, oscillation_figure.draw),
    'processes': (measure_processes, processes_figure.draw),
    'scaling': (measure_scaling, scaling_figure.draw),
    'devices': (measure_devices, devices_figure.draw),
    'fig1': (measure_fig1, jacobians_figure.draw),
    'fig2': (measure_fig2, two_biases_figure.draw),
}
TRAINED = {'fig3': angles_figure, 'fig4': homeostasis_figure}


if __name__ == '__main__':
    app.run(main)
