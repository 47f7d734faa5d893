"""Small systems with known properties: one table, and tests over all of it.

A new system is covered by the conformance tests once it has a line here.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

import eqprop_jax as ep

BATCH = 4
INPUTS = 7
CLASSES = 3
IMAGE = (4, 4, 2)


class Animal(NamedTuple):
    """A system and what is known of it."""

    make: Callable[[], ep.System]
    symmetric: bool  # up to the signs of its signature
    step_size: float = 1.0
    contraction: bool = True  # whether undamped synchronous sweeps settle
    inputs: tuple[int, ...] = (INPUTS,)
    self_feeding: bool = False  # whether the layers of a block feed one another
    cousin: bool = False  # of another: estimators see little that they do not see there


def quartic_energy(params, x, state):
    """A double layer with a bilinear coupling and a quartic well."""
    below, above = state['below'], state['output']
    drive = x @ params['in']
    coupling = jnp.sum((below @ params['couple']) * above, axis=1)
    wells = jnp.sum(below**2 / 2 + below**4 / 8, axis=1)
    wells += jnp.sum(above**2 / 2 + above**4 / 8, axis=1)
    return wells - coupling - jnp.sum(drive * below, axis=1)


def cubic_primitive(params, x, rates):
    """A Hopfield network with lateral and three-way couplings: J depends on s."""
    hidden, output = rates['hidden'], rates['output']
    lateral = params['lateral'] + params['lateral'].T
    phi = jnp.sum((x @ params['in']) * hidden, axis=1)
    phi += 0.5 * jnp.sum((hidden @ lateral) * hidden, axis=1)
    phi += jnp.sum((hidden @ params['up']) * output, axis=1)
    return phi + 0.2 * jnp.sum(hidden**2 @ params['up'] * output, axis=1)


def gated_drive(params, injection, rates):
    """A recurrent network with multiplicative gates: no symmetry, J depends on s."""
    hidden, output = rates['hidden'], rates['output']
    gate = 1 + 0.5 * output @ params['gate']
    return {
        'hidden': injection + gate * (hidden @ params['lateral']),
        'output': hidden @ params['up'] + 0.1 * output**2,
    }


def value_and_error_drive(params, injection, state):
    """Predictive coding with feedback of its own: values v and errors e, no rates.

    dv_l/dt = −e_l + f′(v_l) ⊙ (e_{l+1} B_l),   de_l/dt = v_l − f(v_{l−1}) W_l − e_l
    """
    v, v_out, e, e_out = (state[name] for name in ('v', 'v_out', 'e', 'e_out'))
    gate = 1 - jnp.tanh(v) ** 2
    return {
        'e': 0.5 * (v - injection),
        'e_out': 0.5 * (v_out - jnp.tanh(v) @ params['up']),
        'v': v - e + gate * (e_out @ params['back']),
        'v_out': v_out - e_out,
    }


def _weights(shapes):
    def init(rng, x):
        keys = jax.random.split(rng, len(shapes))
        return {
            name: jax.random.normal(key, shape, x.dtype) / jnp.sqrt(2.0 * shape[0])
            for key, (name, shape) in zip(keys, shapes.items(), strict=True)
        }

    return init


def _rest(*layers):
    def rest(injection):
        return {
            name: jnp.zeros((injection.shape[0], n), injection.dtype)
            for name, n in layers
        }

    return rest


def energy():
    return ep.systems.from_energy(
        quartic_energy,
        init=_weights({'in': (INPUTS, 5), 'couple': (5, CLASSES)}),
        rest=_rest(('below', 5), ('output', CLASSES)),
    )


def primitive():
    return ep.systems.from_primitive(
        cubic_primitive,
        init=_weights({'in': (INPUTS, 5), 'lateral': (5, 5), 'up': (5, CLASSES)}),
        rest=_rest(('hidden', 5), ('output', CLASSES)),
        activation='tanh',
    )


def drive():
    return ep.systems.from_drive(
        gated_drive,
        init=_weights(
            {
                'in': (INPUTS, 5),
                'lateral': (5, 5),
                'up': (5, CLASSES),
                'gate': (CLASSES, 5),
            }
        ),
        inject=lambda params, x: x @ params['in'],
        rest=_rest(('hidden', 5), ('output', CLASSES)),
        activation='tanh',
    )


def predictive():
    return ep.systems.from_drive(
        value_and_error_drive,
        init=_weights({'in': (INPUTS, 5), 'up': (5, CLASSES), 'back': (CLASSES, 5)}),
        inject=lambda params, x: jnp.tanh(x @ params['in']),
        rest=_rest(('e', 5), ('e_out', CLASSES), ('v', 5), ('v_out', CLASSES)),
        activation='identity',
    )


def _damped(system):
    """Weights at a third of their size: unbounded rates would run away."""

    def init(rng, x):
        return jax.tree.map(lambda w: w / 3, system.init(rng, x))

    return system._replace(init=init)


def _conv(channels=(3, 4), **options):
    options = {'kernels': (3, 2)[: len(channels)], **options}
    return lambda: ep.systems.conv(IMAGE, channels, classes=CLASSES, **options)


def _coding(**options):
    return lambda: ep.systems.predictive_coding((INPUTS, 5, 4, CLASSES), **options)


def _mlp(sizes=(INPUTS, 6, 5, CLASSES), **options):
    return lambda: ep.systems.mlp(sizes, **options)


ZOO = {
    'tied': Animal(_mlp(feedback='tied'), symmetric=True),
    'tied_squared_error': Animal(
        _mlp(feedback='tied', cost='squared_error', activation='tanh'),
        symmetric=True,
        cousin=True,
    ),
    'free': Animal(_mlp(feedback='free'), symmetric=False),
    'free_deep': Animal(
        _mlp((INPUTS, 6, 5, 4, 5, CLASSES), feedback='free', angle=60.0),
        symmetric=False,
        cousin=True,
    ),
    'free_dsilu': Animal(
        _mlp(feedback='free', activation='dsilu', cost='squared_error'),
        symmetric=False,
        cousin=True,
    ),
    'free_hard_sigmoid': Animal(
        _mlp(feedback='free', activation='hard_sigmoid'), symmetric=False
    ),
    'tied_relu': Animal(
        lambda: _damped(_mlp(feedback='tied', activation='relu')()), symmetric=True
    ),
    'feedforward': Animal(
        lambda: ep.systems.feedforward((INPUTS, 6, 5, CLASSES)), symmetric=False
    ),
    'one_layer': Animal(
        _mlp((INPUTS, 6, CLASSES), feedback='tied'), symmetric=True, cousin=True
    ),
    'loop': Animal(lambda: ep.systems.loop((INPUTS, 6, 5, CLASSES)), symmetric=False),
    'primitive': Animal(primitive, symmetric=True, contraction=False),
    'energy': Animal(energy, symmetric=True, step_size=0.5, contraction=False),
    'drive': Animal(drive, symmetric=False),
    'predictive': Animal(predictive, symmetric=False, step_size=0.5, contraction=False),
    'conv_tied': Animal(
        _conv(), symmetric=True, inputs=IMAGE, self_feeding=True, cousin=True
    ),
    'conv_free': Animal(
        _conv(feedback='free', angle=90.0),
        symmetric=False,
        inputs=IMAGE,
        self_feeding=True,
    ),
    'conv_max': Animal(
        _conv(pooling='max', activation='hard_sigmoid'), symmetric=True, inputs=IMAGE
    ),
    'conv_dense': Animal(
        _conv(
            (3,),
            paddings='VALID',
            pooling=None,
            hidden=(5,),
            feedback='free',
            cost='squared_error',
        ),
        symmetric=False,
        inputs=IMAGE,
        cousin=True,
    ),
    'leaky': Animal(
        lambda: ep.systems.leaky((INPUTS, 6, 5, CLASSES)), symmetric=False, cousin=True
    ),
    'coding_tied': Animal(
        lambda: _damped(_coding()()),
        symmetric=True,
        step_size=0.5,
        contraction=False,
        self_feeding=True,
    ),
    'coding_free': Animal(
        lambda: _damped(_coding(feedback='free', angle=45.0)()),
        symmetric=False,
        step_size=0.5,
        contraction=False,
        self_feeding=True,
        cousin=True,
    ),
}


KINDS = [name for name, animal in ZOO.items() if not animal.cousin]


def setting(name, dtype=jnp.float64):
    """Returns the animal's system, params and a batch, from fixed keys."""
    system = ZOO[name].make()
    x_key, y_key, init_key = jax.random.split(jax.random.key(sum(map(ord, name))), 3)
    x = jax.random.uniform(x_key, (BATCH, *ZOO[name].inputs), dtype)
    labels = jax.random.randint(y_key, (BATCH,), 0, CLASSES)
    batch = ep.Batch(x, jax.nn.one_hot(labels, CLASSES, dtype=dtype))
    params = jax.jit(system.init)(init_key, x)
    return system, jax.tree.map(lambda w: w.astype(dtype), params), batch


def watched(system, params, injection, seen):
    """Returns the free field, which adds the rows of each evaluation to `seen`."""

    def drive(injection, rates):
        jax.debug.callback(lambda: seen.append(len(injection)))
        return system.drive(params, injection, rates)

    return ep.types.Field(
        drive=jax.tree_util.Partial(drive, injection),
        rates=system.rates,
        blocks=system.blocks,
    )


def solver(name, tol=1e-12, max_steps=5000):
    """Returns a solver under which the animal settles."""
    return ep.solvers.relaxation(
        step_size=ZOO[name].step_size, tol=tol, max_steps=max_steps
    )
