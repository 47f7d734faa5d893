"""Aitken's steps on systems whose every mode is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqprop_jax as ep
from eqprop_jax.solvers.aitken import LEAST, MOST, adapted

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


@pytest.mark.parametrize('scale', [1.0, 1e-3])
def test_layers_with_little_credit_have_their_say(scale):
    """The same two layers in other units take the same sweeps, nudged or not."""
    system = ep.systems.mlp((7, 6, 5, 3), feedback='free', angle=60.0)
    x = jax.random.normal(jax.random.key(0), (4, 7))
    batch = ep.Batch(x, jnp.eye(3)[jnp.arange(4) % 3])
    params = system.init(jax.random.key(1), x)
    free = ep.relax(system, params, x, ep.solvers.relaxation(tol=1e-10))
    steps = []
    for radius in (1e-4, 1e-4 * scale):
        estimate = ep.estimators.contour(
            system,
            ep.solvers.aitken(tol=1e-4),
            contour=ep.nudges.complex_step(radius),
            correction='antisymmetric',
        )
        steps.append(estimate(params, batch, free, None).info.num_steps)
    np.testing.assert_array_equal(*steps)
