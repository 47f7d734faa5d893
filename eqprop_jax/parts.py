"""The parts of a run, by the names that the sections of a configuration give them.

Sections are plain values here. Each names one constructor by its key `name` (or, for
the nudges, `contour`) and holds its arguments.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from absl import logging

from eqprop_jax import estimators, homeostasis, nudges, sections, solvers, systems
from eqprop_jax.nudges import Contour
from eqprop_jax.sections import ConfigError
from eqprop_jax.types import Estimator, Solver, System


def _of_radius(contour: Callable[[float], Contour]) -> Callable[[float], Contour]:
    """Returns a contour of one nudge β under the name that configurations give it."""

    def make(radius: float) -> Contour:
        try:
            return contour(radius)
        except ValueError as error:
            raise ValueError(str(error).replace('beta', 'radius')) from error

    return make


SYSTEMS = {
    'conv': systems.conv,
    'mlp': systems.mlp,
    'loop': systems.loop,
    'feedforward': systems.feedforward,
    'leaky': systems.leaky,
    'predictive_coding': systems.predictive_coding,
}
SOLVERS = {
    'relaxation': solvers.relaxation,
    'aitken': solvers.aitken,
    'anderson': solvers.anderson,
    'unrolled': solvers.unrolled,
}
CONTOURS = {
    'circle': nudges.circle,
    'complex_step': nudges.complex_step,
    'one_sided': _of_radius(nudges.one_sided),
    'random_sign': _of_radius(nudges.random_sign),
    'symmetric': _of_radius(nudges.symmetric),
}
ESTIMATORS = {
    'bptt': estimators.bptt,
    'contour': estimators.contour,
    'contrastive': estimators.contrastive,
    'oscillation': estimators.oscillation,
    'recurrent_backprop': estimators.recurrent_backprop,
    'tangent': estimators.tangent,
}
NUDGE_KEYS = ('contour', 'radius', 'num_points', 'half_step')
NUDGED = ('contour', 'contrastive')  # estimators that take a contour and a solver


def system(values: Mapping[str, Any]) -> System:
    """Builds a system from its section.

    Args:
      values: `name` and the arguments of that system.

    Raises:
      ConfigError: for an unknown key or name, or a value out of range.
    """
    built = sections.named('system', SYSTEMS, _without_idle_angle(values))
    pooling = values.get('pooling')
    poolings = pooling if isinstance(pooling, tuple | list) else (pooling,)
    if values.get('feedback') == 'free' and 'max' in poolings:
        logging.warning(
            'system.pooling="max" jumps between units: with system.feedback="free" '
            'many examples may have no equilibrium, at any step size; with "softmax" '
            'pooling or "tied" feedback they have'
        )
    return built


def _without_idle_angle(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a system's section; without an angle where no feedback is to turn."""
    make = SYSTEMS.get(sections.name_of(values))
    known = inspect.signature(make).parameters if make else {}
    idle = values.get('feedback') in ('tied', 'none') and 'feedback' in known
    if not idle or values.get('angle') is None:
        return dict(values)
    logging.warning('system.feedback=%r does not use: angle', values['feedback'])
    return {**values, 'angle': None}


def solver(section: str, values: Mapping[str, Any]) -> Solver:
    """Builds a solver from a section.

    Args:
      section: what messages call it.
      values: `name` and the arguments of that solver.

    Raises:
      ConfigError: for an unknown key or name, or a value out of range.
    """
    return sections.named(section, SOLVERS, values)


def estimator(
    system: System,
    solve: Solver,
    values: Mapping[str, Any],
    axis_name: str | None = None,
) -> Estimator:
    """Builds an estimator from its section.

    Args:
      system: what moves.
      solve: relaxes the nudged phases.
      values: `name` and the arguments of that estimator; for those that nudge also
        `contour` and the arguments of that contour, `radius` being |β| (β itself,
        with its sign, where the contour is 'one_sided').
      axis_name: as in `estimators.contour`; others do not use it.

    Raises:
      ConfigError: for an unknown key or name, or a value out of range.
    """
    if values.get('name') not in NUDGED:
        own = ESTIMATORS.get(sections.name_of(values))
        takes = inspect.signature(own).parameters if own else ()
        unused = [key for key in NUDGE_KEYS if key in values and key not in takes]
        others = {key: value for key, value in values.items() if key not in unused}
        built = sections.named('estimator', ESTIMATORS, others, system)
        if unused:
            logging.warning(
                'estimator %r does not use: %s', values['name'], ', '.join(unused)
            )
        return built
    others = {key: value for key, value in values.items() if key not in NUDGE_KEYS}
    return sections.named(
        'estimator',
        ESTIMATORS,
        others,
        system,
        solve,
        contour=contour(values),
        axis_name=axis_name,
        others=NUDGE_KEYS,
    )


def contour(values: Mapping[str, Any]) -> Contour:
    """Builds the contour of an estimator's section; a circle where it names none.

    Args:
      values: of which the keys `NUDGE_KEYS` are used.

    Raises:
      ConfigError: for an unknown name, or a value out of range.
    """
    nudge = {key: values[key] for key in NUDGE_KEYS if key in values}
    return sections.named(
        'estimator', CONTOURS, {'contour': 'circle', **nudge}, name_key='contour'
    )


def penalty(
    system: System, values: Mapping[str, Any]
) -> tuple[homeostasis.Penalty | None, float, float]:
    """Builds the homeostatic penalty from its section.

    Args:
      system: what moves.
      values: `weight` λ, `fraction` of the steps that it is applied on (default 1),
        and the arguments of `homeostasis.penalty`.

    Returns:
      The penalty (None where its weight is zero), its weight and the fraction.

    Raises:
      ConfigError: for an unknown key or a value out of range.
    """
    known = ('weight', 'fraction', 'num_probes', 'form')
    sections.expect('homeostasis.', values, known, ('weight',))
    options = {'fraction': 1.0, **values}
    weight, fraction = options.pop('weight'), options.pop('fraction')
    numbers = {'weight': weight, 'fraction': fraction}
    sections.check_types('homeostasis.', numbers, dict.fromkeys(numbers, float))
    if weight < 0:
        raise ConfigError(f'homeostasis.weight cannot be negative: {weight}')
    if not 0 < fraction <= 1:
        raise ConfigError(
            f'homeostasis.fraction lies above 0 and up to 1, not {fraction}'
        )
    built = sections.call('homeostasis', homeostasis.penalty, options, system)
    return (built if weight else None), float(weight), float(fraction)


def kolen_pollack(
    system: System, values: Mapping[str, Any], optimizer: Mapping[str, Any]
) -> bool:
    """Returns whether paired weights share their gradients.

    Args:
      system: what moves.
      values: `kolen_pollack`, True or False.
      optimizer: the optimizer's section; it treats both of a pair alike, but for Adam
        with a decay.

    Raises:
      ConfigError: for an unknown key, a system without pairs, or an optimizer under
        which paired weights would not approach each other.
    """
    sections.expect('alignment.', values, ('kolen_pollack',), ())
    sections.check_types('alignment.', values, {'kolen_pollack': bool})
    if not values.get('kolen_pollack', False):
        return False
    if not system.pairs:
        raise ConfigError(
            'alignment.kolen_pollack=True needs paired weights: set '
            'system.feedback="free" (tied weights are aligned already, loops have no '
            'pairs)'
        )
    layers = optimizer.get('layers') or {}
    decays = [
        {**optimizer, **(layers.get(forward[0]) or {})}.get('weight_decay', 0.0)
        for forward, *_ in system.pairs
    ]
    if optimizer.get('name') == 'adam' and any(decays):
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
