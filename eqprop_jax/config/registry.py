"""The parts of a run by the names that a configuration gives them, and all its keys.

A section names one part by its key `name` and holds the arguments of its constructor.
One of an estimator that nudges also names a contour by its key `contour`, and holds the
arguments of that: `radius` is |β|, and β itself, with its sign, of 'one_sided'.

What builds a part takes a section that `checked` has let pass; what its constructor
refuses is a ConfigError that names the section.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import logging

from eqprop_jax import _precision as precision
from eqprop_jax import estimators, homeostasis, nudges, solvers, systems
from eqprop_jax.config import schema
from eqprop_jax.data import _augment as augment
from eqprop_jax.data import _pipeline as pipeline
from eqprop_jax.data import _sources as sources
from eqprop_jax.nudges import Contour
from eqprop_jax.training import mesh, optimizers
from eqprop_jax.types import Estimator, Solver, System


class Part:
    """A constructor, and what it needs beside the values of its section."""

    def __init__(
        self, make: Callable[..., Any], *needs: str, inherits: tuple = (), **calls: str
    ):
        """Takes what `make` needs from the build, and so in no section.

        Keys that it inherits are those of nudged_solver where its section has none;
        those that it calls by another name are given with that.
        """
        self.make, self.needs, self.inherits, self.calls = make, needs, inherits, calls
        self.keys = schema.keys(make, needs)
        for key, argument in calls.items():
            self.keys[key] = self.keys.pop(argument)

    def built(self, section: str, values: Mapping[str, Any], **given: Any) -> Any:
        """Returns what it makes of the values that it takes, and what it is given."""
        taken = {
            self.calls.get(key, key): values[key] for key in self.keys if key in values
        }
        with schema.naming('.'.join((section, *self.calls))):
            return self.make(**taken, **given)


NUDGED = ('system', 'solve', 'contour', 'axis_name')
STEP = ('step_size',)

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
    'one_sided': Part(nudges.one_sided, radius='beta'),
    'random_sign': Part(nudges.random_sign, radius='beta'),
    'symmetric': Part(nudges.symmetric, radius='beta'),
}
ESTIMATORS = {
    'bptt': Part(estimators.bptt, 'system', inherits=(*STEP, 'clip')),
    'contour': Part(estimators.contour, *NUDGED),
    'contrastive': Part(estimators.contrastive, *NUDGED),
    'oscillation': Part(
        estimators.oscillation, 'system', inherits=('order', *STEP, 'clip')
    ),
    'recurrent_backprop': Part(estimators.recurrent_backprop, 'system', inherits=STEP),
    'tangent': Part(estimators.tangent, 'system', inherits=STEP),
}
LOADER, NORMALIZER = Part(sources.load), Part(pipeline.normalizer, 'dataset')
AUGMENTATION = Part(augment.augmentation)
PENALTY = Part(homeostasis.penalty, 'system')
OPTIMIZER = Part(optimizers.make, 'num_steps', 'pairs')
MESH = Part(mesh.make)
NAMED = {  # by section, what its keys name
    'system': {'name': SYSTEMS},
    'solver': {'name': SOLVERS},
    'nudged_solver': {'name': SOLVERS},
    'estimator': {'name': ESTIMATORS, 'contour': CONTOURS},
}

SECTIONS = (
    *('data', 'system', 'solver', 'nudged_solver', 'estimator'),
    *('homeostasis', 'alignment', 'optimizer', 'diagnostics'),
)
TOP_LEVEL = ('seed', 'batch_size', 'num_epochs', 'log_every_steps', 'eval_every_steps')
DEFAULTS: dict[str, Any] = {  # of keys that older configurations lack
    'accumulation_steps': 1,
    'precision': 'float32',
    'convolution': None,
    'mesh': {},
    'plugins': (),
}
COUNT, NOT_NEGATIVE = schema.key(int, least=1), schema.key(int, least=0)
KEYS = {  # of sections that name no part; '' is the top level
    '': dict.fromkeys((*SECTIONS, 'mesh'), schema.key(dict))
    | dict.fromkeys((*TOP_LEVEL, 'accumulation_steps'), COUNT)
    | dict.fromkeys(('seed', 'eval_every_steps'), NOT_NEGATIVE)
    | {'plugins': schema.key(Sequence[str])}
    | {'precision': schema.choice(*precision.ROUNDING)}
    | {'convolution': schema.choice(None, *precision.CONVOLUTIONS)},
    'data': LOADER.keys
    | NORMALIZER.keys
    | {'augment': schema.key(dict, required=False)},
    'data.augment': AUGMENTATION.keys,
    'homeostasis': PENALTY.keys
    | {'weight': schema.key(float, least=0)}
    | {'fraction': schema.key(float, required=False, default=1.0)},
    'alignment': {'kolen_pollack': schema.key(bool, required=False, default=False)},
    'optimizer': OPTIMIZER.keys,
    'diagnostics': dict.fromkeys(('num_examples', 'num_probes'), COUNT)
    | {'every_evals': NOT_NEGATIVE},
    'mesh': MESH.keys,
}


def checked(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration with what it leaves to defaults and to nudged_solver.

    All that is wrong with it is refused at once, and then what is of no use is logged.
    """
    values, wrong = {**DEFAULTS, **config}, []
    for section, own in schema.nested(values).items():
        if section in NAMED:
            wrong += problems(section, own)
        elif section in KEYS:
            wrong += schema.problems(section, own, KEYS[section])
    schema.refuse(wrong)
    estimator, nudged = values['estimator'], values['nudged_solver']
    inherits = ESTIMATORS[estimator['name']].inherits
    inherited = {key: nudged[key] for key in inherits if key in nudged}
    values['estimator'] = inherited | estimator
    schema.refuse(problems('estimator', values['estimator']))
    for section in NAMED:
        warn(section, values[section])
    return values


