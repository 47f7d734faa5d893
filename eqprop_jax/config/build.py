"""From a configuration to the objects of a run.

Each section holds the arguments of a part of `registry`, or of one function.
"""

import os
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
from absl import logging
from jax.sharding import Mesh

from eqprop_jax import dynamics, estimators, homeostasis, systems
from eqprop_jax.config import plugins, registry, schema
from eqprop_jax.config.schema import ConfigError
from eqprop_jax.data import _augment as augment
from eqprop_jax.data import _pipeline as pipeline
from eqprop_jax.data import _splits as splits
from eqprop_jax.training import mesh, state
from eqprop_jax.training.state import Diagnostics, Experiment
from eqprop_jax.types import Batch, Estimator, System


def experiment(config: ml_collections.ConfigDict) -> Experiment:
    """Builds a run.

    Args:
      config: sections `data`, `system`, `solver`, `nudged_solver`, `estimator`,
        `homeostasis`, `alignment`, `optimizer` and `diagnostics`, and at the top level
        `seed`, `batch_size`, `num_epochs`, `log_every_steps`, `eval_every_steps` and,
        optional, `precision` and `convolution` (`systems.rounded`), `mesh`, the number
        of devices along its axes, `accumulation_steps`, the parts of a batch in turn,
        and `plugins`, modules or files that register parts.

    Raises:
      ConfigError: for unknown or missing keys and names, values out of range, or
        parts that do not fit together.
      NotPreparedError: if the data set is not in the array cache.
    """
    told = jax.tree.map(_none_as_told, config.to_dict())
    plugins.load(told.get('plugins', ()))
    values = registry.checked(told)
    values['plugins'] = plugins.used(values)
    if path := values['data'].get('path'):
        values['data']['path'] = os.path.abspath(path)
    nudged, penalty = values['nudged_solver'], values['homeostasis']
    full = registry.system(values['system'])
    way = {'convolution': values['convolution']}
    system = systems.rounded(full, values['precision'], **way)
    solve, nudged_solve = (
        registry.solver(name, values[name]) for name in ('solver', 'nudged_solver')
    )

    def estimator(system: System, axis_name: str | None = None) -> Estimator:
        return registry.estimator(system, nudged_solve, values['estimator'], axis_name)

    def learner(axis_name: str | None = None) -> Estimator:
        if system.thin is None:
            return estimator(system, axis_name)
        return estimators.dropout(system, lambda s: estimator(s, axis_name))

    dataset, preprocess, augmented = _data(values['data'])
    devices = _devices(values)
    steps = _num_steps(values, dataset.train, devices)
    built = Experiment(
        system=system,
        solve=solve,
        estimate=estimator(system),
        learn=learner(mesh.CONTOUR if devices.shape[mesh.CONTOUR] > 1 else None),
        exact=estimators.recurrent_backprop(
            full,
            tol=state.REFERENCE_TOL,
            method='aitken',
            step_size=nudged.get('step_size', 1.0),
        ),
        optimizer=registry.OPTIMIZER.built(
            'optimizer', values['optimizer'], num_steps=steps, pairs=system.pairs
        ),
        dataset=dataset,
        preprocess=preprocess,
        augment=augmented,
        penalty=_penalty(system, penalty),
        penalty_weight=float(penalty['weight']),
        penalty_fraction=float(penalty.get('fraction', 1.0)),
        kolen_pollack=_kolen_pollack(system, values),
        skip_unconverged=values['estimator'].get('skip_unconverged', False),
        mesh=devices,
        diagnostics=Diagnostics(**values['diagnostics']),
        config=values,
        defaults=_defaults(values),
        sources=plugins.digest(values['plugins']),
        **{key: values[key] for key in (*registry.TOP_LEVEL, 'accumulation_steps')},
    )
    _check_fit(built, learner())
    return built


