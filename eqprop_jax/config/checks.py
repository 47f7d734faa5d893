"""What of a configuration is refused: keys, types, ranges, and what does not fit."""

from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from eqprop_jax import dynamics, homeostasis, precision
from eqprop_jax.config import registry, schema
from eqprop_jax.config.schema import ConfigError
from eqprop_jax.data import augment, pipeline, sources, splits
from eqprop_jax.training import mesh, optimizers
from eqprop_jax.training.state import Diagnostics, Experiment
from eqprop_jax.types import Batch, Estimator

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
}
KEYS = {  # of sections that name no part; '' is the top level
    '': dict.fromkeys(SECTIONS, schema.key(dict))
    | dict.fromkeys((*TOP_LEVEL, 'accumulation_steps'), schema.key(int))
    | {'precision': schema.key(str), 'convolution': schema.key(str | None)}
    | {'mesh': schema.key(dict)},
    'data': schema.keys(sources.load)
    | schema.keys(pipeline.normalizer, given=('dataset',))
    | {'augment': schema.key(dict, {})},
    'data.augment': schema.keys(augment.augmentation),
    'homeostasis': {'weight': schema.key(float), 'fraction': schema.key(float, 1.0)}
    | schema.keys(homeostasis.penalty, given=('system',)),
    'alignment': {'kolen_pollack': schema.key(bool, False)},
    'optimizer': schema.keys(optimizers.make, given=('num_steps', 'pairs')),
    'diagnostics': schema.keys(Diagnostics),
    'mesh': schema.keys(mesh.make),
}
COUNTS = (
    *('batch_size', 'accumulation_steps', 'num_epochs', 'log_every_steps'),
    *('diagnostics.num_examples', 'diagnostics.num_probes'),
)
NOT_NEGATIVE = (
    *('seed', 'eval_every_steps'),
    *('diagnostics.every_evals', 'homeostasis.weight'),
)
MOST = {  # of loops that a signal has to wait for, far above what is of use
    **dict.fromkeys(('max_steps', 'num_steps', 'steps_per_point'), 100_000),
    **dict.fromkeys(('periods', 'burn_in', 'num_probes'), 10_000),
    'num_points': 1000,
}


def sections(values: Mapping[str, Any]) -> None:
    """Raises one ConfigError of all keys and types that are wrong, or of ranges."""
    nested = _nested(values)
    wrong = []
    for section, own in nested.items():
        if section in registry.TABLES:
            wrong += registry.problems(section, own)
        elif section in KEYS:
            wrong += schema.problems(section, own, KEYS[section])
    schema.refuse(wrong)
    schema.refuse(_ranges(nested))


def _nested(values: Mapping[str, Any], section: str = '') -> dict[str, Any]:
    """Returns a section, and all those within it, by their dotted names."""
    found: dict[str, Any] = {section: values}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _nested(value, f'{section}.{key}'.lstrip('.'))
    return found


def _ranges(sections: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns which values, of the right types, are too small or too large."""
    found = []
    for section, values in sections.items():
        for name, value in values.items():
            key, most = f'{section}.{name}'.lstrip('.'), MOST.get(name)
            if key in COUNTS and value < 1:
                found.append(f'{key} has to be a positive integer, not {value}')
            if key in NOT_NEGATIVE and value < 0:
                found.append(f'{key} cannot be negative: {value}')
            if most and isinstance(value, int) and value > most:
                found.append(f'{key} is at most {most:,}, not {value:,}')
    if not 0 < (fraction := sections['homeostasis'].get('fraction', 1.0)) <= 1:
        found.append(f'homeostasis.fraction lies above 0 and up to 1, not {fraction}')
    try:
        precision.check(sections['']['precision'], sections['']['convolution'])
    except ValueError as error:
        found.append(str(error))
    return found


def steps(values: Mapping[str, Any], train: splits.Split, devices: Mesh) -> int:
    """Returns the number of steps, of which all devices can take and JAX count each."""
    size, turns = values['batch_size'], values['accumulation_steps']
    num_examples, num_devices = len(train.labels), devices.shape[mesh.DATA]
    most = -(-size // num_devices)
    if turns > most:
        raise ConfigError(
            f'accumulation_steps={turns} is more than the {most} examples of '
            f'batch_size={size} that each of {num_devices} devices has'
        )
    if size > num_examples:
        raise ConfigError(
            f'batch_size={size} is more than the {num_examples} training examples of '
            f'{values["data"]["name"]!r}'
        )
    num_steps = num_examples // size * values['num_epochs']
    if num_steps >= 2**31:
        raise ConfigError(
            f'num_epochs={values["num_epochs"]} makes {num_steps} steps, of which '
            f'{2**31 - 1} can be counted'
        )
    return num_steps


def fit(experiment: Experiment, learn: Estimator) -> None:
    """Raises ConfigError unless the parts fit the data and each other."""
    system, dataset = experiment.system, experiment.dataset
    x = jax.ShapeDtypeStruct((1, *dataset.train.images.shape[1:]), 'float32')
    rng = jax.random.key(0)

    def scores(x: jax.Array) -> tuple[Any, jax.Array]:
        params = system.init(rng, x)
        state = system.rest(system.inject(params, x))
        return params, system.predict(params, system.rates(state))

    def gradient(x: jax.Array, y: jax.Array) -> Any:
        params, batch = system.init(rng, x), Batch(x, y)
        free = dynamics.relax(system, params, x, experiment.solve)
        return learn(params, batch, free, rng).grads

    with schema.naming(f'system does not fit the images of {dataset.name!r}'):
        params, y = jax.eval_shape(scores, x)
    if y.shape[-1] != dataset.num_classes:
        raise ConfigError(
            f'system scores {y.shape[-1]} classes but {dataset.name!r} has '
            f'{dataset.num_classes}: set system.classes, or the last of system.sizes'
        )
    layers = experiment.config['optimizer'].get('layers') or {}
    known = dict.fromkeys(params, schema.key(Any, None))
    schema.refuse(schema.problems('optimizer.layers', layers, known))
    with schema.naming('solver, nudged_solver and estimator do not work together'):
        jax.eval_shape(gradient, x, y)
