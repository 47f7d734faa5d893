"""What of a configuration is refused: keys, types, ranges, and what does not fit."""

from collections.abc import Mapping
from typing import Any

import jax

from eqprop_jax import dynamics, homeostasis, precision
from eqprop_jax.config import registry, schema
from eqprop_jax.config.schema import ConfigError
from eqprop_jax.data import augment, pipeline, sources
from eqprop_jax.training import mesh, optimizers
from eqprop_jax.training.state import Diagnostics, Experiment
from eqprop_jax.types import Batch, Estimator

KEYS = {  # of sections that name no part
    'data': schema.keys(sources.load)
    | schema.keys(pipeline.normalizer, given=('dataset',))
    | {'augment': schema.key(dict, {})},
    'homeostasis': {'weight': schema.key(float), 'fraction': schema.key(float, 1.0)}
    | schema.keys(homeostasis.penalty, given=('system',)),
    'alignment': {'kolen_pollack': schema.key(bool, False)},
    'optimizer': schema.keys(optimizers.make, given=('num_steps', 'pairs')),
    'diagnostics': schema.keys(Diagnostics),
    'data.augment': schema.keys(augment.augmentation),
    'mesh': schema.keys(mesh.make),
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
}
RUN = {
    **dict.fromkeys(SECTIONS, schema.key(dict)),
    **dict.fromkeys((*TOP_LEVEL, 'accumulation_steps'), schema.key(int)),
    'precision': schema.key(str),
    'convolution': schema.key(str | None),
    'mesh': schema.key(dict),
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
    'max_steps': 100_000,
    'num_steps': 100_000,
    'num_points': 1000,
    'steps_per_point': 100_000,
    'periods': 10_000,
    'burn_in': 10_000,
    'num_probes': 10_000,
}


def sections(values: Mapping[str, Any]) -> None:
    """Raises one ConfigError of all keys that are unknown or missing, and all values.

    Args:
      values: of all sections, plain.
    """
    schema.refuse(_keys(values))
    schema.refuse(_ranges(values))


def _keys(values: Mapping[str, Any]) -> list[str]:
    """Returns which keys are unknown or missing, and which values of a wrong type."""
    found = schema.problems('', values, RUN)
    for section, own in _flat(values).items():
        if section in registry.TABLES:
            found += registry.problems(section, own)
        elif section in KEYS:
            found += schema.problems(section, own, KEYS[section])
    return found


def _ranges(values: Mapping[str, Any]) -> list[str]:
    """Returns which values, of the right types, are too small or too large."""
    found = []
    for section, own in {'': values, **_flat(values)}.items():
        for name, value in own.items():
            key = f'{section}.{name}'.lstrip('.')
            if key in COUNTS and value < 1:
                found.append(f'{key} has to be a positive integer, not {value}')
            if key in NOT_NEGATIVE and value < 0:
                found.append(f'{key} cannot be negative: {value}')
            most = MOST.get(name)
            if most and isinstance(value, int) and value > most:
                found.append(f'{key} is at most {most:,}, not {value:,}')
    if not 0 < (fraction := values['homeostasis'].get('fraction', 1.0)) <= 1:
        found.append(f'homeostasis.fraction lies above 0 and up to 1, not {fraction}')
    try:
        precision.check(values['precision'], values['convolution'])
    except ValueError as error:
        found.append(str(error))
    return found


def _flat(values: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Returns all sections, those within others too, by their dotted names."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= {prefix + key: value} | _flat(value, f'{prefix}{key}.')
    return found


def steps(config: Mapping[str, Any], num_examples: int, parts: int) -> int:
    """Returns the number of steps of a run.

    Args:
      config: plain values.
      num_examples: in the training split.
      parts: of a batch, on devices of their own.

    Raises:
      ConfigError: if there is no batch to be divided so, or no end to count to.
    """
    size, turns = config['batch_size'], config['accumulation_steps']
    if turns > -(-size // parts):
        raise ConfigError(
            f'accumulation_steps={turns} is more than the {-(-size // parts)} examples '
            f'of batch_size={size} that each of {parts} devices has'
        )
    if size > num_examples:
        raise ConfigError(
            f'batch_size={size} is more than the {num_examples} training examples of '
            f'{config["data"]["name"]!r}'
        )
    num_steps = num_examples // size * config['num_epochs']
    if num_steps >= 2**31:
        raise ConfigError(
            f'num_epochs={config["num_epochs"]} makes {num_steps} steps, of which '
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
    unknown = set(experiment.config['optimizer'].get('layers') or {}) - set(params)
    schema.refuse(
        [
            f'unknown key optimizer.layers.{layer}: choose from {", ".join(params)}'
            for layer in sorted(unknown)
        ]
    )
    with schema.naming('solver, nudged_solver and estimator do not work together'):
        jax.eval_shape(gradient, x, y)
