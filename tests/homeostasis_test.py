"""Homeostasis against dense matrices: means, variances, parts by layer, a fraction."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import runs
import zoo
from jax.flatten_util import ravel_pytree
from tally import BATCH, SIZE, tally
from tiers import quick

import eqprop_jax as ep
from eqprop_jax.config import ConfigError
from eqprop_jax.data import to_device
from eqprop_jax.training import programs
from eqprop_jax.training import step as steps
from eqprop_jax.training.state import init_state

RNG = jax.random.key(11)
FORMS = ['difference', 'published']
ASYMMETRIC = ['free', 'loop', 'drive']


def dense_penalty(known, params):
    """‖J − Jᵀ‖²/2n, the mean over the batch, differentiable in θ at fixed rates."""
    J = ep.jacobian.dense(known.system, params, known.batch.x, known.free.rates)
    asymmetry = J - J.swapaxes(1, 2)
    return jnp.mean(jnp.sum(asymmetry**2, axis=(1, 2))) / (2 * J.shape[-1])


@functools.cache
def draws(animal, form, num_probes, count):
    """Values and gradients [count], [count, p] of the penalty, one key each."""
    known = oracle.of(animal)
    penalty = ep.homeostasis.penalty(known.system, num_probes=num_probes, form=form)

    def one(key):
        value, grads = jax.value_and_grad(penalty)(
            known.params, known.batch, known.free, key
        )
        return value, ravel_pytree(grads)[0]

    values, grads = jax.jit(jax.vmap(one))(jax.random.split(RNG, count))
    return np.asarray(values), np.asarray(grads)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('animal', quick(ASYMMETRIC, ['free']))
def test_penalty_and_its_gradient_are_unbiased(animal, form):
    """The mean over many probes is ‖J − Jᵀ‖²/2n and its gradient, within the noise."""
    known = oracle.of(animal)
    asymmetry = known.J - known.J.swapaxes(1, 2)
    mean = np.mean(np.sum(asymmetry**2, axis=(1, 2))) / (2 * known.J.shape[-1])
    values, grads = draws(animal, form, 20, 500)
    assert abs(values.mean() - mean) < 4 * values.std() / np.sqrt(len(values))
    exact = jax.jit(jax.grad(lambda params: dense_penalty(known, params)))(known.params)
    noise = grads.std(axis=0) / np.sqrt(len(grads))
    gap = abs(grads.mean(axis=0) - ravel_pytree(exact)[0])
    assert (gap <= 5 * noise + 1e-12).all()
    assert np.linalg.norm(noise) < 0.1 * ep.tree.norm(exact)


def unit_drive():
    """An asymmetric network whose inputs and gates are singular at zeros."""

    def drive(params, x, rates):
        s = rates['u']
        gate = s / jnp.linalg.norm(x @ params['in'], axis=1, keepdims=True)
        return {'u': x @ params['in'] + jnp.tanh(gate @ params['J'])}

    return ep.systems.from_drive(
        drive,
        init=lambda rng, x: {
            'in': jax.random.normal(rng, (zoo.INPUTS, zoo.CLASSES), x.dtype),
            'J': 0.3 * jax.random.normal(rng, (zoo.CLASSES, zoo.CLASSES), x.dtype),
        },
        inject=lambda params, x: x / jnp.linalg.norm(x, axis=1, keepdims=True),
        rest=lambda x: {'u': jnp.zeros((len(x), zoo.CLASSES), x.dtype)},
        activation='tanh',
    )


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('why', quick(['filler', 'nan', 'inf', 'residual'], ['nan']))
def test_what_is_left_out_has_no_influence(form, why):
    """Value and gradient are those of the batch without it; of none they are 0."""
    system = unit_drive()
    _, _, batch = zoo.setting('free')
    params = system.init(RNG, batch.x)
    penalty = jax.value_and_grad(ep.homeostasis.penalty(system, form=form))
    free = ep.relax(system, params, batch.x, zoo.solver('free'))
    which = jnp.array([0, 1, 2, 2, 3])
    rows = jnp.array([0, 1, 7, 2, 3])
    batch_of_five = ep.Batch(batch.x[which], batch.y[which], rows)
    free_of_five = ep.tree.take(free, which)
    if why == 'filler':
        x = batch_of_five.x.at[2].set(0)
        batch_of_five = ep.Batch(x, batch_of_five.y, rows.at[2].set(-1))
    elif why == 'residual':
        residual = free_of_five.residual.at[2].set(1.01)
        free_of_five = free_of_five._replace(residual=residual)
    else:
        rates = {'u': free_of_five.rates['u'].at[2].set(jnp.array(float(why)))}
        converged = free_of_five.converged.at[2].set(False)
        free_of_five = free_of_five._replace(rates=rates, converged=converged)
    value, grads = jax.jit(penalty)(params, batch_of_five, free_of_five, RNG)
    wanted, wanted_grads = penalty(params, batch, free, RNG)
    np.testing.assert_allclose(value, wanted, rtol=1e-12)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14),
        grads,
        wanted_grads,
    )
    assert ep.tree.norm(wanted_grads) > 1e-3
    alone = jax.tree.map(lambda leaf: leaf[2:3], (batch_of_five, free_of_five))
    value, grads = penalty(params, *alone, RNG)
    assert value == ep.tree.norm(grads) == 0


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('animal', quick(ASYMMETRIC, ['free']))
def test_variance_is_the_measured_one(animal, form):
    """Of one draw; that of a batch's mean is the mean of the examples' over B."""
    known = oracle.of(animal)
    exact = ep.homeostasis.variance(jnp.asarray(known.J), form)
    assert exact.shape == (zoo.BATCH,)
    values = draws(animal, form, 1, 20000)[0]
    expected = float(jnp.mean(exact)) / zoo.BATCH
    moment = np.mean((values - values.mean()) ** 4) / values.var() ** 2
    noise = np.sqrt((moment - 1) / len(values))
    assert noise < 0.04
    assert values.var() == pytest.approx(expected, rel=4 * noise)


@pytest.mark.parametrize('form', FORMS)
def test_noise_is_what_other_draws_measure(form):
    """Mean, spread and the gradient's noise to signal, for one draw an example."""
    known = oracle.of('free')
    found = jax.jit(
        lambda: ep.homeostasis.noise(
            *known[:4], jax.random.key(1), form=form, num_draws=4000
        )
    )()
    exact = jax.jit(jax.grad(lambda params: dense_penalty(known, params)))(known.params)
    exact = np.asarray(ravel_pytree(exact)[0])
    spread = np.mean(np.sum((draws('free', form, 1, 20000)[1] - exact) ** 2, axis=1))
    noise = np.sqrt(spread) / np.linalg.norm(exact)
    value = float(dense_penalty(known, known.params))
    assert found['value'] == pytest.approx(value, rel=0.05)
    variance = np.mean(ep.homeostasis.variance(jnp.asarray(known.J), form))
    assert found['std'] == pytest.approx(np.sqrt(variance / zoo.BATCH), rel=0.1)
    assert found['gradient'] == pytest.approx(noise, rel=0.05)


