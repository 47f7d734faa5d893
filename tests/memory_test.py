"""How much memory the compiler sets aside for activity, against relaxation steps."""

import functools

import jax
import jax.numpy as jnp
import pytest
import zoo

import eqprop_jax as ep


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
