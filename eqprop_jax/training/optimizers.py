"""Optimizers by name, with learning rate and weight decay per layer, on a schedule."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax

from eqprop_jax.types import Pair, Params

OPTIMIZERS = ('sgd', 'adam', 'adamw')
SCHEDULES = ('constant', 'cosine')
LAYER_OPTIONS = ('learning_rate', 'weight_decay')


def make(
    name: str,
    *,
    learning_rate: float,
    num_steps: int,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    schedule: str = 'constant',
    warmup_steps: int = 0,
    clip_norm: float | None = None,
    layers: Mapping[str, Mapping[str, float]] | None = None,
    pairs: Sequence[Pair] = (),
) -> optax.GradientTransformation:
    """Returns an optax optimizer.

        sgd     v ← μ v + (g + λ θ),  θ ← θ − η v
        adam    Adam on g + λ θ
        adamw   Adam on g, then θ ← θ − η (Adam's step + λ θ)

    η and λ are part of its state, `opt_state.hyperparams`, but for those that a layer
    has of its own and a λ of 0.

    Args:
      name: 'sgd', 'adam' or 'adamw'.
      learning_rate: η at its largest, positive.
      num_steps: length of the run, for the schedule.
      momentum: μ of sgd, from 0 to below 1.
      weight_decay: λ, at least 0; biases decay too.
      schedule: 'constant', or 'cosine' from η down to 0 at the end of the run.
      warmup_steps: W, steps of a linear rise that come first: η/W, 2η/W, ..., η.
      clip_norm: largest norm of the whole gradient, positive; None: no bound. Where an
        equilibrium is about to vanish δ grows without bound, and a single such example
        would fill Adam's memory for a thousand steps.
      layers: for top-level names of the params, a learning_rate or weight_decay of
        their own. Feedback has those of the kernel that it is paired with, under
        whichever name it is kept.
      pairs: `System.pairs`.

    Raises:
      ValueError: for an unknown name or a number outside its range.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f'no optimizer {name!r}; choose from {", ".join(OPTIMIZERS)}')
    if not 0 <= momentum < 1:
        raise ValueError(f'momentum lies from 0 to below 1, not {momentum}')
    if clip_norm is not None and not (np.isfinite(clip_norm) and clip_norm > 0):
        raise ValueError(f'clip_norm has to be positive or None, not {clip_norm}')
    common = {'learning_rate': learning_rate, 'weight_decay': weight_decay}
    own = dict(layers or {})
    _check_options('', common)
    for layer, options in own.items():
        _check_options(f'layers.{layer}.', options)
    make_schedule = functools.partial(_schedule, schedule, num_steps, warmup_steps)
    make_schedule(learning_rate)  # whatever is wrong is told now

    def rule(learning_rate: Any, weight_decay: Any) -> optax.GradientTransformation:
        return _rule(name, make_schedule(learning_rate), momentum, weight_decay)

    def whole(learning_rate: Any, weight_decay: Any) -> optax.GradientTransformation:
        common = {'learning_rate': learning_rate, 'weight_decay': weight_decay}
        found = rule(**common)
        if own:
            rules = {layer: rule(**{**common, **own[layer]}) for layer in own}
            labels = functools.partial(_labels, own, pairs)
            found = optax.partition({'': found, **rules}, labels)
        if clip_norm is None:
            return found
        return optax.chain(optax.clip_by_global_norm(clip_norm), found)

    fixed = () if weight_decay else 'weight_decay'  # of which there is none
    return optax.inject_hyperparams(whole, static_args=fixed)(**common)


def _rule(
    name: str, rate: optax.Schedule, momentum: float, weight_decay: Any
) -> optax.GradientTransformation:
    """Returns the optimizer of some layers, without decay where it is none for good."""
    if name == 'adamw':
        return optax.adamw(rate, weight_decay=weight_decay)
    rule = optax.sgd(rate, momentum or None) if name == 'sgd' else optax.adam(rate)
    if isinstance(weight_decay, float | int) and not weight_decay:
        return rule
    return optax.chain(optax.add_decayed_weights(weight_decay), rule)


def _labels(
    layers: Mapping[str, Any], pairs: Sequence[Pair], params: Params
) -> dict[str, Any]:
    """Returns for every array of the params whose rule it goes by; '': that of most."""
    unknown = sorted(layers.keys() - params.keys())
    if unknown:
        raise ValueError(
            f'no layer {", ".join(unknown)} to optimize; choose from '
            + ', '.join(sorted(params))
        )
    partners = {feedback: forward for forward, feedback, _ in pairs}

    def label(path: tuple[Any, ...], _: Any) -> str:
        names = tuple(key.key for key in path)
        layer = partners.get(names, names)[0]
        return layer if layer in layers else ''

    return jax.tree.map_with_path(label, params)


def _check_options(prefix: str, options: Mapping[str, float]) -> None:
    for name, value in options.items():
        if name not in LAYER_OPTIONS:
            raise ValueError(
                f'unknown key {prefix}{name}; choose from {", ".join(LAYER_OPTIONS)}'
            )
        least = 'positive' if name == 'learning_rate' else 'at least 0'
        if not np.isfinite(value) or value < 0 or (least == 'positive' and not value):
            raise ValueError(
                f'{prefix}{name} has to be finite and {least}, not {value}'
            )


def _schedule(
    name: str, num_steps: int, warmup_steps: int, learning_rate: Any
) -> optax.Schedule:
    if name not in SCHEDULES:
        raise ValueError(f'no schedule {name!r}; choose from {", ".join(SCHEDULES)}')
    if not 0 <= warmup_steps <= num_steps:
        raise ValueError(
            f'warmup_steps lies from 0 to the {num_steps} steps of the run, not '
            f'{warmup_steps}'
        )
    main = optax.constant_schedule(learning_rate)
    if name == 'cosine':
        rest = max(num_steps - warmup_steps, 1)
        main = optax.cosine_decay_schedule(learning_rate, rest)
    if not warmup_steps:
        return main

    first = learning_rate / warmup_steps
    rise = optax.linear_schedule(first, learning_rate, warmup_steps - 1)
    return optax.join_schedules([rise, main], [warmup_steps])
