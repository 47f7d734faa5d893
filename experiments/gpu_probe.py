"""What one accelerator can do for this project, measured in some minutes.

    python experiments/gpu_probe.py [--batch=256] [--out=FOLDER] [--only=peaks,loops]

It prints a table, and writes it to OUT/probe.json:

    peaks   TFLOP/s of a large product in float32, TF32 and bfloat16; GB/s of a copy
    convs   each convolution of 128-256-512-512 and its transpose, by how it is written
    loops   what a turn of a while_loop costs beside its work, by XLA's command buffers
    steps   a training step of that net with 12 free sweeps and 4 under each nudge, tied
            by two nudges of 1 and from 90 degrees corrected: images a second, and how
            far δ is from that of full precision after these sweeps, in the worst layer

Every time is the median of repeated calls after a warm-up, on random data.
"""

import argparse
import functools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
from jax import lax

RESULTS = {}


def timed(fn, *args, repeats=20):
    """Returns the median seconds of fn(*args), compiled and warmed up."""
    fn = jax.jit(fn)
    start = time.perf_counter()
    jax.block_until_ready(fn(*args))
    compile_seconds = time.perf_counter() - start
    jax.block_until_ready(fn(*args))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(fn(*args))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), compile_seconds


def chained(fn, times):
    """Returns a function that does fn `times` times in a row, so that launches hide."""

    def run(s, *args):
        def body(_, s):
            # The input changes a little, so that no turn can be left out or shared.
            return s + 1e-6 * jnp.sum(fn(s, *args).astype(jnp.float32)[:1]).astype(
                s.dtype
            )

        return lax.fori_loop(0, times, body, s)

    return run


def report(section, name, **values):
    """Prints a row and keeps it."""
    RESULTS.setdefault(section, {})[name] = values
    shown = '  '.join(
        f'{key} {value:.4g}' if isinstance(value, float) else f'{key} {value}'
        for key, value in values.items()
    )
    print(f'{section:6} {name:46} {shown}', flush=True)


def peaks(n):
    """Times a product of n by n, and a copy."""
    key = jax.random.key(0)
    a = jax.random.normal(key, (n, n))
    flops = 2 * n**3
    for name, dtype, precision in (
        ('float32, highest', jnp.float32, 'highest'),
        ('float32, default (TF32 on Ampere and later)', jnp.float32, 'default'),
        ('bfloat16 in, float32 out', jnp.bfloat16, None),
    ):
        x = a.astype(dtype)
        product = functools.partial(
            jnp.matmul, precision=precision, preferred_element_type=jnp.float32
        )
        seconds, _ = timed(lambda x, product=product: product(x, x), x, repeats=10)
        report('peaks', name, tflops=flops / seconds / 1e12)
    big = jnp.zeros((n * n * 8,), jnp.float32) + 1.5
    seconds, _ = timed(lambda x: x * 1.0001, big, repeats=10)
    report('peaks', 'copy (read and written)', gb_per_s=2 * big.nbytes / seconds / 1e9)


SHAPES = (  # name, map, kernel, padding
    ('conv2', (16, 16, 128), (3, 3, 128, 256), ((1, 1), (1, 1))),
    ('conv3', (8, 8, 256), (3, 3, 256, 512), ((1, 1), (1, 1))),
    ('conv4', (4, 4, 512), (3, 3, 512, 512), ((0, 0), (0, 0))),
)


