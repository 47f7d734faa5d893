"""Counted operations against what is written on paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from flax import linen as nn

import eqprop_jax as ep
from eqprop_jax.solvers._settle import sizes
from experiments import flops


def test_products_of_a_layered_network():
    """784-256-256-10 at batch 50: a sweep passes W_2 up and B_1 down."""
    x = jnp.zeros((50, 784))
    system = ep.systems.mlp((784, 256, 256, 10), feedback='free')
    params = system.init(jax.random.key(0), x)
    injection = system.inject(params, x)
    rates = system.rates(system.rest(injection))
    assert flops.count(system.inject, params, x) == 2 * 50 * 784 * 256
    sweep = 2 * 50 * 2 * 256 * 256
    assert flops.count(system.drive, params, injection, rates) == sweep
    both = ep.tree.to_complex(rates)
    assert flops.count(system.drive, params, injection, both) == 2 * sweep
    assert flops.count(system.predict, params, rates) == 2 * 50 * 256 * 10


def test_convolutions():
    image = jnp.zeros((2, 8, 8, 3))
    kernel = jnp.zeros((3, 3, 3, 5))
    same = 2 * 2 * 8 * 8 * 3 * 3 * 3 * 5
    assert flops.count(ep.linear.conv, image, kernel) == same
    conv = nn.Conv(5, (3, 3), padding='VALID')
    params = conv.init(jax.random.key(0), image)
    assert flops.count(conv.apply, params, image) == same * 36 // 64


def test_complex_factors_and_batches():
    a = jnp.zeros((3, 4, 5))
    b = jnp.zeros((3, 5, 6))
    product = 2 * 3 * 4 * 5 * 6
    assert flops.count(jnp.matmul, a, b) == product
    assert flops.count(jnp.matmul, a + 1j, b + 1j) == 4 * product


def test_loops_and_branches():
    w = jnp.zeros((4, 4))
    once = 2 * 4**3

    def scan(w):
        return jax.lax.scan(lambda c, _: (c @ w, None), w, None, length=7)[0]

    def until(w):
        return jax.lax.while_loop(lambda c: c[0, 0] < 1, lambda c: c @ w, w)

    def choose(w):
        return jax.lax.cond(w[0, 0] > 0, lambda w: w @ w, lambda w: w, w)

    assert flops.count(jax.jit(scan), w) == 7 * once
    assert flops.count(until, w) == 0
    assert flops.count(choose, w) == once
    assert flops.count(jax.grad(lambda w: jnp.sum(w @ w)), w) == 3 * once


@pytest.mark.parametrize('stages', [[], [4], [5, 2]])
def test_rows_of_a_relaxation(stages):
    """By going through its sweeps one at a time."""
    num_steps = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 9])
    total, sweep, size, left = 0, 0, len(num_steps), list(stages)
    while (num_steps > sweep).any():
        while left and (num_steps > sweep).sum() <= left[0]:
            size = left.pop(0)
        total += size
        sweep += 1
    assert flops.rows(num_steps, stages) == total


def test_rows_are_those_that_are_swept():
    system, params, batch = zoo.setting('tied')
    x = jnp.concatenate([scale * batch.x for scale in (0.1, 0.2, 0.4, 1.0, 9.0)])
    seen = []

    solve = ep.solvers.relaxation(
        order='synchronous', tol=1e-6, max_steps=500, compact=True
    )
    injection = system.inject(params, x)
    field = zoo.watched(system, params, injection, seen)
    found = jax.jit(lambda u: solve(field, u))(system.rest(injection))
    jax.effects_barrier()
    swept = flops.rows(found.num_steps, sizes(len(x)))
    assert sum(seen) == swept
