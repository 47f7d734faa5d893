"""Optimizers by name, with learning rate and weight decay per layer, on a schedule."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax

from eqprop_jax import tree
from eqprop_jax.types import Pair

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
    _check_options('', {'learning_rate': learning_rate, 'weight_decay': weight_decay})
    if name not in OPTIMIZERS:
        raise ValueError(f'no optimizer {name!r}; choose from {", ".join(OPTIMIZERS)}')
    if not 0 <= momentum < 1:
        raise ValueError(f'momentum lies from 0 to below 1, not {momentum}')
    if clip_norm is not None and not (np.isfinite(clip_norm) and clip_norm > 0):
        raise ValueError(f'clip_norm has to be positive or None, not {clip_norm}')
    chosen = dict(layers or {})
    for layer, own in chosen.items():
        _check_options(f'layers.{layer}.', own)
    _schedule(schedule, 1.0, num_steps, warmup_steps)

    def one(learning_rate: Any, weight_decay: Any) -> optax.GradientTransformation:
        rate = _schedule(schedule, learning_rate, num_steps, warmup_steps)
        if name == 'adamw':
            return optax.adamw(rate, weight_decay=weight_decay)
        rule = optax.sgd(rate, momentum or None) if name == 'sgd' else optax.adam(rate)
        if isinstance(weight_decay, float | int) and not weight_decay:
            return rule
        return optax.chain(optax.add_decayed_weights(weight_decay), rule)

    def bounded(rule: optax.GradientTransformation) -> optax.GradientTransformation:
        if clip_norm is None:
            return rule
        return optax.chain(optax.clip_by_global_norm(clip_norm), rule)

    def labels(params: dict[str, Any]) -> dict[str, Any]:
        unknown = sorted(set(chosen) - set(params))
        if unknown:
            raise ValueError(
                f'no layer {", ".join(unknown)} to optimize; choose from '
                + ', '.join(sorted(params))
            )
        found = {
            layer: jax.tree.map(
                lambda _, own=layer if layer in chosen else '': own, leaves
            )
            for layer, leaves in params.items()
        }
        for forward, feedback, _ in pairs:
            found = tree.replace(found, feedback, tree.get(found, forward))
        return found

    def optimizer(
        learning_rate: Any, weight_decay: Any
    ) -> optax.GradientTransformation:
        options = {'learning_rate': learning_rate, 'weight_decay': weight_decay}
        if not chosen:
            return bounded(one(**options))
        rules = {layer: one(**{**options, **own}) for layer, own in chosen.items()}
        return bounded(optax.partition({'': one(**options), **rules}, labels))

    fixed = () if weight_decay else 'weight_decay'  # of which there is none
    return optax.inject_hyperparams(optimizer, static_args=fixed)(
        learning_rate=learning_rate, weight_decay=weight_decay
    )


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
    name: str, learning_rate: Any, num_steps: int, warmup_steps: int
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
        main = optax.cosine_decay_schedule(
            learning_rate, max(num_steps - warmup_steps, 1)
        )
    if not warmup_steps:
        return main

    def rise(step: Any) -> Any:
        return learning_rate * (step + 1) / warmup_steps

    return optax.join_schedules([rise, main], [warmup_steps])
