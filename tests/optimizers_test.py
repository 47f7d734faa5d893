"""Optimizers against updates worked out by hand."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo

import eqprop_jax as ep
from eqprop_jax.training import optimizers

PARAMS = {
    'layer_1': {'kernel': jnp.array([[1.0, -2.0]]), 'bias': jnp.array([0.5, 0.25])},
    'readout': {'kernel': jnp.array([3.0])},
}
GRADS = jax.tree.map(lambda w: 0.1 * w + 0.3, PARAMS)


make = functools.partial(
    optimizers.make, 'sgd', learning_rate=0.5, num_steps=10, momentum=0.0
)
make_adam = functools.partial(optimizers.make, 'adam', learning_rate=0.5, num_steps=10)
make_adamw = functools.partial(
    optimizers.make, 'adamw', learning_rate=0.5, num_steps=10
)


def updates(optimizer, num=1):
    """The updates of some steps with constant gradient and params."""
    state = optimizer.init(PARAMS)
    for _ in range(num):
        update, state = optimizer.update(GRADS, state, PARAMS)
    return update


def rates(optimizer, num):
    """The learning rate of every step: minus the update of plain sgd by a one."""
    params = {'w': jnp.zeros(())}
    state, values = optimizer.init(params), []
    for _ in range(num):
        update, state = optimizer.update({'w': jnp.ones(())}, state, params)
        values.append(-float(update['w']))
    return values


def close(actual, wanted):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-12), actual, wanted)


class TestRules:
    def test_sgd(self):
        close(updates(make()), jax.tree.map(lambda g: -0.5 * g, GRADS))

    @pytest.mark.parametrize('layers', [None, {'readout': {'weight_decay': 0.0}}])
    def test_the_norm_of_the_whole_gradient_is_bounded(self, layers):
        norm = math.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(GRADS)))
        plain = updates(make())
        halved = updates(make(clip_norm=norm / 2, layers=layers))
        close(halved, jax.tree.map(lambda u: u / 2, plain))
        close(updates(make(clip_norm=2 * norm, layers=layers)), plain)

    def test_momentum_accumulates(self):
        # v = g, then g (1 + μ), then g (1 + μ + μ²)
        factor = -0.5 * (1 + 0.9 + 0.81)
        wanted = jax.tree.map(lambda g: factor * g, GRADS)
        close(updates(make(momentum=0.9), num=3), wanted)

    def test_weight_decay_of_sgd_goes_through_the_momentum(self):
        wanted = jax.tree.map(lambda g, w: -0.5 * 1.9 * (g + 0.2 * w), GRADS, PARAMS)
        close(updates(make(momentum=0.9, weight_decay=0.2), num=2), wanted)

    @pytest.mark.parametrize('decay', [0.0, 0.2])
    def test_first_step_of_adam_is_a_sign(self, decay):
        def wanted(g, w):
            g = g + decay * w
            return -0.5 * g / (jnp.abs(g) + 1e-8)

        close(
            updates(make_adam(weight_decay=decay)),
            jax.tree.map(wanted, GRADS, PARAMS),
        )

    def test_weight_decay_of_adamw_is_apart_from_the_gradient(self):
        def wanted(g, w):
            return -0.5 * (g / (jnp.abs(g) + 1e-8) + 0.2 * w)

        close(
            updates(make_adamw(weight_decay=0.2)),
            jax.tree.map(wanted, GRADS, PARAMS),
        )


class TestLayers:
    def test_a_layer_has_its_own_rate_and_decay(self):
        layers = {'readout': {'learning_rate': 0.01, 'weight_decay': 0.3}}
        actual = updates(make(weight_decay=0.1, layers=layers))
        wanted = jax.tree.map(lambda g, w: -0.5 * (g + 0.1 * w), GRADS, PARAMS)
        wanted['readout'] = jax.tree.map(
            lambda g, w: -0.01 * (g + 0.3 * w), GRADS['readout'], PARAMS['readout']
        )
        close(actual, wanted)

    def test_what_a_layer_does_not_say_is_as_for_the_others(self):
        actual = updates(make(layers={'layer_1': {'weight_decay': 1.0}}))
        wanted = jax.tree.map(lambda g: -0.5 * g, GRADS)
        wanted['layer_1'] = jax.tree.map(
            lambda g, w: -0.5 * (g + w), GRADS['layer_1'], PARAMS['layer_1']
        )
        close(actual, wanted)

    def test_the_schedule_holds_for_every_layer(self):
        optimizer = make(schedule='cosine', layers={'w': {'learning_rate': 2.0}})
        actual = rates(optimizer, 10)
        wanted = [1 + math.cos(math.pi * step / 10) for step in range(10)]
        np.testing.assert_allclose(actual, wanted, 1e-6)

    def test_rates_change_nothing_if_they_are_the_same(self):
        layers = {name: {'learning_rate': 0.5} for name in PARAMS}
        close(updates(make_adam(layers=layers), 3), updates(make_adam(), 3))


class TestPairs:
    @pytest.mark.parametrize(
        'animal', ['free', 'free_deep', 'leaky', 'conv_free', 'coding_free', 'loop']
    )
    def test_feedback_has_the_options_of_its_kernel(self, animal):
        """And where it has no partner, those of the layer that it is kept with."""
        system, params, _ = zoo.setting(animal)
        grads = jax.tree.map(jnp.ones_like, params)
        layers = {
            name: {'learning_rate': 0.1 * (index + 1), 'weight_decay': 0.3 * index}
            for index, name in enumerate(sorted(params))
        }
        optimizer = make(layers=layers, pairs=system.pairs)
        actual, _ = optimizer.update(grads, optimizer.init(params), params)
        owners = {feedback: forward[0] for forward, feedback, _ in system.pairs}
        assert bool(owners) == (animal != 'loop')
        for path, update in jax.tree_util.tree_leaves_with_path(actual):
            path = tuple(key.key for key in path)
            own = layers[owners.get(path, path[0])]
            wanted = 1 + own['weight_decay'] * ep.tree.get(params, path)
            np.testing.assert_allclose(update, -own['learning_rate'] * wanted, 1e-12)

    def test_rate_and_decay_are_state(self):
        """Whoever changes them there changes the next step, but for the layers' own."""
        system, params, _ = zoo.setting('free')
        optimizer = optimizers.make(
            'sgd',
            learning_rate=1.0,
            weight_decay=0.5,
            num_steps=3,
            momentum=0.0,
            layers={'layer_2': {'learning_rate': 2.0, 'weight_decay': 0.0}},
            pairs=system.pairs,
        )
        grads, state = jax.tree.map(jnp.ones_like, params), optimizer.init(params)
        assert set(state.hyperparams) == {'learning_rate', 'weight_decay'}
        changed = {'learning_rate': jnp.float64(3), 'weight_decay': jnp.float64(0.25)}
        state = state._replace(hyperparams=state.hyperparams | changed)
        actual, _ = optimizer.update(grads, state, params)
        kernel = params['layer_1']['kernel']
        np.testing.assert_allclose(actual['layer_1']['kernel'], -3 * (1 + kernel / 4))
        assert set(np.unique(actual['layer_2']['kernel'])) == {-2.0}
        assert set(np.unique(actual['layer_1']['feedback'])) == {-2.0}