def ways():
    """Returns the ways to write a convolution, functions of (maps, kernel, pads)."""

    def native(s, k, pads, dtype, out, precision):
        return lax.conv_general_dilated(
            s.astype(dtype),
            k.astype(dtype),
            (1, 1),
            pads,
            dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
            precision=precision,
            preferred_element_type=out,
        )

    def patches(s, k, pads, dtype, out):
        s = jnp.pad(s.astype(dtype), ((0, 0), *pads, (0, 0)))
        h, w = s.shape[1] - k.shape[0] + 1, s.shape[2] - k.shape[1] + 1
        cols = jnp.concatenate(
            [
                s[:, i : i + h, j : j + w]
                for i in range(k.shape[0])
                for j in range(k.shape[1])
            ],
            axis=-1,
        )
        return lax.dot_general(
            cols,
            k.astype(dtype).reshape(-1, k.shape[-1]),
            (((3,), (0,)), ((), ())),
            preferred_element_type=out,
        )

    bf16, f32 = jnp.bfloat16, jnp.float32
    return {
        'float32, highest': lambda s, k, p: native(s, k, p, f32, f32, 'highest'),
        'float32, default (TF32)': lambda s, k, p: native(s, k, p, f32, f32, 'default'),
        'bfloat16 in, float32 out': lambda s, k, p: native(s, k, p, bf16, f32, None),
        'bfloat16 in and out': lambda s, k, p: native(s, k, p, bf16, bf16, None),
        'patches, bfloat16 in, float32 out': lambda s, k, p: patches(
            s, k, p, bf16, f32
        ),
    }


def convs(batch):
    """Times each convolution of the CIFAR-10 net and its transpose, by every way."""
    key, written = jax.random.key(1), ways()
    for name, shape, kernel, pads in SHAPES:
        k = 0.05 * jax.random.normal(key, kernel)
        s = jax.random.normal(key, (batch, *shape))
        out = jax.eval_shape(
            lambda s, k, p=pads: written['float32, highest'](s, k, p), s, k
        ).shape
        flops = (
            2 * batch * out[1] * out[2] * kernel[0] * kernel[1] * kernel[2] * kernel[3]
        )
        turned = jnp.swapaxes(jnp.flip(k, (0, 1)), 2, 3)
        back = tuple(
            (kernel[i] - 1 - p[0], kernel[i] - 1 - p[1]) for i, p in enumerate(pads)
        )
        r = jax.random.normal(key, out)
        exact = {
            'forward': written['float32, highest'](s, k, pads),
            'transposed': written['float32, highest'](r, turned, back),
        }
        for direction, x, weights, p in (
            ('forward', s, k, pads),
            ('transposed', r, turned, back),
        ):
            for way, fn in written.items():
                y = fn(x, weights, p).astype(jnp.float32)
                error = jnp.linalg.norm(y - exact[direction]) / jnp.linalg.norm(
                    exact[direction]
                )
                seconds, compiling = timed(
                    chained(lambda x, w, fn=fn, p=p: fn(x, w, p), 10),
                    x,
                    weights,
                    repeats=5,
                )
                report(
                    'convs',
                    f'{name} {direction}: {way}',
                    ms=seconds / 10 * 1e3,
                    tflops=flops * 10 / seconds / 1e12,
                    error=float(error),
                    compile_s=compiling,
                )


LOOP = r"""
import time, statistics, jax, jax.numpy as jnp
from jax import lax
def loop(x, n):
    def body(c):
        i, x, r = c
        for _ in range(4):
            x = jnp.tanh(x @ w)
        return i + 1, x, jnp.max(jnp.abs(x))
    go_on = lambda c: (c[0] < n) & (c[2] > 1e-30)
    return lax.while_loop(go_on, body, (0, x, jnp.float32(1)))
w = jax.random.normal(jax.random.key(0), (256, 256)) / 16
x = jax.random.normal(jax.random.key(1), (50, 256))
f = jax.jit(loop)
jax.block_until_ready(f(x, 10)); jax.block_until_ready(f(x, 1000))
times = []
for _ in range(5):
    t = time.perf_counter()
    jax.block_until_ready(f(x, 1000))
    times.append(time.perf_counter() - t)
print(statistics.median(times) * 1e3)
"""


