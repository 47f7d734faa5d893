"""How much memory the compiler sets aside for activity."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo

import eqprop_jax as ep
from configs import cifar10_conv_free
from eqprop_jax.config import build, registry
from eqprop_jax.data import _pipeline as pipeline
from eqprop_jax.data import _splits as splits
from eqprop_jax.training import programs
from eqprop_jax.training.state import init_state

pytestmark = pytest.mark.whole

GIB = 2**30


@functools.cache
def temporary(name, num_steps):
    """Bytes of one free phase and its estimate, for that many steps of both."""
    system, params, batch = zoo.setting('conv_free', jnp.float32)
    solve = ep.solvers.relaxation(tol=1e-6, max_steps=num_steps)
    estimate = {
        'contour': lambda: ep.estimators.contour(
            system,
            solve,
            contour=ep.nudges.complex_step(1e-3),
            correction='antisymmetric',
        ),
        'recurrent_backprop': lambda: ep.estimators.recurrent_backprop(
            system, tol=1e-6, max_steps=num_steps
        ),
        'bptt': lambda: ep.estimators.bptt(system, num_steps=num_steps),
    }[name]()

    def step(params, batch):
        free = ep.relax(system, params, batch.x, solve)
        return estimate(params, batch, free, None).grads

    compiled = jax.jit(step).lower(params, batch).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize('name', ['contour', 'recurrent_backprop'])
def test_memory_does_not_grow_with_the_steps(name):
    assert temporary(name, 10) == temporary(name, 1000) > 0


def test_memory_of_backprop_through_time_grows_with_the_steps():
    units = (12 + 4) * zoo.BATCH
    states = 4 * units * 990  # one float32 state for each further step
    assert temporary('bptt', 1000) - temporary('bptt', 10) > states


@pytest.fixture
def step_of(monkeypatch):
    """Returns config ↦ temporary bytes of a training step on images of CIFAR-10."""
    images = np.zeros((600, 32, 32, 3), np.uint8)
    split = splits.Split(images, np.zeros(len(images), np.int32))
    data = splits.Dataset('cifar10', split, split, split, num_classes=10, scale=255.0)
    monkeypatch.setattr(registry.LOADER, 'make', lambda **_: data)

    def step_of(config):
        experiment = build.experiment(config)
        state = jax.eval_shape(lambda: init_state(experiment))
        position = (jnp.int32(0), jnp.int32(0), jnp.int32(1))
        chunk = programs.make_train_chunk(experiment).lower(
            state, pipeline.to_device(split), *position
        )
        return chunk.compile().memory_analysis().temp_size_in_bytes

    return step_of


def test_a_batch_of_256_of_the_published_network_fits(step_of):
    """Homeostasis, which costs the most, and crops included."""
    config = cifar10_conv_free.get_config()
    assert config.batch_size == 256
    assert config.homeostasis.num_probes == 5
    assert GIB / 4 < step_of(config) < 2 * GIB


def test_a_batch_in_turns_takes_the_memory_of_one(step_of):
    config = cifar10_conv_free.get_config('small')
    config.batch_size = 256
    whole = step_of(config)
    config.accumulation_steps = 8
    assert step_of(config) < whole / 4
