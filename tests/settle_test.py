"""What the loop of all relaxations leaves out: settled examples, unused products."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from tiers import quick, whole

import eqprop_jax as ep
from eqprop_jax.solvers._judge import Pace, judge
from eqprop_jax.solvers._settle import sizes

BATCH = 40
SOLVERS = {
    'relaxation': ep.solvers.relaxation,
    'aitken': ep.solvers.aitken,
    'anderson': ep.solvers.anderson,
}


def slow_and_fast(make=ep.systems.mlp, **options):
    """Returns a tied network and inputs of which some settle late."""
    system = make((7, 6, 5, 3), feedback='tied', **options)
    x_key, y_key, key = jax.random.split(jax.random.key(3), 3)
    scale = jnp.where(jnp.arange(BATCH) % 5 == 0, 1.0, 20.0)
    x = scale[:, None] * jax.random.normal(x_key, (BATCH, 7))
    labels = jax.random.randint(y_key, (BATCH,), 0, 3)
    params = system.init(key, x)
    params = jax.tree.map(lambda w: 1.2 * w, params)
    return system, params, ep.Batch(x, jax.nn.one_hot(labels, 3))


@pytest.mark.parametrize(('size', 'left'), [(1e-16, 1e-16), (1e-12, np.inf)])
def test_moves_of_rounding_say_nothing_of_growth(size, left):
    """After growth, ρ = 1.5, a longer move leaves it open how much is left."""
    state = {'a': jnp.ones((1, 4))}
    move = {'a': jnp.full((1, 4), size)}
    before = jnp.array([2 * size])
    pace = Pace(before, before / 4, jnp.array([1.5]))
    field = ep.types.Field(lambda s: s, lambda u: u)
    found = judge(field, state, move, pace, through=True)
    assert not found.stuck.any()
    np.testing.assert_allclose(found.residual, left)


def test_the_sizes_of_what_is_gathered():
    assert sizes(500) == [166, 55, 18, 6]
    assert sizes(50) == [16, 5]
    assert sizes(12) == [4]
    assert sizes(11) == []
    assert sizes(128, fewest=12) == [42, 14]


@pytest.mark.typed
@pytest.mark.parametrize('name', list(SOLVERS))
def test_nothing_depends_on_it(name):
    system, params, batch = slow_and_fast()

    def settle(compact):
        solve = SOLVERS[name](tol=1e-10, max_steps=500, compact=compact)
        return jax.jit(lambda x: ep.relax(system, params, x, solve))(batch.x)

    together, alone = settle(False), settle(True)
    assert together.converged.all()
    late = together.num_steps > jnp.quantile(together.num_steps, 2 / 3)
    assert 0 < late.sum() <= BATCH / 3  # there is something to gather
    np.testing.assert_array_equal(alone.num_steps, together.num_steps)
    np.testing.assert_array_equal(alone.converged, together.converged)
    for part in ('state', 'rates'):
        for layer, u in getattr(together, part).items():
            np.testing.assert_allclose(getattr(alone, part)[layer], u, rtol=1e-8)


def test_fewer_rows_are_multiplied():
    """Of the sweeps of a compacted batch most are those of a part of it."""
    system, params, batch = slow_and_fast()
    seen = []

    injection = system.inject(params, batch.x)
    field = zoo.watched(system, params, injection, seen)
    solve = ep.solvers.relaxation(
        order='synchronous', tol=1e-6, max_steps=500, compact=True
    )
    found = jax.jit(lambda s: solve(field, s))(system.rest(injection))
    jax.effects_barrier()
    assert found.converged.all()
    assert set(seen) == {BATCH, 13, 4}
    assert sum(seen) < 0.7 * BATCH * int(found.num_steps.max())


@pytest.mark.typed
@pytest.mark.parametrize(
    'correction', quick([None, 'antisymmetric', 'adjoint'], ['adjoint'])
)
@pytest.mark.parametrize(
    'contour', [whole(ep.nudges.symmetric(0.3)), ep.nudges.circle(0.3, 4)]
)
def test_nudged_phases_are_taken_apart(correction, contour):
    """Targets, free points and complex states go with the examples they belong to."""
    system, params, batch = slow_and_fast(activation='tanh')
    free = ep.relax(system, params, batch.x, ep.solvers.relaxation(tol=1e-11))

    def error(compact, batched, warm_start=False):
        solve = ep.solvers.relaxation(tol=1e-11, max_steps=500, compact=compact)
        estimate = ep.estimators.contour(
            system,
            solve,
            contour=contour,
            correction=correction,
            batched=batched,
            warm_start=warm_start,
        )
        return jax.jit(estimate)(params, batch, free, None).error

    reference = error(compact=False, batched=True)
    for options in (
        {'batched': True},
        {'batched': False},
        {'batched': False, 'warm_start': True},
    ):
        for layer, part in error(compact=True, **options).items():
            np.testing.assert_allclose(part, reference[layer], rtol=1e-6, atol=1e-9)


def test_those_that_go_on_alone_are_rounded_relative_to_their_change():
    """With a nudge of 1e-6, which rounding relative to the rates would swallow."""
    base, params, batch = slow_and_fast(activation='tanh')
    free = ep.relax(base, params, batch.x, ep.solvers.relaxation(tol=1e-11))
    contour = ep.nudges.symmetric(1e-6)

    def error(system, **options):
        solve = ep.solvers.relaxation(max_steps=500, **options)
        estimate = ep.estimators.contour(system, solve, contour=contour)
        return jax.jit(estimate)(params, batch, free, None).error

    exact = error(base, tol=1e-6, compact=False)
    coarse = ep.systems.rounded(base, 'bfloat16')
    whole, parted = (error(coarse, tol=1e-2, compact=c) for c in (False, True))
    for layer, found in parted.items():
        np.testing.assert_allclose(found, whole[layer], rtol=1e-6, atol=1e-12)
    top = {'layer_2': parted['layer_2'] - exact['layer_2']}  # layer 1 is saturated
    size = ep.tree.per_example_norm({'layer_2': exact['layer_2']})
    assert (ep.tree.per_example_norm(top) < 0.03 * size).all()


@pytest.mark.whole
def test_dropout_goes_with_its_example():
    system = ep.systems.conv(
        (4, 4, 2), (3,), kernels=3, hidden=(5,), classes=3, dropout=0.5
    )
    x_key, y_key, key, rng = jax.random.split(jax.random.key(5), 4)
    x = 4 * jax.random.normal(x_key, (BATCH, 4, 4, 2))
    y = jax.nn.one_hot(jax.random.randint(y_key, (BATCH,), 0, 3), 3)
    params, batch = system.init(key, x), ep.Batch(x, y)
    free = ep.relax(system, params, x, ep.solvers.relaxation(tol=1e-11))

    def grads(compact):
        solve = ep.solvers.relaxation(tol=1e-11, max_steps=500, compact=compact)
        estimate = ep.estimators.dropout(
            system,
            lambda s: ep.estimators.contour(s, solve, contour=ep.nudges.symmetric(0.3)),
        )
        return jax.jit(estimate)(params, batch, free, rng).grads

    for with_it, without in zip(
        jax.tree.leaves(grads(True)), jax.tree.leaves(grads(False)), strict=True
    ):
        np.testing.assert_allclose(with_it, without, rtol=1e-6, atol=1e-9)


def test_a_diverged_example_is_not_gathered():
    """NaN stops; what is gathered are those that still move."""
    system, params, batch = slow_and_fast()
    x = batch.x.at[::2].set(jnp.nan)
    solve = ep.solvers.relaxation(tol=1e-10, max_steps=500, compact=True)
    found = ep.relax(system, params, x, solve)
    np.testing.assert_array_equal(found.converged, jnp.arange(BATCH) % 2 == 1)


def test_the_adjoint_is_compacted_too():
    system, params, batch = slow_and_fast()
    free = ep.relax(system, params, batch.x, ep.solvers.relaxation(tol=1e-11))
    exact = ep.estimators.recurrent_backprop(system, tol=1e-10)
    dense = ep.jacobian.dense(system, params, batch.x, free.rates)
    found = exact(params, batch, free, None)
    slopes = ep.dynamics.slopes(system, free.state)
    g = ep.dynamics.cost_gradient(system, params, batch.y)(free.rates)
    for index in range(0, BATCH, 7):
        one = jax.tree.map(lambda a, index=index: a[index], (slopes, g, found.error))
        slope, pull, error = (jax.flatten_util.ravel_pytree(part)[0] for part in one)
        matrix = dense[index].T - np.diag(1 / slope)
        np.testing.assert_allclose(np.linalg.solve(matrix, pull), error, rtol=1e-7)


def products(solve, system, x):
    """Returns the products in the compiled program: of a sweep, and all others."""
    params = system.init(jax.random.key(0), x)
    relax = jax.jit(lambda params, x: ep.relax(system, params, x, solve))
    return in_sweeps(relax.lower(params, x).compile().as_text())


def in_sweeps(text):
    """Returns the numbers of products in the loops of a program and outside."""
    lines = re.findall(r'= \S+ (?:dot|convolution)\(.*', text)
    lines = [line for line in lines if 'lhs_batch_dims' not in line]  # mixing has those
    inside = sum('while/body' in line for line in lines)
    return inside, len(lines) - inside


@pytest.mark.parametrize('name', ['relaxation', 'aitken', 'anderson'])
def test_no_product_is_taken_in_vain(name):
    """In the compiled program, of a chain of four layers that settle.

    A sweep takes each of the six products once, though every block asks for all of D,
    and what it leaves to move is told without another. Before the first sweep there is
    the drive of the input alone. Pooling makes a layer feed itself, by what it takes of
    the layer above: of three convolutional layers, with four products, a sweep in two
    blocks asks for that of the third layer once more.
    """
    solve = SOLVERS[name](tol=1e-3, max_steps=50, compact=False)
    chain = ep.systems.mlp((12, 9, 8, 7, 6, 3), feedback='free')
    assert products(solve, chain, jnp.ones((5, 12))) == (6, 1)
    images = ep.systems.conv((16, 16, 1), (3, 4, 5), classes=3, feedback='free')
    assert products(solve, images, jnp.ones((5, 16, 16, 1))) == (4 + 1, 1)


@pytest.mark.parametrize('correction', [None, 'adjoint'])
def test_nor_is_any_under_a_nudge(correction):
    """From the top down each synapse is asked once forward and once back.

    Outside of the sweeps: the injection of the batch, D at the free equilibrium, and
    the local rule's products; the corrected field knows D there without.
    """
    system = ep.systems.mlp((12, 9, 8, 7, 6, 3), feedback='free')
    x = jnp.ones((5, 12))
    params, batch = system.init(jax.random.key(0), x), ep.Batch(x, jnp.eye(5, 3))
    free = ep.relax(system, params, x, ep.solvers.relaxation())
    solve = ep.solvers.relaxation(compact=False)
    estimate = ep.estimators.contour(
        system,
        solve,
        contour=ep.nudges.symmetric(0.1),
        correction=correction,
        batched=True,
    )
    readout = 2  # of the cost's gradient, scores and back
    text = jax.jit(estimate).lower(params, batch, free, None).compile().as_text()
    assert in_sweeps(text)[0] == 6 + readout


@pytest.mark.parametrize(
    'method', quick(['iterative', 'aitken', 'anderson'], ['iterative'])
)
def test_errors_are_swept_against_the_synapses(method):
    """Of a feed-forward chain of four layers one sweep solves for the adjoint.

    The second one finds nothing left to move. In the order of the free phase each sweep
    would carry the error one layer down.
    """
    system = ep.systems.feedforward((7, 6, 6, 6, 5, 3))
    x = jax.random.normal(jax.random.key(0), (4, 7))
    batch = ep.Batch(x, jax.nn.one_hot(jnp.arange(4) % 3, 3))
    params = system.init(jax.random.key(1), x)
    free = ep.relax(system, params, x, ep.solvers.relaxation(tol=1e-10))
    exact = ep.estimators.recurrent_backprop(system, tol=1e-10, method=method)
    info = exact(params, batch, free, None).info
    assert (info.num_steps == 2).all()
    assert info.converged == 1
    solve = ep.solvers.relaxation(tol=1e-8)
    estimate = ep.estimators.contour(
        system,
        solve,
        contour=ep.nudges.complex_step(1e-3),
        correction='antisymmetric',
    )
    info = estimate(params, batch, free, None).info
    assert (info.num_steps <= 3).all()
