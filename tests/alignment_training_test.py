"""Kolen–Pollack in training: the law of a run's weights, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs
from runs import run_chunk

import eqprop_jax as ep
from eqprop_jax.config import ConfigError
from eqprop_jax.training.state import init_state

MOMENTUM = 0.7
SGD = {'optimizer.name': 'sgd', 'optimizer.learning_rate': 0.05}


def difference(params):
    """W − Bᵀ."""
    return np.asarray(params['layer_2']['kernel'] - params['layer_1']['feedback'].T)


def experiment(changes):
    """A run in float64 on the digits."""
    built = runs.experiment({**SGD, 'alignment.kolen_pollack': True, **changes})
    return built._replace(preprocess=lambda images: images.astype(jnp.float64) / 16)


@pytest.mark.whole
@pytest.mark.parametrize(
    ('layers', 'rate', 'decay'),
    [
        ({}, 0.05, 0.2),
        ({'layer_1': {'learning_rate': 0.02, 'weight_decay': 0.1}}, 0.05, 0.2),
        ({'layer_2': {'learning_rate': 0.02, 'weight_decay': 0.5}}, 0.02, 0.5),
    ],
)
def test_in_training_the_law_holds(layers, rate, decay):
    """With rate and decay of the layer of W, not of that in which B is kept."""
    run = experiment(
        {
            'optimizer.weight_decay': 0.2,
            'optimizer.momentum': MOMENTUM,
            'optimizer.layers': layers,
        }
    )
    law, first = [1.0, 1.0], difference(init_state(run).params)
    for num_steps in range(1, 4):
        law.append((1 + MOMENTUM - rate * decay) * law[-1] - MOMENTUM * law[-2])
        end, _ = run_chunk(run, init_state(run), 0, 0, num_steps)
        np.testing.assert_allclose(
            difference(end.params), law[-1] * first, rtol=1e-10, atol=1e-14
        )


def test_a_training_step_by_hand():
    """Plain SGD: θ − η (g + λθ), the gradients of the pair summed in numpy."""
    changes = {'optimizer.weight_decay': 0.2, 'optimizer.momentum': 0.0}
    shared, own = (
        experiment({**changes, 'alignment.kolen_pollack': flag})
        for flag in (True, False)
    )
    (mine, _), (theirs, _) = (
        run_chunk(run, init_state(run), 0, 0, 1) for run in (shared, own)
    )
    start = init_state(own).params
    grads = jax.tree.map(
        lambda w, moved: np.asarray((w - moved) / 0.05 - 0.2 * w), start, theirs.params
    )
    total = grads['layer_2']['kernel'] + grads['layer_1']['feedback'].T
    grads['layer_2']['kernel'], grads['layer_1']['feedback'] = total, total.T
    jax.tree.map(
        lambda w, g, moved: np.testing.assert_allclose(
            moved, w - 0.05 * (g + 0.2 * w), rtol=1e-9, atol=1e-13
        ),
        start,
        grads,
        mine.params,
    )
    apart = mine.params['layer_2']['kernel'] - theirs.params['layer_2']['kernel']
    assert np.abs(apart).max() > 1e-5


@pytest.mark.whole
def test_homeostasis_acts_on_each_weight_by_itself():
    """Shared or not, the gradient has the penalty's of its own; alone it aligns."""
    gradients = {}
    for shared in (True, False):
        for weight in (0.0, 0.5):
            run = experiment(
                {'alignment.kolen_pollack': shared, 'homeostasis.weight': weight}
            )
            start = init_state(run)
            end, _ = run_chunk(run, init_state(run), 0, 0, 1)
            gradients[shared, weight] = ep.tree.scale(
                -1 / 0.05, ep.tree.sub(end.params, start.params)
            )
    of_penalty = {
        shared: ep.tree.sub(gradients[shared, 0.5], gradients[shared, 0.0])
        for shared in (True, False)
    }
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12),
        *of_penalty.values(),
    )
    gap = difference(start.params)
    fall = difference(of_penalty[True])
    assert np.vdot(gap, fall) > 0.5 * np.linalg.norm(gap) * np.linalg.norm(fall) > 0.01


@pytest.mark.whole
def test_homeostasis_aligns_as_well_with_shared_gradients():
    """‖W − Bᵀ‖ falls as it does without; by the decay alone it would stay."""
    ends = {}
    for shared, weight in ((True, 0.0), (True, 20.0), (False, 20.0)):
        run = experiment(
            {'alignment.kolen_pollack': shared, 'homeostasis.weight': weight}
        )
        end, _ = run_chunk(run, init_state(run), 0, 0, 4)
        ends[shared, weight] = np.linalg.norm(difference(end.params))
    first = np.linalg.norm(difference(init_state(run).params))
    assert ends[True, 0.0] == pytest.approx(first, rel=1e-9)
    assert ends[True, 20.0] < 0.6 * first
    assert ends[True, 20.0] == pytest.approx(ends[False, 20.0], rel=0.1)


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'optimizer.name': 'adam', 'optimizer.weight_decay': 1e-3}, '"adamw"'),
        ({'system.feedback': 'tied'}, 'system.feedback="free"'),
        ({'system.name': 'loop'}, 'paired weights'),
        ({'alignment.kolen_pollack': 1}, 'alignment.kolen_pollack'),
    ],
)
def test_configurations_that_are_refused(changes, said):
    loop = changes.get('system.name') == 'loop'
    config = runs.config(
        {**SGD, 'alignment.kolen_pollack': True, **changes},
        without='system.feedback' if loop else None,
    )
    with pytest.raises(ConfigError, match='alignment.kolen_pollack') as raised:
        ep.config.experiment(config)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ('optimizer', 'warns'),
    [
        ({'name': 'sgd', 'weight_decay': 1e-3}, False),
        ({'name': 'adamw', 'weight_decay': 1e-3}, False),
        ({'name': 'adam'}, True),
        ({'name': 'sgd', 'layers': {'readout': {'learning_rate': 1.0}}}, True),
        ({'name': 'sgd', 'layers': {'layer_1': {'weight_decay': 0.1}}}, True),
        ({'name': 'sgd', 'layers': {'layer_2': {'weight_decay': 0.1}}}, False),
    ],
)
def test_configurations_that_are_not_refused(optimizer, warns, caplog):
    """Without a decay nothing dies out, which is said and not refused."""
    changes = {'optimizer': {'learning_rate': 1e-3, **optimizer}}
    for alignment in ({'kolen_pollack': False}, {}):
        assert not runs.experiment(changes | {'alignment': alignment}).kolen_pollack
    assert 'does not die out' not in caplog.text
    changes['alignment'] = {'kolen_pollack': True}
    assert runs.experiment(changes).kolen_pollack
    assert ('does not die out' in caplog.text) == warns
