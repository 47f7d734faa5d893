r"""Makes the figures of the analysis: measures what they show, then draws it.

    python launch/figures.py --figure=convergence --figure=oscillation

All but two are measured on networks with random weights and some of scikit-learn's
digits: `scaling` goes through networks of many sizes, and `devices` compiles training
for up to eight devices, which a CPU is made to count as. `fig1` to `fig5` are named
after those of Laborieux and Zenke 2024. The numbers go to <data>/<figure>.json, the
pictures, which are drawn from these alone, to <out>/<figure>.png, or with
--format=svg or pdf to a vector format.

`fig3` to `fig5`, `nudging` and `correction` are drawn from what training came to, and
part of `all` where there is a record of it. To train anew:

    python launch/sweep.py --config=configs/fig3_fmnist.py --workdir=runs/fig3
    python launch/results.py --config=configs/fig3_fmnist.py --collect=runs/fig3 \
        --hardware='8 cores of ...'
"""

import checkout as checkout
from eqprop_jax.cli import command

import os
import pathlib
import tempfile
import time
from typing import Any

import jax
import matplotlib
from absl import app, flags

import eqprop_jax as ep
from eqprop_jax.config import build, variants
from eqprop_jax.figures import style
from experiments import budget
from experiments.benchmark import devices, digits, settings
from experiments.figures import angles as angles_figure
from experiments.figures import convergence as convergence_figure
from experiments.figures import correction as correction_figure
from experiments.figures import devices as devices_figure
from experiments.figures import homeostasis as homeostasis_figure
from experiments.figures import jacobians as jacobians_figure
from experiments.figures import nudging as nudging_figure
from experiments.figures import order as order_figure
from experiments.figures import oscillation as oscillation_figure
from experiments.figures import predictive_coding as predictive_coding_figure
from experiments.figures import processes as processes_figure
from experiments.figures import scaling as scaling_figure
from experiments.figures import two_biases as two_biases_figure

FIGURE = flags.DEFINE_multi_string(
    'figure',
    ['all'],
    'What to make: convergence, order, oscillation, processes, scaling, devices, fig1, '
    'fig2, fig3, fig4 and fig5 (Laborieux and Zenke 2024), nudging, correction, all.',
)
OUT = command.define_path('out', 'docs/images', 'Folder of the pictures.')
FORMAT = flags.DEFINE_enum('format', 'png', ['png', 'svg', 'pdf'], 'Of the pictures.')
DATA = command.define_path('data', 'results/figures', 'Folder of the numbers.')
RECORDS = command.define_path('records', 'results', 'Folder of the records of sweeps.')
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
command.define_cache()

DEVICES = 8
TPU_V5E = budget.Chip(rate=0.5 * 197e12, memory=16e9, traffic=200e9)


@command.told
@style.fixed()
def main(argv: list[str]) -> None:
    """Measures and draws what is asked for."""
    command.begin(argv)
    jax.config.update('jax_enable_x64', True)
    names, setting = chosen(FIGURE.value), setting_of_flags()
    if 'devices' in names and not DRAW_ONLY.value:
        jax.config.update('jax_num_cpu_devices', DEVICES)  # no matter to accelerators
    try:
        for name in names:
            if name in FIGURES and not DRAW_ONLY.value:
                begin = time.perf_counter()
                data = FIGURES[name][0](setting)
                run = provenance(name, time.perf_counter() - begin)
                data = {'run': run, 'network': setting.title(), **data}
                ep.records.write_data(DATA.value, name, data)
            with matplotlib.rc_context({'savefig.format': FORMAT.value}):
                print(drawn(name))
    except settings.NetworkError as error:
        command.fail(f'--sizes={",".join(SIZES.value)}: {error}')
    except ep.records.WorkdirError as error:
        measured = DRAW_ONLY.value and name in FIGURES
        hint = '; leave out --draw_only to measure' if measured else ''
        command.fail(f'{error}{hint}')
    except OSError as error:
        command.fail(f'cannot write to {OUT.value} ({error})')


def drawn(name: str) -> ep.records.Path:
    """Draws a figure from its numbers, or from a record, and returns its path."""
    if name in TRAINED:
        return TRAINED[name].draw(RECORDS.value, OUT.value)
    return FIGURES[name][1](DATA.value, OUT.value)


def chosen(values: list[str]) -> list[str]:
    """Returns the figures that the flags name, each once."""
    names = {name for value in values for name in value.split(',')}
    known = [*FIGURES, *TRAINED]
    if unknown := sorted(names - {*known, 'all'}):
        command.fail(f'no figure {unknown[0]!r}; choose from {", ".join(known)}, all')
    if 'all' in names:
        folder = pathlib.Path(RECORDS.value)
        names |= {*FIGURES}
        names |= {n for n in TRAINED if (folder / f'{TRAINED[n].RECORD}.json').exists()}
    return [name for name in known if name in names]


def setting_of_flags() -> settings.Setting:
    """Returns what the flags say of the networks."""
    sizes, counts = SIZES.value, NUM_POINTS.value
    if not all(count.isdecimal() and int(count) for count in counts):
        command.fail(f'--num_points={",".join(counts)}: these are positive integers')
    if not all(size.isdecimal() for size in sizes):
        command.fail(f'--sizes={",".join(sizes)}: these are integers')
    return settings.Setting(
        sizes=tuple(map(int, sizes)),
        num_images=NUM_IMAGES.value,
        seed=SEED.value,
        num_points=tuple(map(int, counts)),
        points=POINTS.value,
    )


def measure_devices(setting: settings.Setting) -> dict[str, Any]:
    """Compiles training for several devices and works out what they are good for."""
    divided = variants.beside(__file__, '../configs/divided')

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
            divisions=setting.thinned([1, 2, 4, 8]),
        )


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


FIGURES = {
    'convergence': (settings.convergence, convergence_figure.draw),
    'order': (settings.order, order_figure.draw),
    'oscillation': (settings.oscillation, oscillation_figure.draw),
    'processes': (settings.processes, processes_figure.draw),
    'scaling': (settings.growth, scaling_figure.draw),
    'devices': (measure_devices, devices_figure.draw),
    'fig1': (settings.fig1, jacobians_figure.draw),
    'fig2': (settings.fig2, two_biases_figure.draw),
}
TRAINED = {
    'fig3': angles_figure,
    'fig4': homeostasis_figure,
    'fig5': predictive_coding_figure,
    'nudging': nudging_figure,
    'correction': correction_figure,
}


if __name__ == '__main__':
    app.run(main)
