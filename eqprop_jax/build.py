"""From a configuration to the objects of a run; the only reader of ConfigDict.

Each section names one constructor of `parts` and holds its arguments. A key that no
constructor of the section takes is an error that lists the choices; one that only the
others take is logged as not used, so that a method can be switched by its name alone.
"""

from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
from absl import logging
from jax.sharding import Mesh

from eqprop_jax import (
    checkpoint,
    checks,
    estimators,
    parts,
    records,
    sections,
    systems,
    training,
)
from eqprop_jax.data import augment, pipeline, sources
from eqprop_jax.sections import ConfigError
from eqprop_jax.training import mesh, optimizers
from eqprop_jax.training.state import (
    REFERENCE_TOL,
    Diagnostics,
    Experiment,
    TrainState,
)
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
      ConfigError: for an unknown or missing key or name, a value out of range, or
        parts that do not fit together.
      NotPreparedError: if the data set is not in the array cache.
    """
    values = checks.DEFAULTS | sections.plain(config.to_dict())
    checks.top_level(values)
    checks.loops(values)
    full = parts.system(values['system'])
    system = systems.rounded(
        full, values['precision'], convolution=values['convolution']
    )
    solve, nudged_solve = (
        parts.solver(key, values[key]) for key in ('solver', 'nudged_solver')
    )
    values['estimator'] = _with_dynamics(values)

    def estimator(system: System, axis_name: str | None = None) -> Estimator:
        return parts.estimator(system, nudged_solve, values['estimator'], axis_name)

    def learner(axis_name: str | None = None) -> Estimator:
        if system.thin is None:
            return estimator(system, axis_name)
        return estimators.dropout(system, lambda s: estimator(s, axis_name))

    estimate = estimator(system)
    devices = _mesh(values)
    contour_axis = mesh.CONTOUR if devices.shape[mesh.CONTOUR] > 1 else None
    exact = estimators.recurrent_backprop(
        full,
        tol=REFERENCE_TOL,
        method='aitken',
        step_size=values['nudged_solver'].get('step_size', 1.0),
    )
    penalty, penalty_weight, fraction = parts.penalty(system, values['homeostasis'])
    aligned = parts.kolen_pollack(system, values['alignment'], values['optimizer'])
    diagnostics = _diagnostics(values['diagnostics'])
    dataset, preprocess, augmented = _data(values['data'])
    part = -(-values['batch_size'] // devices.shape[mesh.DATA])
    if values['accumulation_steps'] > part:
        raise ConfigError(
            f'accumulation_steps={values["accumulation_steps"]} is more than the '
            f'{part} examples of batch_size={values["batch_size"]} that each of '
            f'{devices.shape[mesh.DATA]} devices has'
        )
    steps_per_epoch = len(dataset.train.labels) // values['batch_size']
    if not steps_per_epoch:
        raise ConfigError(
            f'batch_size={values["batch_size"]} is more than the '
            f'{len(dataset.train.labels)} training examples of {dataset.name!r}'
        )
    num_steps = steps_per_epoch * values['num_epochs']
    if num_steps >= 2**31:
        raise ConfigError(
            f'num_epochs={values["num_epochs"]} makes {num_steps} steps, of which '
            f'{2**31 - 1} can be counted'
        )
    optimizer = sections.call(
        'optimizer',
        optimizers.make,
        values['optimizer'],
        num_steps=num_steps,
        pairs=system.pairs,
    )
    built = Experiment(
        system=system,
        solve=solve,
        estimate=estimate,
        learn=learner(contour_axis),
        exact=exact,
        optimizer=optimizer,
        dataset=dataset,
        preprocess=preprocess,
        augment=augmented,
        penalty=penalty,
        penalty_weight=penalty_weight,
        penalty_fraction=fraction,
        kolen_pollack=aligned,
        skip_unconverged=values['estimator'].get('skip_unconverged', False),
        diagnostics=diagnostics,
        mesh=devices,
        config=values,
        accumulation_steps=values['accumulation_steps'],
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


def _mesh(values: Mapping[str, Any]) -> Mesh:
    """Builds the devices of a run, of which no more share a contour than it has."""
    devices = sections.call('mesh', mesh.make, values['mesh'])
    section, contour = values['estimator'], devices.shape[mesh.CONTOUR]
    if contour == 1:
        return devices
    if section['name'] not in parts.NUDGED:
        raise ConfigError(
            f'mesh.contour={contour} divides the nudges of a contour, which estimator '
            f'{section["name"]!r} has none of: set mesh.contour to 1'
        )
    points = len(parts.contour(section).points)
    if points < contour:
        raise ConfigError(
            f'mesh.contour={contour} is more than the {points} phases that '
            'estimator.contour relaxes (conjugates count once)'
        )
    return devices


def _with_dynamics(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the estimator's section; sweeps of its own are those of nudged_solver."""
    section = dict(values['estimator'])
    keys = {
        'oscillation': ('order', 'step_size', 'clip'),
        'bptt': ('step_size', 'clip'),
        'recurrent_backprop': ('step_size',),
        'tangent': ('step_size',),
    }
    for key in keys.get(sections.name_of(section), ()):
        if key in values['nudged_solver']:
            section.setdefault(key, values['nudged_solver'][key])
    return section


def _diagnostics(values: Mapping[str, Any]) -> Diagnostics:
    diagnostics = sections.call('diagnostics', Diagnostics, values)
    if diagnostics.every_evals < 0:
        raise ConfigError(
            'diagnostics.every_evals is 0 (never) or more, not '
            f'{diagnostics.every_evals}'
        )
    sections.positive('diagnostics.', values, ('num_examples', 'num_probes'))
    return diagnostics


def _data(
    values: Mapping[str, Any],
) -> tuple[sources.Dataset, pipeline.Preprocess, augment.Augment | None]:
    """Returns the data set, and what its images go through; in training only, last."""
    known = (
        *('name', 'normalization', 'std_factor', 'augment'),
        *('data_dir', 'held_out', 'num_train', 'seed'),
    )
    sections.expect('data.', values, known, ('name', 'normalization'))
    options = dict(values)
    inputs = {
        key: options.pop(key)
        for key in ('normalization', 'std_factor')
        if key in values
    }
    section = options.pop('augment', {})
    sections.check_types('data.', {'augment': section}, {'augment': dict})
    augmented = _augment(section)
    dataset = sections.call('data', sources.load, options)
    try:
        pipeline.check(dataset)
    except ValueError as error:
        raise ConfigError(f'data: {error}') from error
    preprocess = sections.call('data', pipeline.normalizer, inputs, dataset)
    if inputs['normalization'] == 'unit' and inputs.get('std_factor', 1.0) != 1:
        logging.warning("data.normalization='unit' does not use: std_factor")
    if augmented is not None:
        image = dataset.train.images.shape[1:]
        images = jax.ShapeDtypeStruct((1, *image), dataset.train.images.dtype)
        try:
            jax.eval_shape(augmented, jax.random.key(0), images)
        except sections.REFUSALS as error:
            raise ConfigError(f'data.augment: {error}') from error
    return dataset, preprocess, augmented


def _augment(values: Mapping[str, Any]) -> augment.Augment | None:
    """Returns the augmentation of a section, or None where it does nothing."""
    built = sections.call('data.augment', augment.augmentation, values)
    return built if values.get('pad') or values.get('flip') else None
