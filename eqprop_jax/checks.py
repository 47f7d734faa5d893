"""What of a configuration is checked as a whole: keys, ranges, and what fits what."""

from collections.abc import Mapping
from typing import Any

import jax

from eqprop_jax import dynamics, precision, sections
from eqprop_jax.sections import ConfigError
from eqprop_jax.training.state import Experiment
from eqprop_jax.types import Batch, Estimator

SECTIONS = (
    'data',
    'system',
    'solver',
    'nudged_solver',
    'estimator',
    'homeostasis',
    'alignment',
    'optimizer',
    'diagnostics',
)
DEFAULTS: dict[str, Any] = {  # of keys that older configurations lack
    'accumulation_steps': 1,
    'precision': 'float32',
    'convolution': None,
    'mesh': {},
}
TOP_LEVEL = ('seed', 'batch_size', 'num_epochs', 'log_every_steps', 'eval_every_steps')
MOST = {  # of loops that a signal has to wait for, far above what is of use
    'max_steps': 100_000,
    'num_steps': 100_000,
    'num_points': 1000,
    'steps_per_point': 100_000,
    'periods': 10_000,
    'burn_in': 10_000,
    'num_probes': 10_000,
}


def top_level(values: Mapping[str, Any]) -> None:
    """Raises ConfigError unless the keys are known and numbers in their ranges."""
    known = (*SECTIONS, *TOP_LEVEL, *DEFAULTS)
    sections.expect('', values, known, known)
    kinds: dict[str, Any] = dict.fromkeys(SECTIONS, dict)
    kinds |= dict.fromkeys(TOP_LEVEL, int) | {'precision': str, 'mesh': dict}
    kinds |= {'accumulation_steps': int, 'convolution': str | None}
    sections.check_types('', values, kinds)
    counts = ('batch_size', 'accumulation_steps', 'num_epochs', 'log_every_steps')
    sections.positive('', values, counts)
    if values['eval_every_steps'] < 0:
        raise ConfigError(
            'eval_every_steps is 0 (every epoch) or more, not '
            f'{values["eval_every_steps"]}'
        )
    try:
        precision.check(values['precision'], values['convolution'])
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if not 0 <= values['seed'] < 2**31:
        raise ConfigError(f'seed lies from 0 to 2³¹ − 1, not {values["seed"]}')


def loops(values: Mapping[str, Any]) -> None:
    """Raises ConfigError for loops of which no end would be seen."""
    for name in SECTIONS:
        for key, most in MOST.items():
            count = values[name].get(key)
            if isinstance(count, int) and count > most:
                raise ConfigError(f'{name}.{key} is at most {most:,}, not {count:,}')


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

    try:
        params, y = jax.eval_shape(scores, x)
    except sections.REFUSALS as error:
        raise ConfigError(
            f'system does not fit the images of {dataset.name!r}: {error}'
        ) from error
    if y.shape[-1] != dataset.num_classes:
        raise ConfigError(
            f'system scores {y.shape[-1]} classes but {dataset.name!r} has '
            f'{dataset.num_classes}: set system.classes, or the last of system.sizes'
        )
    layers = experiment.config['optimizer'].get('layers') or {}
    sections.expect('optimizer.layers.', layers, tuple(params), ())
    try:
        jax.eval_shape(gradient, x, y)
    except sections.REFUSALS as error:
        raise ConfigError(
            f'solver, nudged_solver and estimator do not work together: {error}'
        ) from error