def loops():
    """Times the turns of a loop of small products, each setting in a process."""
    for name, flags in (
        ('default flags', ''),
        ('no command buffers', '--xla_gpu_enable_command_buffer='),
        (
            'command buffers with WHILE and CONDITIONAL',
            '--xla_gpu_enable_command_buffer=FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,'
            'DYNAMIC_SLICE_FUSION,CONDITIONAL,WHILE --xla_gpu_graph_min_graph_size=1',
        ),
    ):
        env = {
            **os.environ,
            'XLA_FLAGS': flags,
            'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
        }
        done = subprocess.run(
            [sys.executable, '-c', LOOP],
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            report('loops', name, failed=done.stderr.strip().splitlines()[-1][:120])
        else:
            report('loops', name, us_per_turn=float(done.stdout.split()[-1]))


def steps(batch, channels):
    """Times a step of the CIFAR-10 net of a fixed number of sweeps, by precision."""
    import eqprop_jax as ep

    key = jax.random.key(0)
    x = jax.random.normal(key, (batch, 32, 32, 3))
    y = jax.nn.one_hot(jax.random.randint(key, (batch,), 0, 10), 10)

    def gradient(feedback, precision, convolution, loop):
        free = feedback == 'free'
        system = ep.systems.conv(
            (32, 32, 3),
            channels,
            paddings=('SAME', 'SAME', 'SAME', 'VALID'),
            classes=10,
            feedback=feedback,
            angle=90.0 if free else None,
        )
        system = ep.systems.rounded(system, precision, convolution=convolution)

        def solver(count):
            if loop == 'scan':
                return ep.solvers.unrolled(num_steps=count, order='alternating')
            return ep.solvers.relaxation(tol=1e-30, max_steps=count, compact=False)

        estimate = ep.estimators.contour(
            system,
            solver(4),
            contour=ep.nudges.complex_step(1e-3) if free else ep.nudges.symmetric(1.0),
            correction='adjoint' if free else None,
        )

        def run(params, x, y):
            settled = ep.relax(system, params, x, solver(12))
            return estimate(params, ep.Batch(x, y), settled, None)[:2]

        return system.init(jax.random.key(1), x), run

    first = {}
    for feedback, precision, convolution, loop in (
        ('tied', 'float32', None, 'while'),
        ('tied', 'tf32', None, 'while'),
        ('tied', 'tf32', None, 'scan'),
        ('tied', 'bfloat16', None, 'while'),
        ('tied', 'bfloat16', None, 'scan'),
        ('tied', 'bfloat16', 'patches', 'scan'),
        ('free', 'float32', None, 'scan'),
        ('free', 'tf32', None, 'scan'),
        ('free', 'bfloat16', None, 'while'),
        ('free', 'bfloat16', None, 'scan'),
    ):
        params, run = gradient(feedback, precision, convolution, loop)
        seconds, compiling = timed(run, params, x, y, repeats=5)
        error = jax.jit(run)(params, x, y)[1]
        exact = first.setdefault(feedback, error)
        off = {
            layer: float(jnp.linalg.norm(error[layer] - e) / jnp.linalg.norm(e))
            for layer, e in exact.items()
        }
        report(
            'steps',
            f'{feedback}: {precision}, {convolution or "as is fastest"}, {loop}',
            ms=seconds * 1e3,
            images_per_s=batch / seconds,
            compile_s=compiling,
            off_in_worst_layer=max(off.values()),
        )


def main():
    """Measures the parts that are asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--batch', type=int, default=256)
    parser.add_argument('--size', type=int, default=8192)
    parser.add_argument('--channels', default='128,256,512,512')
    parser.add_argument('--out', default=None)
    parser.add_argument('--only', default='peaks,convs,loops,steps')
    args = parser.parse_args()
    channels = tuple(map(int, args.channels.split(',')))
    print(jax.__version__, jax.devices())
    for name in args.only.split(','):
        start = time.perf_counter()
        try:
            {
                'peaks': lambda: peaks(args.size),
                'convs': lambda: convs(args.batch),
                'loops': loops,
                'steps': lambda: steps(args.batch, channels),
            }[name]()
        except Exception as error:  # one part that fails leaves the others
            report(name, 'failed', reason=f'{type(error).__name__}: {error}'[:300])
        print(f'--- {name}: {time.perf_counter() - start:.0f} s', flush=True)
    if args.out:
        out = pathlib.Path(args.out)
        out.mkdir(parents=True, exist_ok=True)
        (out / 'probe.json').write_text(json.dumps(RESULTS, indent=1))


if __name__ == '__main__':
    main()
