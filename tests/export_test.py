"""A whole gradient step of every system lowers for CPU, GPU and TPU, on the CPU."""

import re

import jax
import jax.export
import jax.numpy as jnp
import pytest
import zoo

import eqprop_jax as ep

pytestmark = pytest.mark.whole

PLATFORMS = ('cpu', 'cuda', 'tpu')
SYSTEMS = [
    'tied',
    'free',
    'loop',
    'feedforward',
    'leaky',
    'coding_tied',
    'coding_free',
    'conv_free',
    'conv_max',
    'conv_dense',
    'drive',
]


def exported(animal, correction=None):
    system, params, batch = zoo.setting(animal, jnp.float32)
    solve = zoo.solver(animal, tol=1e-4, max_steps=20)
    nudge = ep.nudges.symmetric(0.1)
    if system.holomorphic:
        nudge = ep.nudges.complex_step(1e-3)
    estimate = ep.estimators.contour(
        system, solve, contour=nudge, correction=correction
    )

    def step(params, batch):
        free = ep.relax(system, params, batch.x, solve)
        return estimate(params, batch, free, None).grads

    lowered = jax.export.export(jax.jit(step), platforms=PLATFORMS)(params, batch)
    return params, lowered


@pytest.mark.parametrize('animal', SYSTEMS)
def test_a_gradient_step_lowers_for_every_platform(animal):
    params, lowered = exported(animal)
    assert lowered.platforms == PLATFORMS
    assert [(a.shape, a.dtype) for a in lowered.out_avals] == [
        (w.shape, w.dtype) for w in jax.tree.leaves(params)
    ]
    # no array, real or complex, has become wider on the way
    assert not re.search(r'x(complex<)?f64', lowered.mlir_module())


@pytest.mark.parametrize('correction', ['antisymmetric', 'adjoint'])
def test_a_corrected_step_lowers_for_every_platform(correction):
    _, lowered = exported('conv_free', correction)
    assert lowered.platforms == PLATFORMS
