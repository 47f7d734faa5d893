"""Fixed points against dense solves; every example for itself; one loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from tiers import quick

import eqprop_jax as ep
from eqprop_jax.types import Field


def linear_field(matrix, offset):
    """F(u) = offset + u Mᵀ − u on one layer."""
    return Field(
        drive=lambda u: {'layer': offset + u['layer'] @ matrix.T},
        rates=lambda u: u,
        blocks=(('layer',),),
    )


def contraction(n=6, radius=0.8, key=0):
    matrix = jax.random.normal(jax.random.key(key), (n, n))
    return radius * matrix / jnp.max(jnp.abs(jnp.linalg.eigvals(matrix)))


@pytest.mark.parametrize('options', [{}, {'step_size': 0.5}, {'order': 'synchronous'}])
@pytest.mark.parametrize('imaginary', [0.0, 0.3])
def test_linear_fixed_point_is_that_of_a_dense_solve(options, imaginary):
    matrix = contraction()
    offset = jax.random.normal(jax.random.key(1), (3, 6))
    offset = offset + 1j * imaginary * offset[:, ::-1] if imaginary else offset
    solve = ep.solvers.relaxation(tol=1e-13, max_steps=2000, **options)
    found = solve(linear_field(matrix, offset), {'layer': jnp.zeros_like(offset)})
    exact = np.linalg.solve(np.eye(6) - matrix, np.asarray(offset).T).T
    np.testing.assert_allclose(found.state['layer'], exact, atol=1e-11)
    assert found.converged.all()
    assert found.state['layer'].dtype == offset.dtype
    assert found.residual.dtype == jnp.float64


@pytest.mark.parametrize('animal', quick(zoo.ZOO, zoo.KINDS))
def test_orders_agree_and_the_residual_is_the_error(animal):
    """In the worst layer, and within a small factor: |u − u*| ≲ residual |u*|."""
    system, params, batch = zoo.setting(animal)
    injection = system.inject(params, batch.x)
    field = ep.dynamics.free_field(system, params, injection)

    @jax.jit
    def settle(start):
        return [
            ep.solvers.relaxation(
                order=order, step_size=step_size, tol=1e-6, max_steps=20000
            )(field, start)
            for order, step_size in (
                ('alternating', zoo.ZOO[animal].step_size),
                ('synchronous', 0.3),
            )
        ]

    start = system.rest(injection)
    exact = zoo.solver(animal, tol=1e-13)(field, start)
    for found in settle(start):
        assert found.converged.all()
        assert (found.residual <= 1e-6).all()
        for name, u in exact.state.items():
            gap, size = (
                jnp.linalg.norm(part.reshape(len(u), -1), axis=1)
                for part in (found.state[name] - u, u)
            )
            whole = ep.tree.per_example_norm(exact.state)  # beside a layer of zeros
            assert (gap <= 5e-6 * jnp.where(size > 1e-9, size, whole)).all()
        for name, rates in system.rates(found.state).items():
            np.testing.assert_allclose(found.rates[name], rates, rtol=1e-12)


@pytest.mark.parametrize('solver', [ep.solvers.relaxation, ep.solvers.anderson])
def test_examples_stop_for_themselves(solver):
    """Each example's result is that of a batch of its own, whoever its mates are."""
    system, params, batch = zoo.setting('tied')
    scale = jnp.array([0.0, 1.0, 5.0, 20.0])
    x = batch.x * scale[:, None]
    solve = jax.jit(lambda x: ep.relax(system, params, x, solver(tol=1e-3)))
    together = solve(x)
    assert len(set(together.num_steps.tolist())) > 1
    for index in range(len(x)):
        alone = solve(x[index : index + 1])
        assert alone.num_steps[0] == together.num_steps[index]
        for name, u in alone.state.items():
            np.testing.assert_allclose(u[0], together.state[name][index], rtol=1e-9)


def test_a_diverged_example_stops_and_says_so():
    field = linear_field(3.0 * jnp.eye(2), jnp.ones((3, 2)))
    start = {'layer': jnp.array([[-0.5, -0.5], [1.0, 1.0], [jnp.nan, 0.0]])}
    found = ep.solvers.relaxation(tol=1e-8, max_steps=2000)(field, start)
    assert found.converged.tolist() == [True, False, False]
    assert found.num_steps[0] == 1
    assert found.num_steps[1] < 700  # of 3^323 the square overflows float64
    assert found.num_steps[2] == 1
    assert np.isnan(found.residual[1:]).all()


