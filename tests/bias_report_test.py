"""What a report says of a cause, where the cause is known."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import zoo

import eqprop_jax as ep
from eqprop_jax.analysis._causes import sentence
from eqprop_jax.analysis.methods import Method, contour_method

pytestmark = pytest.mark.whole


def one(system, params, batch, method, solve, settled=None):
    """What is said of one method."""
    found = ep.analysis.bias(
        system, params, batch, solve, settled=settled, methods={'it': method}
    )
    return found.methods['it']


TIGHT = ep.solvers.relaxation(tol=1e-12, max_steps=3000)


def test_sentence_on_settling():
    known = oracle.of('tied')
    loose = ep.solvers.relaxation(tol=0.1, max_steps=3000)
    method = contour_method(
        known.system, loose, TIGHT, contour=ep.nudges.symmetric(0.02)
    )
    found = one(known.system, known.params, known.batch, method, loose, TIGHT)
    assert found.settling['total'] > 10 * max(
        found.nudge['total'], found.asymmetry['total']
    )
    assert 'phases that have not settled' in found.sentence
    assert 'smaller tol' in found.sentence
    errors = {name: found.error[name] for name in ('layer_1', 'layer_2')}
    worst = max(errors, key=errors.get)
    cosine = found.cosine[worst]
    assert found.worst == (worst, errors[worst], cosine)
    assert f'δ of {worst}, the worst layer' in found.sentence
    for value in (errors[worst], found.error['total']):
        assert f'{100 * value:.3g} %' in found.sentence


def test_sentence_on_the_nudge():
    known = oracle.of('tied')
    method = contour_method(known.system, TIGHT, contour=ep.nudges.one_sided(0.5))
    found = one(known.system, known.params, known.batch, method, TIGHT)
    assert found.settling['total'] == 0
    assert found.asymmetry['total'] < 1e-8
    assert found.nudge['total'] == pytest.approx(found.error['total'])
    assert 'by the finite nudge; a smaller radius' in found.sentence


def test_sentence_on_asymmetry_and_on_nothing():
    system, params, batch = zoo.setting('free')
    params = ep.alignment.rotate_feedback(system, params, jax.random.key(0), 90.0)
    made = {
        'plain': contour_method(system, TIGHT, contour=ep.nudges.circle(0.05, 4)),
        'corrected': contour_method(
            system,
            TIGHT,
            contour=ep.nudges.circle(0.05, 4),
            correction='antisymmetric',
        ),
        'exact': Method(ep.estimators.recurrent_backprop(system, tol=1e-8), True),
        'tangent': Method(ep.estimators.tangent(system, tol=1e-8), False),
    }
    found = ep.analysis.bias(system, params, batch, TIGHT, methods=made)
    assert found.angles['overall'] == pytest.approx(90)
    for name in ('plain', 'tangent'):
        said = found.methods[name]
        share = f'symmetric share {found.symmetric_share:.2f}'
        assert f'by the asymmetry of the Jacobian ({share})' in said.sentence
        assert 'the antisymmetric correction removes it' in said.sentence
        assert said.asymmetry['total'] > 0.1
        assert said.cosine['total'] < 0.99
    for name in ('corrected', 'exact'):
        said = found.methods[name]
        assert said.sentence.endswith('of recurrent backprop, nothing to mend.')
        assert said.asymmetry['total'] == 0
        assert said.cosine['total'] == pytest.approx(1, abs=1e-6)
    assert found.methods['exact'].error['total'] < 1e-6
    text = json.loads(json.dumps(ep.analysis.as_dict(found)))
    assert text['methods']['plain']['worst'] == found.methods['plain'].worst._asdict()
    assert text['methods']['plain']['sentence'] == found.methods['plain'].sentence
    assert text['asymmetry'] == found.asymmetry


@pytest.mark.parametrize('beta', [-0.9, -3.0])
def test_sentence_on_divergence(beta):
    """Units that are pushed away from their targets as fast as they run."""
    system, params, batch = oracle.linear()
    solve = ep.solvers.relaxation(order='synchronous', tol=1e-10, max_steps=3000)
    method = contour_method(system, solve, contour=ep.nudges.one_sided(beta))
    found = one(system, params, batch, method, solve)
    assert found.unsettled == 1
    assert '100 % of the examples do not settle' in found.sentence
    assert 'a smaller radius' in found.sentence
    assert not found.error['total'] < 1


def test_the_dominant_cause_is_named():
    causes = {'settling': 0.02, 'nudge': 0.3, 'asymmetry': 0.1}

    def said(low):
        return sentence('it', 'low', {'low': low, 'total': 0.05}, causes, 0.7)

    assert said(0.4).startswith(
        'it: δ of low, the worst layer, is 40 % off recurrent backprop (5 % in all), '
        'most of it (30 %) by the finite nudge'
    )
    assert 'nothing to mend' in said(0.009)
    assert 'δ of low is not finite' in said(float('nan'))
    assert 'δ of low is 3e+04 times its length off' in said(3e4)


def test_a_layer_that_the_cost_does_not_see():
    """Its error vector is zero, and so are the gradients of what leads there."""
    system = ep.systems.from_drive(
        lambda params, x, rates: {
            'deaf': x @ params['aside'],
            'seen': x + 0.5 * rates['seen'] @ params['J'],
        },
        init=lambda rng, x: {},
        rest=lambda x: {'deaf': jnp.zeros_like(x), 'seen': jnp.zeros_like(x)},
        activation='identity',
    )
    params = {'J': jnp.array([[0.5, 0.3], [-0.2, 0.5]]), 'aside': jnp.eye(2)}
    batch = ep.Batch(jnp.array([[1.0, -0.5]]), jnp.eye(2)[:1])
    method = contour_method(system, TIGHT, contour=ep.nudges.symmetric(0.01))
    found = one(system, params, batch, method, TIGHT)
    assert np.isnan(found.cosine['deaf'])
    assert found.cosine['seen'] > 0.9


def test_a_network_that_settles_by_small_steps_only():
    """Every phase settles with ε = 0.3; to blame the radius is wrong."""
    system, _, batch = oracle.linear()
    params = {'J': jnp.array([[-2.0, 0.3], [0.3, -1.5]])}
    solve = ep.solvers.relaxation(step_size=0.3, tol=1e-10, max_steps=3000)
    method = contour_method(system, solve, contour=ep.nudges.symmetric(0.01))
    found = one(system, params, batch, method, solve)
    assert found.unsettled == 0
    assert found.error['total'] < 1e-4
    assert 'nothing to mend' in found.sentence


def test_a_deaf_layer_is_named():
    """All of its δ is missing; the whole, ruled by the top layer, is as it was."""
    system = ep.systems.mlp((6, 5, 4, 3), feedback='tied', cost='cross_entropy')
    x = jax.random.uniform(jax.random.key(0), (7, 6))
    params = system.init(jax.random.key(1), x)
    params['layer_2'] = jax.tree.map(lambda w: 0.05 * w, params['layer_2'])
    batch = ep.Batch(x, jax.nn.one_hot(jnp.arange(7) % 3, 3))
    exact = ep.estimators.recurrent_backprop(system, tol=1e-12)

    def deaf(params, batch, free, rng):
        found = exact(params, batch, free, rng)
        zeros = ep.tree.zeros_like
        return found._replace(
            error=found.error | {'layer_1': zeros(found.error['layer_1'])},
            grads=found.grads | {'layer_1': zeros(found.grads['layer_1'])},
        )

    found = one(system, params, batch, Method(deaf, True), TIGHT)
    assert (found.worst.layer, found.worst.error) == ('layer_1', 1.0)
    assert found.error['layer_2'] < 1e-9
    assert min(found.cosine['total'], found.gradient_cosine['total']) > 0.99
    assert 'δ of layer_1, the worst layer, is 100 % off' in found.sentence
    free = ep.relax(system, params, x, TIGHT)
    grads = exact(params, batch, free, None).grads
    low, top = (
        sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(grads[name]))
        for name in ('layer_1', 'layer_2')
    )
    wanted = np.sqrt(top / (low + top))
    assert found.gradient_cosine['without_readout'] == pytest.approx(wanted, rel=1e-6)
    assert found.gradient_norm_ratio['without_readout'] == pytest.approx(wanted, 1e-6)
    assert found.gradient_cosine['total'] > found.gradient_cosine['without_readout']
