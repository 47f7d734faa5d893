"""Inputs and targets of any array type have the gradients that JAX arrays have."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from tiers import quick

import eqprop_jax as ep
from eqprop_jax.systems import _costs as costs

SIZES = [3, 12, 40]  # from 12 on a solver goes on with a part of the batch
SYSTEMS = ['free', 'conv_tied', 'coding_free', 'energy']
KINDS = {
    'numpy': lambda x, y: (np.asarray(x), np.asarray(y)),
    'numpy integers': lambda x, y: (np.uint8(x), np.int32(y)),
    'classes': lambda x, y: (x.astype('uint8'), jnp.argmax(y, axis=1)),
    'numpy classes': lambda x, y: (np.uint8(x), np.argmax(np.asarray(y), axis=1)),
}
# Every system with every kind, and either of them with every size.
CASES = [
    (animal, SIZES[(row + column) % 3], kind)
    for row, animal in enumerate(SYSTEMS)
    for column, kind in enumerate(KINDS)
]
QUICK = [case for case in CASES if case[0] == 'free']


@functools.cache
def setting(animal, size):
    """A system, its params and a batch of JAX arrays; inputs are whole numbers."""
    system = zoo.ZOO[animal].make()
    keys = jax.random.split(jax.random.key(size), 3)
    x = jax.random.randint(keys[0], (size, *zoo.ZOO[animal].inputs), 0, 3).astype(float)
    labels = jax.random.randint(keys[1], (size,), 0, zoo.CLASSES)
    y = jax.nn.one_hot(labels, zoo.CLASSES, dtype=float)
    return system, system.init(keys[2], x), ep.Batch(x, y)


def of_kind(kind, batch):
    return batch if kind is None else ep.Batch(*KINDS[kind](*batch[:2]))


def evaluated(size, fn, params):
    """Returns fn(params): operation by operation for the least size, compiled else.

    What is no parameter stays the array that it is while the function is traced.
    """
    return (fn if size == SIZES[0] else jax.jit(fn))(params)


@functools.cache
def without_nudges(animal, size, kind=None):
    """Free rates, exact gradients and those of the penalty."""
    system, params, batch = setting(animal, size)
    batch, rng = of_kind(kind, batch), jax.random.key(0)
    exact = ep.estimators.recurrent_backprop(
        system, step_size=zoo.ZOO[animal].step_size, max_steps=50
    )
    unrolled = ep.estimators.bptt(system, num_steps=2)
    penalty = jax.grad(ep.homeostasis.penalty(system, num_probes=1))

    def found(params):
        free = ep.relax(system, params, batch.x, zoo.solver(animal, 1e-4, 50))
        return (
            free.rates,
            exact(params, batch, free, None).grads,
            unrolled(params, batch, free, None).grads,
            penalty(params, batch, free, rng),
        )

    return evaluated(size, found, params)


@functools.cache
def with_nudges(animal, size, kind=None):
    """Gradients by nudged phases, of which a solver gathers examples."""
    system, params, batch = setting(animal, size)
    batch, solve = of_kind(kind, batch), zoo.solver(animal, 1e-4, 50)
    make = ep.estimators.contour
    if system.primitive is not None:
        make = ep.estimators.contrastive
    estimate = make(system, solve, contour=ep.nudges.symmetric(0.1))

    def found(params):
        free = ep.relax(system, params, batch.x, solve)
        return estimate(params, batch, free, None).grads

    return evaluated(size, found, params)


def assert_close(found, wanted):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12),
        found,
        wanted,
    )


@pytest.mark.parametrize(('animal', 'size', 'kind'), quick(CASES, QUICK))
def test_any_array_has_the_gradient_of_a_jax_array(animal, size, kind):
    found, wanted = (without_nudges(animal, size, one) for one in (kind, None))
    assert_close(found, wanted)


@pytest.mark.parametrize(('animal', 'size', 'kind'), quick(CASES, QUICK))
def test_under_nudges_too(animal, size, kind):
    found, wanted = (with_nudges(animal, size, one) for one in (kind, None))
    assert_close(found, wanted)


@pytest.mark.parametrize('scores_type', ['float32', 'complex128'])
def test_targets_are_those_of_one_hot_encoding(scores_type):
    """Soft ones pass, and what is no class is told by a NaN."""
    scores = jnp.zeros((4, 3), scores_type)
    real = jnp.real(scores).dtype
    for y in (np.array([2, 0, 1, 1]), jnp.array([2, 0, 1, 1], 'int8')):
        found = costs.targets(scores, y)
        assert found.dtype == real
        np.testing.assert_array_equal(found, np.eye(3)[[2, 0, 1, 1]])
    soft = np.full((4, 3), 1 / 3)
    np.testing.assert_array_equal(costs.targets(scores, soft), soft.astype(real))
    outside = costs.targets(scores, jnp.array([0, 3, -1, 2]))
    assert jnp.isnan(outside).any(axis=1).tolist() == [False, True, True, False]
    for y in (jnp.zeros(4), jnp.zeros(3, int), jnp.zeros((4, 1), int)):
        with pytest.raises(ValueError, match='one-hot.*class indices, integers'):
            costs.targets(scores, y)


def test_what_embeds_its_input_sees_integers():
    """A system of one's own is not handed floats for whole numbers."""
    system = ep.systems.from_drive(
        lambda params, injection, rates: {'u': injection},
        init=lambda rng, x: {'table': jnp.arange(6.0).reshape(3, 2)},
        inject=lambda params, x: params['table'][x],
        rest=lambda injection: {'u': np.zeros(injection.shape, int)},
        activation='identity',
    )
    x = np.array([2, 0, 1])
    params = system.init(jax.random.key(0), x)
    free = ep.relax(system, params, x, ep.solvers.relaxation())
    np.testing.assert_array_equal(free.rates['u'], params['table'][x])