def test_the_bound_on_steps_holds():
    found = ep.solvers.relaxation(tol=1e-12, max_steps=7)(
        linear_field(0.9 * jnp.eye(2), jnp.ones((2, 2))), {'layer': jnp.zeros((2, 2))}
    )
    assert found.num_steps.tolist() == [7, 7]
    assert not found.converged.any()


def test_alternating_settles_where_synchronous_cycles():
    """One unit a layer, tied by a weight of 3: both low and both high are stable.

    Synchronous updates are two interleaved alternating chains, one that starts with
    each layer. Here they end in different attractors, so the network flips forever.
    """
    system = ep.systems.mlp((1, 1, 1, 2), feedback='tied')
    x = jnp.zeros((1, 1))
    params = system.init(jax.random.key(1), x)
    params['layer_2'] = {'kernel': jnp.full((1, 1), 3.0), 'bias': jnp.full(1, -0.9)}
    alternating, synchronous = (
        ep.relax(system, params, x, ep.solvers.relaxation(order=order, max_steps=400))
        for order in ('alternating', 'synchronous')
    )
    assert alternating.converged.all()
    assert alternating.state['layer_1'][0, 0] == pytest.approx(2.995, abs=1e-3)
    assert not synchronous.converged.any()
    assert synchronous.residual[0] > 0.5


def test_a_small_imaginary_nudge_is_not_settled_at_once():
    """|F|/|u| is 1e-6 at the start; the imaginary part alone says what is missing."""
    field = linear_field(contraction(2), jnp.array([[1.0 + 1e-6j, 1.0 - 1e-6j]]))
    real = linear_field(contraction(2), jnp.array([[1.0, 1.0]]))
    solve = ep.solvers.relaxation(tol=1e-4, max_steps=500)
    start = solve(real, {'layer': jnp.zeros((1, 2))}).state['layer']
    found = solve(field, {'layer': start.astype(complex)}).state['layer']
    exact = np.linalg.solve(np.eye(2) - contraction(2), [1e-6, -1e-6])
    np.testing.assert_allclose(found.imag[0], exact, rtol=2e-3)


def test_clipping_is_a_projection_and_refuses_complex_states():
    field = linear_field(jnp.zeros((2, 2)), jnp.array([[3.0, -3.0]]))
    solve = ep.solvers.relaxation(clip=(0.0, 1.0), step_size=0.5, max_steps=9)
    found = solve(field, {'layer': jnp.zeros((1, 2))})
    np.testing.assert_array_equal(found.state['layer'], [[1.0, 0.0]])
    with pytest.raises(TypeError, match='clip.*not holomorphic.*symmetric'):
        solve(field, {'layer': jnp.zeros((1, 2), complex)})


def test_a_unit_held_at_a_bound_is_at_rest():
    field = linear_field(jnp.zeros((2, 2)), jnp.array([[3.0, 0.25]]))
    solve = ep.solvers.relaxation(clip=(0.0, 1.0), step_size=0.5, tol=1e-9)
    found = solve(field, {'layer': jnp.zeros((1, 2))})
    assert found.converged.all()
    np.testing.assert_allclose(found.state['layer'], [[1.0, 0.25]], rtol=1e-8)


@pytest.mark.parametrize(
    ('blocks', 'message'),
    [
        ((('hiden',), ('layer',)), "name the unknown 'hiden'"),
        ((('layer',), ('layer',)), "repeat 'layer'"),
        ((('other',),), "lack 'layer'"),
    ],
)
def test_blocks_that_do_not_partition_the_state_are_refused(blocks, message):
    field = linear_field(jnp.eye(2), jnp.ones((1, 2)))._replace(blocks=blocks)
    with pytest.raises(ValueError, match=message):
        ep.solvers.relaxation()(field, {'layer': jnp.zeros((1, 2))})


