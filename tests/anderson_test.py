"""Anderson mixing against dense solves and plain relaxation, and where plain fails."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from solvers_test import contraction, linear_field
from tiers import quick

import eqprop_jax as ep
from eqprop_jax.solvers._mixing import PATIENCE, solve_positive


def mixed(**options):
    return ep.solvers.anderson(**{'tol': 1e-12, 'max_steps': 3000, **options})


CASES = [(animal, 'alternating') for animal in zoo.ZOO]
CASES += [(name, 'synchronous') for name, kind in zoo.ZOO.items() if not kind.cousin]


@pytest.mark.parametrize(('animal', 'order'), quick(CASES, CASES[::4]))
def test_the_equilibrium_is_that_of_plain_relaxation(animal, order):
    system, params, batch = zoo.setting(animal)
    step_size = zoo.ZOO[animal].step_size
    steps = {'order': order, 'step_size': step_size}

    @jax.jit
    def settle():
        return (
            ep.relax(system, params, batch.x, mixed(**steps)),
            ep.relax(system, params, batch.x, zoo.solver(animal)),
        )

    found, plain = settle()
    assert found.converged.all()
    assert plain.converged.all()
    for name, u in plain.state.items():
        np.testing.assert_allclose(found.state[name], u, atol=1e-8)


def test_where_synchronous_sweeps_cycle_it_settles():
    """A tied network whose undamped synchronous sweeps swing between two states."""
    system, params, batch = zoo.setting('primitive')
    plain = ep.relax(
        system,
        params,
        batch.x,
        ep.solvers.relaxation(order='synchronous', tol=1e-12, max_steps=3000),
    )
    assert not plain.converged.all()
    assert plain.residual.max() > 0.5
    found = ep.relax(system, params, batch.x, mixed(order='synchronous'))
    assert found.converged.all()
    assert found.num_steps.max() < 100
    settled = ep.relax(system, params, batch.x, zoo.solver('primitive'))
    for name, u in settled.state.items():
        np.testing.assert_allclose(found.state[name], u, atol=1e-8)


@pytest.mark.parametrize('imaginary', [0.0, 1e-6])
def test_of_a_linear_map_it_takes_as_many_sweeps_as_dimensions(imaginary):
    """Where G is affine the steps are those of GMRES, which ends after n of them."""
    matrix, dimensions = contraction(6, radius=0.95), 6
    offset = jax.random.normal(jax.random.key(1), (3, 6))
    offset = offset + 1j * imaginary * offset[:, ::-1] if imaginary else offset
    solve = mixed(depth=dimensions, regularization=0.0, tol=1e-9)
    found = solve(linear_field(matrix, offset), {'layer': jnp.zeros_like(offset)})
    exact = np.linalg.solve(np.eye(6) - matrix, np.asarray(offset).T).T
    for part in (np.real, np.imag):
        np.testing.assert_allclose(
            part(found.state['layer']),
            part(exact),
            atol=1e-7 * np.abs(part(exact)).max(),
        )
    assert found.state['layer'].dtype == offset.dtype
    alone = 2 + PATIENCE  # sweeps before the first step is mixed
    assert found.num_steps.max() <= alone + dimensions * (2 if imaginary else 1)
    plain = ep.solvers.relaxation(tol=1e-9, max_steps=3000)(
        linear_field(matrix, offset), {'layer': jnp.zeros_like(offset)}
    )
    assert plain.num_steps.min() > 200


@pytest.mark.parametrize('radius', [1e-5, 0.2])
def test_complex_nudges_settle_where_plain_relaxation_does(radius):
    system, params, batch = zoo.setting('tied')
    free = ep.relax(system, params, batch.x, mixed())
    contour = ep.nudges.circle(radius, 4, half_step=True)
    errors = [
        jax.jit(ep.estimators.contour(system, solve, contour=contour))(
            params, batch, free, None
        ).error
        for solve in (mixed(tol=1e-10), zoo.solver('tied', tol=1e-12))
    ]
    for name, error in errors[1].items():
        np.testing.assert_allclose(errors[0][name], error, rtol=1e-6, atol=1e-9)


def test_an_unstable_equilibrium_does_not_attract():
    """u ← 2u − u³/8 moves away from 0, towards √8; the secant would go back."""
    field = ep.types.Field(
        drive=lambda u: {'layer': 2 * u['layer'] - u['layer'] ** 3 / 8},
        rates=lambda u: u,
        blocks=(('layer',),),
    )
    start = {'layer': jnp.array([[1e-3], [-1e-3]])}
    found = mixed(depth=1)(field, start)
    np.testing.assert_allclose(found.state['layer'], [[8**0.5], [-(8**0.5)]], rtol=1e-9)


def test_bounds_hold_and_precision_is_kept():
    field = ep.types.Field(
        drive=lambda u: {'layer': 1 + 3 * u['layer'][:, ::-1]},
        rates=lambda u: u,
        blocks=(('layer',),),
    )
    start = {'layer': jnp.full((2, 2), 0.5, jnp.float32)}
    found = mixed(clip=(0.0, 1.0), tol=1e-6)(field, start)
    assert found.converged.all()
    np.testing.assert_array_equal(found.state['layer'], 1)
    assert found.state['layer'].dtype == jnp.float32


def test_elimination_is_a_dense_solve():
    rows = jax.random.normal(jax.random.key(0), (7, 5, 6))
    matrix = rows @ jnp.swapaxes(rows, 1, 2)
    right = jax.random.normal(jax.random.key(1), (7, 5))
    np.testing.assert_allclose(
        solve_positive(matrix, right),
        np.linalg.solve(matrix, right[..., None])[..., 0],
        rtol=1e-9,
    )


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'depth': 0}, 'depth has to be a positive integer, not 0'),
        ({'regularization': -1.0}, 'regularization has to be finite and not negative'),
        ({'tol': 0.0}, 'tol has to be positive'),
        ({'order': 'random'}, "no order 'random'"),
    ],
)
def test_what_is_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ep.solvers.anderson(**options)
