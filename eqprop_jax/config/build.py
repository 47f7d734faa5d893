"""From a configuration to the objects of a run.

Each section names one part of `registry`, or belongs to one function, and holds its
arguments. What is wrong with keys and values is told of all sections at once.
"""

from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
from absl import logging
from jax.sharding import Mesh

from eqprop_jax import checkpoint, estimators, homeostasis, records, systems, training
from eqprop_jax.config import checks, registry, schema
from eqprop_jax.config.schema import ConfigError
from eqprop_jax.data import augment, pipeline, sources, splits
from eqprop_jax.training import mesh, optimizers, state
from eqprop_jax.training.state import Diagnostics, Experiment, TrainState
from eqprop_jax.types import Estimator, System


def experiment(config: ml_collections.ConfigDict) -> Experiment:
    """Builds a run.

    Args:
      config: sections `data`, `system`, `solver`, `nudged_solver`, `estimator`,
        `homeostasis`, `alignment`, `optimizer` and `diagnostics`, and at the top level
        `seed`, `batch_size`, `num_epochs`, `log_every_steps`, `eval_every_steps` and,
        optional, `precision` and `convolution` (`systems.rounded`), `mesh`, the number
        of devices along its axes, and `accumulation_steps`, the parts of a batch that
        go one after the other.

    Raises:
      ConfigError: for unknown or missing keys and names, values out of range, or
        parts that do not fit together.
      NotPreparedError: if the data set is not in the array cache.
    """
    values = checks.DEFAULTS | schema.plain(config.to_dict())
    checks.sections(values)
    nudged, penalty = values['nudged_solver'], values['homeostasis']
    values['estimator'] = registry.inherited(values['estimator'], nudged)

    full = registry.system(values['system'])
    system = systems.rounded(
        full, values['precision'], convolution=values['convolution']
    )
    solve, nudged_solve = (
        registry.solver(name, values[name]) for name in ('solver', 'nudged_solver')
    )

    def estimator(system: System, axis_name: str | None = None) -> Estimator:
        return registry.estimator(system, nudged_solve, values['estimator'], axis_name)

    def learner(axis_name: str | None = None) -> Estimator:
        if system.thin is None:
            return estimator(system, axis_name)
        return estimators.dropout(system, lambda s: estimator(s, axis_name))

    exact = estimators.recurrent_backprop(
        full,
        tol=state.REFERENCE_TOL,
        method='aitken',
        step_size=nudged.get('step_size', 1.0),
    )
    dataset, preprocess, augmented = _data(values['data'])
    devices = _devices(values)
    steps = checks.steps(values, dataset.train, devices)
    with schema.naming('optimizer'):
        optimizer = optimizers.make(
            **values['optimizer'], num_steps=steps, pairs=system.pairs
        )
    built = Experiment(
        system=system,
        solve=solve,
        estimate=estimator(system),
        learn=learner(mesh.CONTOUR if devices.shape[mesh.CONTOUR] > 1 else None),
        exact=exact,
        optimizer=optimizer,
        dataset=dataset,
        preprocess=preprocess,
        augment=augmented,
        penalty=_penalty(system, penalty),
        penalty_weight=float(penalty['weight']),
        penalty_fraction=float(penalty.get('fraction', 1.0)),
        kolen_pollack=_kolen_pollack(system, values),
        skip_unconverged=values['estimator'].get('skip_unconverged', False),
        mesh=devices,
        accumulation_steps=values['accumulation_steps'],
        diagnostics=Diagnostics(**values['diagnostics']),
        config=values,
        **{key: values[key] for key in checks.TOP_LEVEL},
    )
    checks.fit(built, learner())
    return built


def restored(
    workdir: records.Folder, *, best: bool = False
) -> tuple[Experiment, TrainState]:
    """Returns the run in a workdir, built, and its state.

    Args:
      workdir: of a run that has ended.
      best: as in `checkpoint.restore`.

    Raises:
      CheckpointError: as `checkpoint.restore`.
      ConfigError: as `experiment`.
      NotPreparedError: likewise.
      WorkdirError: if the workdir has no configuration that can be read.
    """
    built = experiment(ml_collections.ConfigDict(records.read_config(workdir)))
    like = jax.eval_shape(lambda: training.init_state(built))
    return built, checkpoint.restore(workdir, like, best=best)


def _penalty(system: System, values: Mapping[str, Any]) -> homeostasis.Penalty | None:
    """Returns the homeostatic penalty, None where its weight is zero."""
    own = ('weight', 'fraction')
    options = {key: value for key, value in values.items() if key not in own}
    with schema.naming('homeostasis'):
        penalty = homeostasis.penalty(system, **options)
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
    options: dict[str, Any] = {'augment': {}, 'std_factor': 1.0, **values}
    section = options.pop('augment')
    scaling = {key: options.pop(key) for key in ('normalization', 'std_factor')}
    with schema.naming('data'):
        dataset = sources.load(**options)
        splits.check(dataset)
        preprocess = pipeline.normalizer(dataset, **scaling)
    if scaling['normalization'] == 'unit' and scaling['std_factor'] != 1:
        logging.warning("data.normalization='unit' does not use: std_factor")
    images = dataset.train.images
    with schema.naming('data.augment'):
        augmented = augment.augmentation(**section)
        if not (section.get('pad') or section.get('flip')):
            return dataset, preprocess, None
        like = jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)
        jax.eval_shape(augmented, jax.random.key(0), like)
    return dataset, preprocess, augmented


def _devices(values: Mapping[str, Any]) -> Mesh:
    """Returns the devices of a run, of which no more share a contour than it has."""
    with schema.naming('mesh'):
        devices = mesh.make(**values['mesh'])
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