class TestSchedules:
    def test_constant(self):
        np.testing.assert_allclose(rates(make(), 12), 0.5)

    def test_cosine_ends_at_zero(self):
        wanted = [0.25 * (1 + math.cos(math.pi * step / 8)) for step in range(8)]
        optimizer = make(num_steps=8, schedule='cosine')
        np.testing.assert_allclose(rates(optimizer, 8), wanted, 1e-6)
        np.testing.assert_allclose(rates(optimizer, 9)[-1], 0, atol=1e-12)

    def test_warmup_rises_to_the_rate_and_the_cosine_has_the_rest(self):
        optimizer = make(num_steps=12, schedule='cosine', warmup_steps=4)
        rise = [0.125, 0.25, 0.375, 0.5]
        fall = [0.25 * (1 + math.cos(math.pi * step / 8)) for step in range(8)]
        np.testing.assert_allclose(rates(optimizer, 12), rise + fall, 1e-6, atol=1e-12)

    def test_warmup_before_a_constant_rate(self):
        optimizer = make(warmup_steps=2)
        np.testing.assert_allclose(rates(optimizer, 5), [0.25, 0.5, 0.5, 0.5, 0.5])

    def test_the_first_step_of_a_warmup_of_one_is_at_the_rate(self):
        plain = make(schedule='cosine', num_steps=9)
        warm = make(schedule='cosine', num_steps=10, warmup_steps=1)
        np.testing.assert_allclose(rates(warm, 10), [0.5, *rates(plain, 9)])

    @pytest.mark.parametrize('schedule', optimizers.SCHEDULES)
    def test_warmup_may_fill_the_run(self, schedule):
        optimizer = make(num_steps=4, warmup_steps=4, schedule=schedule)
        np.testing.assert_allclose(rates(optimizer, 4), [0.125, 0.25, 0.375, 0.5])


class TestErrors:
    @pytest.mark.parametrize(
        ('options', 'message'),
        [
            ({'schedule': 'step'}, "no schedule 'step'; choose from constant, cosine"),
            ({'learning_rate': 0.0}, 'learning_rate has to be finite and positive'),
            ({'learning_rate': math.nan}, 'learning_rate .* not nan'),
            ({'learning_rate': math.inf}, 'learning_rate .* not inf'),
            ({'weight_decay': -0.1}, 'weight_decay .* at least 0, not -0.1'),
            ({'momentum': 1.0}, 'momentum lies from 0 to below 1, not 1.0'),
            ({'momentum': math.nan}, 'momentum'),
            ({'warmup_steps': 11}, 'warmup_steps .* 10 steps of the run, not 11'),
            ({'warmup_steps': -1}, 'warmup_steps .* not -1'),
            ({'layers': {'a': {'rate': 1.0}}}, r'layers\.a\.rate; choose from learn'),
            (
                {'layers': {'a': {'learning_rate': 0.0}}},
                r'layers\.a\.learning_rate .* positive, not 0',
            ),
            (
                {'layers': {'a': {'weight_decay': -1.0}}},
                r'layers\.a\.weight_decay .* not -1',
            ),
        ],
    )
    def test_values(self, options, message):
        with pytest.raises(ValueError, match=message):
            make(**options)

    def test_unknown_name(self):
        with pytest.raises(ValueError, match="'lamb'; choose from sgd, adam, adamw"):
            optimizers.make('lamb', learning_rate=0.5, num_steps=10)

    def test_a_layer_that_is_not_there(self):
        optimizer = make(layers={'layer_7': {'weight_decay': 0.1}})
        with pytest.raises(ValueError, match=r'layer_7 .*from layer_1, readout'):
            optimizer.init(PARAMS)