def test_variance_is_that_of_the_quadratic_form():
    """Var[εᵀQε] = 2 ‖Q‖² for symmetric Q, each form's Q read off from its definition.

    And the theorem: they differ by 2 ‖SA − AS‖²/n², so not at symmetry nor for A alone.
    """
    rng = np.random.default_rng(1)
    n = 6
    M = rng.normal(size=(3, n, n))
    M[1], M[2] = M[1] + M[1].T, M[2] - M[2].T
    T = M.swapaxes(1, 2)
    difference = (M - T).swapaxes(1, 2) @ (M - T) / (2 * n)
    published = (T @ M - M @ M) / n
    published = (published + published.swapaxes(1, 2)) / 2
    S, A = (M + T) / 2, (M - T) / 2
    found = {}
    for form, Q in (('difference', difference), ('published', published)):
        found[form] = ep.homeostasis.variance(jnp.asarray(M), form)
        wanted = 2 * np.sum(Q**2, axis=(1, 2))
        np.testing.assert_allclose(found[form], wanted, rtol=1e-12, atol=1e-14)
    squares = [np.sum(part**2, axis=(1, 2)) for part in (A @ A, S @ A - A @ S)]
    np.testing.assert_allclose(
        found['difference'], 8 * squares[0] / n**2, rtol=1e-12, atol=1e-14
    )
    excess = found['published'] - found['difference']
    np.testing.assert_allclose(excess, 2 * squares[1] / n**2, rtol=1e-11, atol=1e-13)
    assert excess[0] > 1
    np.testing.assert_allclose(excess[1:], 0, atol=1e-12)
    with pytest.raises(ValueError, match='difference, published'):
        ep.homeostasis.variance(jnp.asarray(M), 'trace')


