"""Aitken's steps on systems whose every mode is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqprop_jax as ep
from eqprop_jax.solvers._aitken import LEAST, MOST, adapted

MODES = (-3.5, -1.5, -0.98, -0.5, 0.3, 0.5)


def settle(factors, solve):
    """Settles u ← λ u + 1, example by example with a λ of its own."""
    factors = jnp.asarray(factors)[:, None]
    field = ep.types.Field(
        drive=lambda rates: {'u': factors * rates['u'] + 1}, rates=lambda u: u
    )
    return solve(field, {'u': jnp.zeros((len(factors), 3))})


@pytest.mark.parametrize('mode', MODES)
def test_a_single_mode_is_found_by_the_second_sweep(mode):
    """ω = 1/(1 − λ) is exact then; the next sweeps tell it.

    Plain sweeps with ε = 1 diverge for two of these, and take 1,000 for a third.
    """
    end = settle([mode], ep.solvers.aitken(tol=1e-9))
    assert end.converged.all()
    assert end.num_steps <= 7
    np.testing.assert_allclose(end.state['u'], 1 / (1 - mode), rtol=1e-9)


def test_every_example_has_steps_of_its_own():
    together = settle(MODES, ep.solvers.aitken(tol=1e-9))
    for index, mode in enumerate(MODES):
        alone = settle([mode], ep.solvers.aitken(tol=1e-9))
        assert alone.num_steps == together.num_steps[index]
        np.testing.assert_array_equal(alone.state['u'][0], together.state['u'][index])


def test_an_unstable_mode_is_not_settled():
    end = settle([1.02, 1.5], ep.solvers.aitken(tol=1e-6, max_steps=200))
    assert not end.converged.any()


def test_the_step_is_the_secant_of_all_layers():
    """Against the formula written out, layers relative to their sizes."""
    rng = np.random.default_rng(0)
    before, f = ([rng.normal(size=(2, n)) for n in (5, 3)] for _ in range(2))
    f[0] *= 0.3
    sizes = [rng.uniform(1, 9, 2), rng.uniform(1, 9, 2)]
    omega = np.array([1.0, 0.7])
    found = adapted(*jax.tree.map(jnp.asarray, (omega, before, f, sizes)))
    for example in range(2):
        last, now = (
            np.concatenate(
                [layer[example] / s[example] for layer, s in zip(v, sizes, strict=True)]
            )
            for v in (before, f)
        )
        change = now - last
        expected = -omega[example] * (last @ change) / (change @ change)
        assert LEAST < expected < MOST
        np.testing.assert_allclose(found[example], expected, rtol=1e-12)


def test_the_first_step_is_the_one_asked_for():
    end = settle([0.5], ep.solvers.aitken(step_size=0.25, max_steps=1))
    np.testing.assert_allclose(end.state['u'], 0.25)


def test_layers_count_relative_to_their_size():
    """In other units of one of them the same steps are taken."""
    steps = []
    for scale in (1.0, 1e-3, 1e3):
        offset = jnp.array([[scale], [scale]])
        field = ep.types.Field(
            drive=lambda rates, offset=offset: {
                'a': 0.8 * rates['a'] + offset,
                'b': -0.9 * rates['b'] + 1,
            },
            rates=lambda u: u,
        )
        start = {'a': jnp.zeros((2, 1)), 'b': jnp.zeros((2, 1))}
        end = ep.solvers.aitken(tol=1e-8)(field, start)
        assert end.converged.all()
        steps.append(end.num_steps.tolist())
    assert steps[0] == steps[1] == steps[2]


def test_a_small_first_step_lowers_the_bound():
    end = settle([-12.0], ep.solvers.aitken(step_size=0.1, tol=1e-9))
    assert end.converged.all()
    np.testing.assert_allclose(end.state['u'], 1 / 13, rtol=1e-8)


def test_a_layer_may_come_to_rest_at_zero():
    """As a clipped one does that is driven below its bound."""
    field = ep.types.Field(
        drive=lambda rates: {'a': 1 + 0 * rates['a'], 'b': 0.5 - 2 * rates['a']},
        rates=lambda u: u,
    )
    start = {'a': jnp.zeros((1, 1)), 'b': jnp.ones((1, 1))}
    for make in (ep.solvers.relaxation, ep.solvers.aitken, ep.solvers.anderson):
        end = make(order='synchronous', clip=(0.0, 1.0))(field, start)
        assert end.converged.all()
        assert (end.state['a'], end.state['b']) == (1, 0)