def problems(section: str, values: Mapping[str, Any]) -> list[str]:
    """Returns what is wrong with a section that names a part, in a message each.

    Keys that only other parts take are not wrong, so that a method can be switched by
    its name alone.
    """
    keys, wrong = keys_of(section, values)
    tables = NAMED[section]
    parts = [part for table in tables.values() for part in table.values()]
    others = {*tables, *(key for part in parts for key in part.keys)}
    return wrong + schema.problems(section, values, keys, others)


def warn(section: str, values: Mapping[str, Any]) -> None:
    """Logs which keys of a section that names a part are of no use, or of little."""
    keys, _ = keys_of(section, values)
    unused = [key for key in values if key not in keys and values[key] is not None]
    if unused:
        named = [repr(_name(key, values)) for key in NAMED[section] if key in keys]
        whose = f'{section} {" with ".join(named)}'
        logging.warning('%s does not use: %s', whose, ', '.join(unused))
    if section != 'system':
        return
    feedback, pooling = values.get('feedback'), values.get('pooling')
    if _idle_angle(values):
        logging.warning('system.feedback=%r does not use: angle', feedback)
    poolings = pooling if isinstance(pooling, tuple | list) else (pooling,)
    if feedback == 'free' and 'max' in poolings:
        logging.warning(
            'system.pooling="max" jumps between units: with system.feedback="free" '
            'many examples may have no equilibrium, at any step size; with "softmax" '
            'pooling or "tied" feedback they have'
        )


def system(values: Mapping[str, Any]) -> System:
    """Builds a system; one without feedback of its own does without an angle."""
    angle = {'angle': None} if _idle_angle(values) else {}
    return SYSTEMS[values['name']].built('system', {**values, **angle})


def solver(section: str, values: Mapping[str, Any]) -> Solver:
    """Builds a solver, from the section 'solver' or 'nudged_solver'."""
    return SOLVERS[values['name']].built(section, values)


def contour(values: Mapping[str, Any]) -> Contour:
    """Builds the contour of an estimator's section; a circle where it names none."""
    return CONTOURS[_name('contour', values)].built('estimator', values)


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
    part = ESTIMATORS[values['name']]
    given: dict[str, Any] = {'system': system, 'solve': solve, 'axis_name': axis_name}
    if 'contour' in part.needs:
        given['contour'] = contour(values)
    return part.built('estimator', values, **{key: given[key] for key in part.needs})


def keys_of(section: str, values: Mapping[str, Any]) -> tuple[schema.Keys, list[str]]:
    """Returns the keys that come with the names in a section, and what is wrong."""
    keys: schema.Keys = {}
    for key, table in NAMED[section].items():
        name = _name(key, values)
        keys[key] = schema.key(Any, required=False, default=_name(key, {}))
        if not isinstance(name, str) or name not in table:
            return keys, [f'{section}.{key}={name!r}: choose from {", ".join(table)}']
        keys |= table[name].keys
        if 'contour' not in table[name].needs:
            break
    return keys, []


def _name(key: str, values: Mapping[str, Any]) -> Any:
    """Returns what a section names by a key."""
    return values.get(key, 'circle' if key == 'contour' else None)


def _idle_angle(values: Mapping[str, Any]) -> bool:
    """Whether a system's section has an angle, but no feedback that it is of."""
    without = values.get('feedback') in ('tied', 'none')
    takes_feedback = 'feedback' in SYSTEMS[values['name']].keys
    return without and takes_feedback and values.get('angle') is not None
