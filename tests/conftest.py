"""Tests run on the CPU in float64; rank promotion and warnings are errors."""

import gc
import importlib.metadata
import itertools
import os
import pathlib
import pkgutil
import signal

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

# Tests compile much and compute little: half of their time is saved by this. Of a flag
# that is not in every version, others abort.
os.environ['XLA_FLAGS'] = ' '.join(
    [
        os.environ.get('XLA_FLAGS', ''),
        '--xla_backend_optimization_level=0',
        '--xla_llvm_disable_expensive_passes=true',
        '--xla_cpu_parallel_codegen_split_count=1',
        '--xla_cpu_use_fusion_emitters=false'
        if importlib.metadata.version('jaxlib').startswith('0.10.')
        else '',
    ]
)

import jax
import pytest

# In the background of a script Ctrl-C is ignored, also by what the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

CACHE = pathlib.Path(__file__).parents[1] / '.cache' / 'jax'

MODULES = itertools.count(1)

gc.set_threshold(100_000, 20, 20)  # traces leave many objects, and few of them cycles

jax.config.update('jax_num_cpu_devices', 8)  # runs.py takes one unless told otherwise
jax.config.update('jax_enable_x64', True)
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.config.update('jax_compilation_cache_dir', str(CACHE))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)


@pytest.fixture(autouse=True, scope='module')
def forgotten():
    """Frees now and then the programs that JAX keeps: several gigabytes at the end."""
    yield
    if next(MODULES) % 4 == 0:
        jax.clear_caches()


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, by any module of the library or of experiments."""
    from matplotlib.figure import Figure

    import eqprop_jax.figures
    import experiments.figures

    drawn = []

    def make(*args, **options):
        drawn.append(Figure(*args, **options))
        return drawn[-1]

    for package in (eqprop_jax.figures, experiments.figures):
        for found in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f'{package.__name__}.{found.name}')
            if hasattr(module, 'Figure'):
                monkeypatch.setattr(module, 'Figure', make)
    return drawn
