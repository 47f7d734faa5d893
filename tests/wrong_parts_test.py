"""What is passed as a part and is none is refused where it is passed, in words."""

import re

import jax
import numpy as np
import optax
import pytest

import eqprop_jax as ep

SYSTEM = ep.systems.mlp((4, 5, 3), cost='squared_error')
SOLVE = ep.solvers.relaxation()
ESTIMATE = ep.estimators.recurrent_backprop(SYSTEM)
X = np.ones((2, 4), np.float32)
BATCH = ep.Batch(X, np.eye(3, dtype=np.float32)[:2])
PARAMS = SYSTEM.init(jax.random.key(0), X)
DATA = ep.data.from_arrays((np.ones((8, 4)), np.arange(8) % 3))
CIRCLE = ep.nudges.circle(0.1, 2)


def fit(*parts, **options):
    return ep.fit(
        *parts, progress=False, diagnose=False, num_epochs=1, batch_size=4, **options
    )


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (
            lambda: ep.relax(SYSTEM, PARAMS, X, ep.solvers.relaxation),
            'solve has to be from eqprop_jax.solvers, like relaxation(tol=1e-3), not '
            'relaxation (if that makes one, call it)',
        ),
        (
            lambda: ep.relax(SYSTEM, PARAMS, X, 'relaxation'),
            'solve has to be from eqprop_jax.solvers, like relaxation(tol=1e-3), not '
            "'relaxation'",
        ),
        (lambda: ep.relax(ep.systems.mlp, PARAMS, X, SOLVE), 'system has to be from'),
        (lambda: ep.value_and_grad('mlp', SOLVE, ESTIMATE), "not 'mlp'"),
        (
            lambda: ep.loss(SYSTEM, SOLVE, ep.estimators.contour),
            'estimate has to be from eqprop_jax.estimators, like '
            'recurrent_backprop(system), not contour (if that makes one, call it)',
        ),
        (lambda: ep.loss(SYSTEM, ESTIMATE, SOLVE), 'solve has to be from'),
        (lambda: ep.block(SYSTEM, SOLVE, lambda s: None), 'not None'),
        (lambda: ep.block(SYSTEM, None), 'solve has to be from'),
        (
            lambda: ep.estimators.contour(SYSTEM, SOLVE, contour=ep.nudges.circle),
            'contour has to be from eqprop_jax.nudges, like complex_step(1e-3), not '
            'circle (if that makes one, call it)',
        ),
        (lambda: ep.estimators.contour(SYSTEM, SOLVE, contour=0.1), 'not a float'),
        (
            lambda: ep.estimators.contrastive(SYSTEM, 'aitken', contour=CIRCLE),
            "not 'aitken'",
        ),
        (lambda: ep.estimators.tangent(ep.systems.mlp), 'not mlp (if that makes'),
        (lambda: ep.check(SYSTEM, PARAMS, BATCH, 'relaxation'), "not 'relaxation'"),
        (lambda: ep.check(SYSTEM, PARAMS, BATCH, contour='circle'), "not 'circle'"),
        (lambda: ep.check(SYSTEM, PARAMS, BATCH, SOLVE, 'plain'), "not 'plain'"),
        (lambda: fit(SYSTEM, DATA, 'contour'), "not 'contour'"),
        (lambda: fit(SYSTEM, DATA, ESTIMATE, solve='aitken'), "not 'aitken'"),
        (
            lambda: fit(SYSTEM, DATA, ESTIMATE, optimizer='adam'),
            "optimizer has to be from optax, like adam(1e-3), not 'adam'",
        ),
        (
            lambda: fit(SYSTEM, DATA, ESTIMATE, optimizer=optax.adam),
            'not adam (if that makes one, call it)',
        ),
    ],
)
def test_it_is_refused_where_it_is_passed(call, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        call()


def test_a_negative_class_is_told_unless_it_is_padding():
    """By NaN, as any class that is none."""
    batch = ep.Batch(X, np.array([-1, 0]))
    (value, _), _ = ep.value_and_grad(SYSTEM, SOLVE, ESTIMATE)(PARAMS, batch)
    assert np.isnan(value)
    assert np.isnan(ep.loss(SYSTEM, SOLVE, ESTIMATE)(PARAMS, batch))
    with pytest.raises(ValueError, match='the cost of example 0 is not finite'):
        ep.check(SYSTEM, PARAMS, batch)
    alone = ep.Batch(X[1:], np.array([0]))
    padded = ep.Batch(X, np.array([-1, 0]), np.array([-1, 0]))
    contour = ep.estimators.contour(SYSTEM, SOLVE, contour=CIRCLE)
    for estimate in (ESTIMATE, contour):
        run = ep.value_and_grad(SYSTEM, SOLVE, estimate)
        found, wanted = run(PARAMS, padded), run(PARAMS, alone)
        for a, b in zip(*map(jax.tree.leaves, (found[1], wanted[1])), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(found[0][0], wanted[0][0], rtol=1e-6)


def test_check_has_something_to_look_at():
    with pytest.raises(ValueError, match='the batch is empty'):
        ep.check(SYSTEM, PARAMS, ep.Batch(X[:0], np.zeros((0, 3), np.float32)))
    with pytest.raises(ValueError, match='has its own contour'):
        ep.check(SYSTEM, PARAMS, BATCH, SOLVE, ESTIMATE, correction='adjoint')


def test_own_parts_of_any_kind_are_let_pass():
    """Functions, objects that are called, jitted and partial ones, any that JAX has."""

    class Own:
        def __call__(self, field, state, verbose=False):
            return SOLVE(field, state)

    for solve in (Own(), jax.tree_util.Partial(SOLVE), lambda *parts: SOLVE(*parts)):
        found = ep.relax(SYSTEM, PARAMS, X, solve)
        np.testing.assert_array_equal(
            found.rates['layer_1'], ep.relax(SYSTEM, PARAMS, X, SOLVE).rates['layer_1']
        )


def test_one_callback_is_a_sequence_of_one():
    seen = []
    fit(
        SYSTEM,
        DATA,
        ESTIMATE,
        callbacks=lambda step, metrics: seen.append(metrics['split']),
    )
    assert 'train' in seen
