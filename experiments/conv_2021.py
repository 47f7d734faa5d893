"""How the conv net of 2021 settles at its initialisation, and what a batch takes.

    python experiments/conv_2021.py [--json=results/conv_2021.json] [--hardware=WORDS]

128-256-512-512 with max-pooling, clip(u/2, 0, 1), ten output units with the squared
error, tied, nudges of ±0.5, 16 CIFAR-10 images: sweeps and seconds of the free phase
and of the gradient, at the tolerances of `configs/cifar10_conv_tied.py`, and how far δ
is from that of phases settled to 1e-6 under the same nudges, in every layer. (Beside
recurrent backprop it says little: nudges of this size turn output units on that are off
at the free point.)
"""

import json
import pathlib
import statistics
import sys
import time

import jax
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import eqprop_jax as ep
from eqprop_jax.analysis import layers
from eqprop_jax.config import build, variants
from eqprop_jax.records.drawn import provenance
from eqprop_jax.training.diagnose import first_examples

EXAMPLES = flags.DEFINE_integer('examples', 16, 'Training images in the batch.')
SEEDS = flags.DEFINE_integer('seeds', 3, 'Initialisations.')
JSON = flags.DEFINE_string('json', '', 'Where to write the record.')
HARDWARE = flags.DEFINE_string('hardware', '', 'What it runs on, in words.')
REPEATS = 5


def timed(fn, *args):
    """Returns what fn returns, and its median seconds once compiled."""
    out = jax.block_until_ready(fn(*args))
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(fn(*args))
        seconds.append(time.perf_counter() - start)
    return out, statistics.median(seconds)


def main(argv):
    """Measures, prints and writes."""
    del argv
    published = variants.beside(__file__, '../configs/cifar10_conv_tied')
    experiment = build.experiment(published.get_config())
    system, batch = experiment.system, first_examples(experiment, EXAMPLES.value)
    tight = ep.solvers.relaxation(tol=1e-6, max_steps=500)
    contour = ep.estimators.contour(system, tight, contour=ep.nudges.symmetric(0.5))

    @jax.jit
    def free(params):
        return ep.relax(system, params, batch.x, experiment.solve)

    @jax.jit
    def nudged(params, free):
        return experiment.estimate(params, batch, free, None)

    @jax.jit
    def settled(params):
        return contour(params, batch, ep.relax(system, params, batch.x, tight), None)

    rows = []
    for seed in range(SEEDS.value):
        params = system.init(jax.random.key(seed), batch.x)
        rest, free_seconds = timed(free, params)
        found, seconds = timed(nudged, params, rest)
        errors = layers.errors(found.error, settled(params).error)
        row = {
            'seed': seed,
            'free_steps': float(rest.num_steps.mean()),
            'max_free_steps': int(rest.num_steps.max()),
            'nudged_steps': float(found.info.num_steps.mean()),
            'settled': float(found.info.converged),
            'free_seconds': free_seconds,
            'gradient_seconds': seconds,
            'seconds_per_image': (free_seconds + seconds) / EXAMPLES.value,
            'worst_error': float(layers.largest(errors)),
            **{f'error/{layer}': float(e) for layer, e in errors.items()},
        }
        rows.append(row)
        print(json.dumps(row), flush=True)
    if JSON.value:
        record = {
            'command': f'python experiments/conv_2021.py --seeds={SEEDS.value}',
            'config': 'configs/cifar10_conv_tied.py',
            'hardware': HARDWARE.value,
            **provenance(),
            'examples': EXAMPLES.value,
            'rows': rows,
        }
        pathlib.Path(JSON.value).write_text(json.dumps(record, indent=1) + '\n')


if __name__ == '__main__':
    app.run(main)