def test_a_plain_function_is_a_field():
    solve = ep.solvers.relaxation(tol=1e-12, step_size=0.5)
    found = solve(lambda u: 2.0 - 0.5 * u**2 - u, jnp.array([[0.0], [1.0]]))
    np.testing.assert_allclose(found.state, np.sqrt(5) - 1, rtol=1e-10)
    assert not solve(lambda u: u * jnp.nan, jnp.ones((1, 1))).converged.any()


def test_unrolled_takes_the_same_steps_as_a_plain_loop():
    system, params, batch = zoo.setting('free')
    injection = system.inject(params, batch.x)
    field = ep.dynamics.free_field(system, params, injection)
    start = system.rest(injection)
    solve = ep.solvers.unrolled(num_steps=5, step_size=0.7, keep_trajectory=True)
    found = jax.jit(lambda start: solve(field, start))(start)
    state, visited = start, [system.rates(start)]
    for _ in range(5):
        drive = system.drive(params, injection, system.rates(state))
        state = {k: u + 0.7 * (drive[k] - u) for k, u in state.items()}
        visited.append(system.rates(state))
    for name, u in state.items():
        np.testing.assert_allclose(found.state[name], u, rtol=1e-12)
        expected = np.stack([rates[name] for rates in visited])
        np.testing.assert_allclose(found.trajectory[name], expected, rtol=1e-12)
    assert found.num_steps.tolist() == [5] * zoo.BATCH
    relaxed = ep.solvers.relaxation(
        order='synchronous', step_size=0.7, tol=1e-300, max_steps=5
    )(field, start)
    for name, u in state.items():
        np.testing.assert_allclose(relaxed.state[name], u, rtol=1e-12)


def test_unrolled_is_differentiable():
    matrix = contraction()
    solve = ep.solvers.unrolled(num_steps=300)

    def total(offset):
        field = linear_field(matrix, offset)
        return jnp.sum(solve(field, {'layer': jnp.zeros((1, 6))}).state['layer'])

    gradient = jax.jit(jax.grad(total))(jnp.ones((1, 6)))
    exact = np.linalg.solve(np.eye(6) - np.asarray(matrix).T, np.ones(6))
    np.testing.assert_allclose(gradient[0], exact, rtol=1e-10)


@pytest.mark.parametrize('sizes', [(7, 6, 5, 3), (7, 6, 5, 4, 5, 3)])
def test_a_sweep_costs_one_evaluation_of_the_drive(sizes):
    """Matrix products in the compiled loop: each synapse once, nothing twice."""
    system = ep.systems.mlp(sizes, feedback='free')
    x = jnp.ones((4, sizes[0]))
    params = system.init(jax.random.key(0), x)
    injection = system.inject(params, x)

    def settle(params, injection, state):
        field = ep.dynamics.free_field(system, params, injection)
        return ep.solvers.relaxation()(field, state)

    lowered = jax.jit(settle).lower(params, injection, system.rest(injection))
    text = lowered.compile().as_text()
    bodies = [part for part in text.split('\n\n') if 'while' not in part.split('\n')[0]]
    products = max(
        sum(('dot(' in line or '__onednn$matmul' in line) for line in part.splitlines())
        for part in bodies
        if 'ENTRY' not in part
    )
    assert products == 2 * (len(sizes) - 3)


def test_program_size_does_not_grow_with_the_number_of_steps():
    system, params, batch = zoo.setting('free')

    def text(max_steps):
        solve = ep.solvers.relaxation(max_steps=max_steps)
        estimate = ep.estimators.contour(
            system, solve, contour=ep.nudges.circle(0.1, 4), correction='antisymmetric'
        )

        def run(params, batch):
            free = ep.relax(system, params, batch.x, solve)
            return estimate(params, batch, free, jax.random.key(0))

        return jax.jit(run).lower(params, batch).as_text()

    assert len(text(10)) == len(text(99))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'order': 'random'}, 'alternating, synchronous'),
        ({'tol': 0.0}, 'tol has to be positive'),
        ({'tol': float('nan')}, 'tol has to be positive'),
        ({'step_size': -0.1}, 'step_size has to be positive'),
        ({'max_steps': 0}, 'max_steps'),
        ({'clip': (1.0, 0.0)}, 'low < high'),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ep.solvers.relaxation(**options)
    with pytest.raises(ValueError, match='num_steps has to be a positive'):
        ep.solvers.unrolled(num_steps=0)
