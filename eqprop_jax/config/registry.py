"""The parts of a run, by the names that the sections of a configuration give them.

A section names one part by its key `name` and holds the arguments of its constructor.
One of an estimator that nudges also names a contour by its key `contour`, and holds the
arguments of that: `radius` is |β|, and β itself, with its sign, of 'one_sided'.

What builds a part takes a section without `problems`, and raises ConfigError, naming
the section, where the constructor refuses a value.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from absl import logging

from eqprop_jax import estimators, nudges, solvers, systems
from eqprop_jax.config import schema
from eqprop_jax.nudges import Contour
from eqprop_jax.types import Estimator, Solver, System


class Part(NamedTuple):
    """A constructor, and what it needs beside the values of its section."""

    make: Callable[..., Any]
    needs: tuple[str, ...] = ()
    """Arguments that the build gives it, and no section may hold."""
    inherits: tuple[str, ...] = ()
    """Keys that are those of nudged_solver where its section has none."""
    calls: Mapping[str, str] = MappingProxyType({})
    """What it calls the keys that it has another name for."""

    @property
    def keys(self) -> schema.Keys:
        """What its section may hold."""
        found = schema.keys(self.make, self.needs)
        for key, argument in self.calls.items():
            found[key] = found.pop(argument)
        return found


SYSTEM = ('system',)
NUDGED = (*SYSTEM, 'solve', 'contour', 'axis_name')
RADIUS = {'radius': 'beta'}

SYSTEMS = {
    'conv': Part(systems.conv),
    'mlp': Part(systems.mlp),
    'loop': Part(systems.loop),
    'feedforward': Part(systems.feedforward),
    'leaky': Part(systems.leaky),
    'predictive_coding': Part(systems.predictive_coding),
}
SOLVERS = {
    'relaxation': Part(solvers.relaxation),
    'aitken': Part(solvers.aitken),
    'anderson': Part(solvers.anderson),
    'unrolled': Part(solvers.unrolled),
}
CONTOURS = {
    'circle': Part(nudges.circle),
    'complex_step': Part(nudges.complex_step),
    'one_sided': Part(nudges.one_sided, calls=RADIUS),
    'random_sign': Part(nudges.random_sign, calls=RADIUS),
    'symmetric': Part(nudges.symmetric, calls=RADIUS),
}
ESTIMATORS = {
    'bptt': Part(estimators.bptt, SYSTEM, ('step_size', 'clip')),
    'contour': Part(estimators.contour, NUDGED),
    'contrastive': Part(estimators.contrastive, NUDGED),
    'oscillation': Part(estimators.oscillation, SYSTEM, ('order', 'step_size', 'clip')),
    'recurrent_backprop': Part(estimators.recurrent_backprop, SYSTEM, ('step_size',)),
    'tangent': Part(estimators.tangent, SYSTEM, ('step_size',)),
}
TABLES = {
    'system': SYSTEMS,
    'solver': SOLVERS,
    'nudged_solver': SOLVERS,
    'estimator': ESTIMATORS,
}
NUDGE_KEYS = {'contour', *(key for part in CONTOURS.values() for key in part.keys)}


def problems(section: str, values: Mapping[str, Any]) -> list[str]:
    """Returns what is wrong with a section that names a part, in a message each.

    Keys that only other parts take are not wrong, so that a method can be switched by
    its name alone.

    Args:
      section: a key of `TABLES`.
      values: what it holds.
    """
    table = TABLES[section]
    others = {key for part in table.values() for key in part.keys}
    keys, found = _named(section, 'name', table, values.get('name'))
    if table is ESTIMATORS:
        others |= NUDGE_KEYS
        if not found and 'contour' in table[values['name']].needs:
            name = values.get('contour', 'circle')
            nudge, found = _named(section, 'contour', CONTOURS, name)
            keys |= nudge
    return found + schema.problems(section, values, keys, others)


def system(values: Mapping[str, Any]) -> System:
    """Builds a system, and warns of feedback that may leave it without equilibrium."""
    feedback, pooling = values.get('feedback'), values.get('pooling')
    idle = feedback in ('tied', 'none') and 'feedback' in SYSTEMS[values['name']].keys
    if idle and values.get('angle') is not None:
        logging.warning('system.feedback=%r does not use: angle', feedback)
        values = {**values, 'angle': None}
    poolings = pooling if isinstance(pooling, tuple | list) else (pooling,)
    if feedback == 'free' and 'max' in poolings:
        logging.warning(
            'system.pooling="max" jumps between units: with system.feedback="free" '
            'many examples may have no equilibrium, at any step size; with "softmax" '
            'pooling or "tied" feedback they have'
        )
    return _make('system', SYSTEMS, values)


def solver(section: str, values: Mapping[str, Any]) -> Solver:
    """Builds a solver, from the section 'solver' or 'nudged_solver'."""
    return _make(section, SOLVERS, values)


def contour(values: Mapping[str, Any]) -> Contour:
    """Builds the contour of an estimator's section; a circle where it names none."""
    nudge = {key: value for key, value in values.items() if key in NUDGE_KEYS}
    return _make('estimator', CONTOURS, {'contour': 'circle'} | nudge, 'contour')


def estimator(
    system: System,
    solve: Solver,
    values: Mapping[str, Any],
    axis_name: str | None = None,
) -> Estimator:
    """Builds an estimator.

    Args:
      system: what moves.
      solve: relaxes the nudged phases.
      values: its section.
      axis_name: as in `estimators.contour`; others do not use it.
    """
    needs = ESTIMATORS[values['name']].needs
    given: dict[str, Any] = {'system': system, 'solve': solve, 'axis_name': axis_name}
    if 'contour' in needs:
        given['contour'] = contour(values)
        values = {key: value for key, value in values.items() if key not in NUDGE_KEYS}
    return _make(
        'estimator', ESTIMATORS, values, **{need: given[need] for need in needs}
    )


def inherited(
    estimator: Mapping[str, Any], nudged_solver: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns an estimator's section with the keys that it has from nudged_solver's."""
    keys = ESTIMATORS[estimator['name']].inherits
    own = {key: nudged_solver[key] for key in keys if key in nudged_solver}
    return own | dict(estimator)


def _named(
    section: str, key: str, table: Mapping[str, Part], name: Any
) -> tuple[schema.Keys, list[str]]:
    """Returns the keys that come with a name, itself among them, and what is wrong."""
    keys = {key: schema.key(Any, None)}
    if isinstance(name, str) and name in table:
        return keys | table[name].keys, []
    return keys, [f'{section}.{key}={name!r}: choose from {", ".join(table)}']


def _make(
    section: str,
    table: Mapping[str, Part],
    values: Mapping[str, Any],
    name_key: str = 'name',
    **given: Any,
) -> Any:
    """Builds the part that a section names, and logs the keys that it does not take."""
    others = dict(values)
    name = others.pop(name_key)
    part = table[name]
    taken = {
        part.calls.get(key, key): others.pop(key) for key in part.keys if key in others
    }
    unused = [key for key, value in others.items() if value is not None]
    if unused:
        logging.warning('%s %r does not use: %s', section, name, ', '.join(unused))
    with schema.naming('.'.join((section, *part.calls))):
        return part.make(**taken, **given)