def _defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the keys stand for that a configuration may leave out."""
    named = {name: registry.keys_of(name, values[name])[0] for name in registry.NAMED}
    return registry.DEFAULTS | schema.defaults(registry.KEYS | named)


def _none_as_told(value: Any) -> Any:
    """Returns None for 'None', as the command line spells it."""
    return None if value == 'None' else value


def _penalty(system: System, values: Mapping[str, Any]) -> homeostasis.Penalty | None:
    """Returns the homeostatic penalty, None where its weight is zero."""
    if not 0 < (fraction := values.get('fraction', 1.0)) <= 1:
        raise ConfigError(
            f'homeostasis.fraction lies above 0 and up to 1, not {fraction}'
        )
    penalty = registry.PENALTY.built('homeostasis', values, system=system)
    return penalty if values['weight'] else None


def _kolen_pollack(system: System, values: Mapping[str, Any]) -> bool:
    """Returns whether paired weights share their gradients.

    An optimizer treats both of a pair alike, but for Adam with a decay.
    """
    if not values['alignment'].get('kolen_pollack', False):
        return False
    if not system.pairs:
        raise ConfigError(
            'alignment.kolen_pollack=True needs paired weights: set '
            'system.feedback="free" (tied weights are aligned already, loops have no '
            'pairs)'
        )
    optimizer = values['optimizer']
    layers = optimizer.get('layers') or {}
    decays = [
        {**optimizer, **layers.get(forward[0], {})}.get('weight_decay', 0.0)
        for forward, *_ in system.pairs
    ]
    if optimizer['name'] == 'adam' and any(decays):
        raise ConfigError(
            'alignment.kolen_pollack=True needs a decay that acts on both weights of a '
            'pair alike: set optimizer.name to "adamw" or "sgd", not "adam"'
        )
    if not all(decays):
        logging.warning(
            'alignment.kolen_pollack=True without optimizer.weight_decay: what paired '
            'weights differ by does not die out'
        )
    return True


def _data(
    values: Mapping[str, Any],
) -> tuple[splits.Dataset, pipeline.Preprocess, augment.Augment | None]:
    """Returns the data set, and what its images go through; in training only, last."""
    dataset = registry.LOADER.built('data', values)
    with schema.naming('data'):
        splits.check(dataset)
    preprocess = registry.NORMALIZER.built('data', values, dataset=dataset)
    if values['normalization'] == 'unit' and values.get('std_factor', 1) != 1:
        logging.warning("data.normalization='unit' does not use: std_factor")
    section, images = values.get('augment', {}), dataset.train.images
    augmented = registry.AUGMENTATION.built('data.augment', section)
    if not (section.get('pad') or section.get('flip')):
        return dataset, preprocess, None
    like = jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)
    with schema.naming('data.augment'):
        jax.eval_shape(augmented, jax.random.key(0), like)
    return dataset, preprocess, augmented


def _devices(values: Mapping[str, Any]) -> Mesh:
    """Returns the devices of a run, of which no more share a contour than it has."""
    devices = registry.MESH.built('mesh', values['mesh'])
    section, contour = values['estimator'], devices.shape[mesh.CONTOUR]
    if contour == 1:
        return devices
    if 'contour' not in registry.ESTIMATORS[section['name']].needs:
        raise ConfigError(
            f'mesh.contour={contour} divides the nudges of a contour, which estimator '
            f'{section["name"]!r} has none of: set mesh.contour to 1'
        )
    points = len(registry.contour(section).points)
    if points < contour:
        raise ConfigError(
            f'mesh.contour={contour} is more than the {points} phases that '
            'estimator.contour relaxes (conjugates count once)'
        )
    return devices


def _num_steps(values: Mapping[str, Any], train: splits.Split, devices: Mesh) -> int:
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


def _check_fit(experiment: Experiment, learn: Estimator) -> None:
    """Raises ConfigError unless the parts fit the data and each other."""
    system, dataset = experiment.system, experiment.dataset
    x = jax.ShapeDtypeStruct((1, *dataset.train.images.shape[1:]), 'float32')
    y = jax.ShapeDtypeStruct((1, dataset.num_outputs), 'float32')
    rng = jax.random.key(0)

    def gradient(x: jax.Array, y: jax.Array) -> Any:
        params, batch = system.init(rng, x), Batch(x, y)
        free = dynamics.relax(system, params, x, experiment.solve)
        return learn(params, batch, free, rng).grads

    with schema.naming(f'system does not fit {dataset.name!r}'):
        params = state.shapes_of(system, dataset)
    layers = experiment.config['optimizer'].get('layers') or {}
    known = dict.fromkeys(params, schema.key(Any, required=False))
    schema.refuse(schema.problems('optimizer.layers', layers, known))
    with schema.naming('solver, nudged_solver and estimator do not work together'):
        jax.eval_shape(gradient, x, y)