def test_forms_of_the_penalty_at_symmetry():
    """Both vanish with every draw; the gradient of the published one does not."""
    system, params, batch = zoo.setting('free')
    params = ep.alignment.rotate_feedback(system, params, RNG, 0.0)
    free = ep.relax(system, params, batch.x, zoo.solver('free'))
    for form in FORMS:
        penalty = ep.homeostasis.penalty(system, num_probes=1, form=form)
        value, grads = jax.jit(jax.value_and_grad(penalty))(params, batch, free, RNG)
        assert abs(value) < 1e-12
        noise = ep.tree.norm(grads)
        assert (noise < 1e-6) if form == 'difference' else (noise > 1e-2)
    with pytest.raises(ValueError, match='difference, published'):
        ep.homeostasis.penalty(system, form='trace')
    with pytest.raises(ValueError, match='num_probes'):
        ep.homeostasis.penalty(system, num_probes=0)


def test_homeostasis_draws_feedback_to_the_transpose():
    """Gradient descent on the penalty alone ends at symmetry: angle zero."""
    known = oracle.of('free')
    system, params = known.system, known.params
    penalty = ep.homeostasis.penalty(system)
    gradient = jax.jit(
        jax.grad(lambda p, key: penalty(p, known.batch, known.free, key))
    )
    before = ep.alignment.angles(system, params)['layer_1/feedback']
    for key in jax.random.split(RNG, 200):
        params = jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient(params, key))
    after = ep.alignment.angles(system, params)['layer_1/feedback']
    assert before > 60
    assert after < 1e-3


@pytest.mark.typed
@pytest.mark.parametrize(
    'animal',
    quick(['tied', 'primitive', 'free', 'free_deep', 'loop'], ['tied', 'free']),
)
def test_parts_by_layer_are_those_of_dense_blocks(animal):
    """‖J_ab − (J_ba)ᵀ‖²/2n of every two layers, a mean over the batch, and the sum."""
    known = oracle.of(animal)
    count, groups = 100, 50

    @jax.jit
    @functools.partial(jax.vmap, in_axes=0)
    def draw(key):
        return ep.homeostasis.by_layer(
            known.system,
            known.params,
            known.batch.x,
            known.free.rates,
            key,
            num_probes=count,
        )

    found = draw(jax.random.split(RNG, groups))
    layers, n = known.free.rates, known.J.shape[-1]
    ends = np.cumsum([0, *(leaf.shape[1] for leaf in layers.values())])
    spans = {name: slice(*ends[index : index + 2]) for index, name in enumerate(layers)}
    assert list(found) == list(layers)
    squares = (known.J - known.J.swapaxes(1, 2)) ** 2
    total = 0.0
    for a, rows in spans.items():
        for b, columns in spans.items():
            exact = squares[:, rows, columns].sum(axis=(1, 2)).mean() / (2 * n)
            values = np.asarray(found[a][b])
            noise = values.std() / np.sqrt(groups)
            assert abs(values.mean() - exact) <= 4 * noise + 1e-13
            assert noise <= 0.02 * exact + 1e-13
            total += values.mean()
    L_homeo = squares.sum(axis=(1, 2)).mean() / (2 * n)
    assert total == pytest.approx(L_homeo, rel=0.02, abs=1e-12)
    symmetric = zoo.ZOO[animal].symmetric
    assert (L_homeo < 1e-12) if symmetric else (L_homeo > 0.01)


