"""Who feeds whom, against dense Jacobians; and the order in which a nudge arrives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from jax import lax

import eqprop_jax as ep
from eqprop_jax import _wiring as wiring


def blocks_of(J, rates):
    """{layer: the layers of which its rows of J are not zero}, for a batch of J."""
    J, sizes = np.asarray(J), {name: leaf[0].size for name, leaf in rates.items()}
    ends, end = {}, 0
    for name in sorted(rates):
        ends[name] = slice(end, end + sizes[name])
        end += sizes[name]
    return {
        a: frozenset(b for b in ends if np.any(J[:, ends[a], ends[b]] != 0))
        for a in ends
    }


@pytest.mark.parametrize('animal', list(zoo.ZOO))
def test_it_is_the_pattern_of_the_jacobian(animal):
    """Exactly so for networks; what puts all layers in one vector may claim more."""
    system, params, batch = zoo.setting(animal)
    injection = system.inject(params, batch.x)
    rates = system.rates(system.rest(injection))
    rates = jax.tree.map(lambda s: s + 0.3, rates)
    found = wiring.feeders(lambda s: system.drive(params, injection, s), rates)
    J = jax.jit(ep.jacobian.dense, static_argnums=0)(system, params, batch.x, rates)
    dense = blocks_of(J, rates)
    assert all(dense[name] <= found[name] for name in rates)
    if animal not in ('energy', 'primitive', 'conv_max'):  # zeros of J at a point
        assert dense == found
    back = ep.jacobian.linearize(system, params, injection, rates).transpose
    transposed = blocks_of(J.swapaxes(1, 2), rates)
    there = wiring.feeders(back, rates)
    assert all(transposed[name] <= there[name] for name in rates)


def test_the_cost_reads_the_last_layer():
    for animal, last in (('free', 'layer_2'), ('coding_tied', 'value_3')):
        system, params, batch = zoo.setting(animal)
        rates = system.rates(system.rest(system.inject(params, batch.x)))
        found = ep.dynamics.readers(system, params, batch.y, rates)
        assert len(found) == 1
        assert found <= {last, 'value_2'}


def test_branches_and_loops_are_taken_as_a_whole():
    def drive(s):
        one, two = lax.cond(
            jnp.sum(s['a']) > 0, lambda: (s['b'], s['b']), lambda: (s['c'], s['c'])
        )
        looped = lax.fori_loop(0, 3, lambda _, v: 2 * v, s['b'])
        return {'a': one, 'b': looped, 'c': jnp.zeros_like(two)}

    rates = dict.fromkeys('abc', jnp.ones((2, 3)))
    found = wiring.feeders(drive, rates)
    assert found['a'] == {'a', 'b', 'c'}
    assert found['b'] == {'b'}
    assert found['c'] == set()


def test_order_of_arrival():
    """A ring, read at c: against the ring it takes the long way round."""
    ring = {'a': {'c'}, 'b': {'a'}, 'c': {'b'}}
    assert wiring.outward(ring, {'c'}) == (('c',), ('a',), ('b',))
    against = {'a': {'b'}, 'b': {'c'}, 'c': {'a'}}
    assert wiring.outward(against, {'c'}) == (('c',), ('b',), ('a',))


def test_layers_at_one_distance_move_together_unless_they_touch():
    apart = {'top': set(), 'x': {'top'}, 'y': {'top'}, 'deaf': set()}
    assert wiring.outward(apart, {'top'}) == (('top',), ('x', 'y'))
    assert wiring.reached(apart, {'top'}) == ['top', 'x', 'y']
    touching = apart | {'y': {'top', 'x'}}
    assert wiring.outward(touching, {'top'}) == (('top',), ('x',), ('y',))


def test_names_do_not_matter():
    """The order is that of the synapses, whatever the layers are called."""
    system = ep.systems.mlp((7, 6, 5, 4, 3), feedback='free')
    x = jnp.ones((2, 7))
    params = system.init(jax.random.key(0), x)
    injection = system.inject(params, x)
    rates = system.rates(system.rest(injection))
    names = dict(zip(rates, ('zeta', 'alpha', 'mid'), strict=True))
    back = {new: old for old, new in names.items()}

    def drive(s):
        own = system.drive(params, injection, {back[k]: v for k, v in s.items()})
        return {names[k]: v for k, v in own.items()}

    renamed = {names[k]: v for k, v in rates.items()}
    found = wiring.outward(wiring.feeders(drive, renamed), {'mid'})
    assert found == (('mid',), ('alpha',), ('zeta',))