@pytest.mark.whole
def test_a_fraction_of_the_steps_has_the_same_mean():
    """Zero on the others, divided by p on these, with the very draws of the penalty."""
    known = oracle.of('free')
    penalty = ep.homeostasis.penalty(known.system, num_probes=20)
    fn = jax.value_and_grad(penalty)
    keys = jax.random.split(RNG, 2000)

    def gather(fraction):
        def one(key):
            args = (known.params, known.batch, known.free)
            value, grads = steps._on_a_fraction(fn, fraction, key, args)
            return value, ravel_pytree(grads)[0]

        values, grads = jax.jit(lambda keys: jax.lax.map(one, keys))(keys)
        return np.asarray(values), np.asarray(grads)

    always, always_grads = gather(1.0)
    values, grads = gather(0.25)
    assert (always > 0).all()
    on = values > 0
    np.testing.assert_array_equal(values[~on], 0)
    np.testing.assert_array_equal(grads[~on], 0)
    assert abs(on.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / len(keys))
    exact = float(dense_penalty(known, known.params))
    assert values[on].mean() == pytest.approx(4 * exact, rel=0.02)
    assert values.mean() == pytest.approx(exact, rel=0.2)
    noise = grads.std(axis=0) / np.sqrt(len(keys))
    gap = abs(grads.mean(axis=0) - always_grads.mean(axis=0))
    assert (gap <= 5 * noise + 1e-12).all()
    assert np.abs(always_grads.mean(axis=0)).max() > 20 * noise.max()


def test_a_fraction_of_training_steps():
    """A step moves by −λ/p times the slope or not at all, each in its turn."""
    slope, seen = np.arange(float(SIZE)), []
    run = tally(
        penalty=lambda params, *_: jnp.vdot(slope, params['seen'] + 1),
        penalty_weight=0.5,
        penalty_fraction=0.25,
    )
    chunk = programs.make_train_chunk(run)
    state, split = init_state(run), to_device(run.dataset.train)
    for index in range(60):
        before = np.asarray(state.params['seen'])
        position = (jnp.int32(index // 4), jnp.int32(index % 4), jnp.int32(1))
        state, told = chunk(state, split, *position)
        moved = np.asarray(state.params['seen']) - before
        seen.append(bool(told.metrics['homeostasis']))
        if seen[-1]:
            penalty = 4 * np.vdot(slope, before + 1)
            assert told.metrics['homeostasis'] == pytest.approx(penalty)
            moved += 4 * 0.5 * slope
        # what is left is the tally of the batch
        np.testing.assert_allclose(np.sort(moved)[-BATCH:], 1, atol=1e-9)
        np.testing.assert_allclose(np.sort(moved)[:-BATCH], 0, atol=1e-9)
    assert 5 <= sum(seen) <= 27  # 15 ± 3.4


@pytest.mark.parametrize(
    ('fraction', 'said'),
    [(0.0, 'above 0'), (-0.5, 'above 0'), (1.5, 'up to 1'), ('half', 'number')],
)
def test_fractions_that_are_refused(fraction, said):
    changes = {'homeostasis.weight': 1.0, 'homeostasis.fraction': fraction}
    with pytest.raises(ConfigError, match=f'homeostasis.fraction.*{said}'):
        runs.experiment(changes)


def test_the_fraction_of_a_configuration_reaches_the_run():
    built = runs.experiment({'homeostasis.weight': 0.5, 'homeostasis.fraction': 0.25})
    assert (built.penalty_weight, built.penalty_fraction) == (0.5, 0.25)
    assert runs.experiment({'homeostasis.weight': 0.5}).penalty_fraction == 1.0
    assert runs.experiment({'homeostasis.fraction': 0.25}).penalty is None
