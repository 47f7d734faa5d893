"""What is measured of examples while a network learns, and what there is to doubt."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from eqprop_jax import tree
from eqprop_jax.types import Batch, Equilibrium, Params, System

Values = dict[str, Array]

ENOUGH = 0.9  # of the examples are settled in a good run


class Tally(struct.PyTreeNode):
    """What was measured of some examples; tallies of others are added to it."""

    sums: Any
    """Pytree: of each quantity the sum over them."""
    largest: Any
    """`Values`: of others the largest."""

    def __add__(self, other: 'Tally') -> 'Tally':
        """Returns the tally of both."""
        largest = jax.tree.map(jnp.maximum, self.largest, other.largest)
        return Tally(tree.add(self.sums, other.sums), largest)


def tally(batch: Batch, values: Values, largest: Values) -> Tally:
    """Returns that of the examples of a batch that are no fillers; 'count' of them.

    Args:
      batch: what was measured of.
      values: to add up, [B], or [] where one number is the mean of these examples.
      largest: of which the largest is looked for, [B]; not negative.
    """

    def known(value: Array) -> Array:
        return jnp.where(batch.counted, value, 0)

    count = jnp.sum(batch.counted.astype(batch.x.dtype))
    sums = {name: jnp.sum(known(value)) for name, value in values.items()}
    return Tally(
        {'count': count, **sums},
        {name: jnp.max(known(value)) for name, value in largest.items()},
    )


def means(tally: Tally) -> Values:
    """Returns the means, and the largest as 'max_...': what records have."""
    count = jnp.maximum(tally.sums['count'], 1)
    found = {name: value / count for name, value in tally.sums.items()}
    del found['count']
    return found | {f'max_{name}': value for name, value in tally.largest.items()}


def of_equilibrium(
    system: System,
    params: Params,
    batch: Batch,
    free: Equilibrium,
    variance: float | None = None,
) -> tuple[Values, Values]:
    """Returns what is measured of every free equilibrium: the arguments of `tally`.

    The error is 1 for an example of which another class is predicted than it has, or
    else 0; or of continuous targets its part of the variance that is not explained,
    |ŷ − y|² / variance, of which the mean is 1 − R².

    Args:
      system: what moves.
      params: θ.
      batch: inputs and targets.
      free: its free equilibria.
      variance: of continuous targets; None: they are one-hot.
    """
    scores = system.predict(params, free.rates)
    error = errors(scores, batch.y, variance)
    residual = at_most_all(free.residual)
    num_steps = free.num_steps.astype(scores.dtype)
    values = {
        'loss': system.cost(params, free.rates, batch.y),
        'error': error,
        'residual': residual,
        'converged': free.converged.astype(scores.dtype),
        'free_steps': num_steps,
    }
    return values, {'residual': residual, 'free_steps': num_steps}


def errors(
    scores: Float[Array, 'B n'],
    y: Float[Array, 'B ...'],
    variance: float | None = None,
) -> Float[Array, ' B']:
    """Returns the error of each example, as in `of_equilibrium`."""
    if variance is None:
        wrong = ranks(scores, jnp.argmax(y, axis=-1)) > 0
        return wrong.astype(scores.dtype)
    return jnp.sum((scores - y.reshape(scores.shape)) ** 2, axis=1) / variance


def ranks(
    scores: Float[Array, 'B classes'], labels: Int[Array, ' B']
) -> Int[Array, ' B']:
    """Returns how many classes are scored before the true one, 0 where it is predicted.

    Of equal scores the first class comes first, as in `argmax`. A score of NaN comes
    before the true class, whichever it is; where the true one's is NaN all classes do.
    """
    true = jnp.take_along_axis(scores, labels[:, None], axis=1)
    first = jnp.arange(scores.shape[1])[None] < labels[:, None]
    behind = (scores < true) | ((scores == true) & ~first)
    return jnp.sum(~behind, axis=1)


def at_most_all(residual: Array) -> Array:
    """Returns residuals up to 1, which those have that are larger, infinite or NaN."""
    return jnp.where(residual < 1, residual, 1)


def of_phases(
    rows: Sequence[Mapping[str, Any]], steps_per_epoch: int
) -> dict[str, dict[str, float]]:
    """Returns which fractions `settled` in all phases and were `skipped`, in training.

    Args:
      rows: from `records.read`.
      steps_per_epoch: of the run, which has ended.

    Returns:
      Means over the `whole_run`, and over its `last_epoch`.
    """
    rows = [row for row in rows if row['split'] == 'train']
    ends = np.array([0, *(row['step'] for row in rows)])
    names = ('settled', 'skipped')
    known = [all(name in row for name in names) for row in rows]  # else it is older
    last = ends[1:] > ends[-1] - steps_per_epoch
    found: dict[str, dict[str, float]] = {'whole_run': {}, 'last_epoch': {}}
    for part, which in zip(found, (True, last), strict=True):
        steps = np.diff(ends) * known * which
        for name in names if steps.any() else ():
            values = [row.get(name) or 0 for row in rows]
            found[part][name] = float(np.average(values, weights=steps))
    return found


def doubts(converged: float, phases: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Returns what is to be said of phases that did not settle.

    Args:
      converged: fraction of the free phases that did in the last evaluation.
      phases: from `of_phases`.
    """
    found = []
    if not converged >= ENOUGH:
        found.append(
            f'only {100 * converged:.0f} % of the test examples settled within '
            'solver.max_steps to solver.tol at the end: gradients were taken away from '
            'equilibrium'
        )
    settled, part = min((p.get('settled', 1.0), name) for name, p in phases.items())
    if settled < ENOUGH:
        found.append(
            f'only {100 * settled:.0f} % of the training examples settled in all '
            f'phases of the {part.replace("_", " ")}: gradients were read off phases '
            'that had not ended'
        )
    skipped, part = max((p.get('skipped', 0.0), name) for name, p in phases.items())
    if skipped > 1 - ENOUGH:
        found.append(
            f'{100 * skipped:.0f} % of the training examples of the '
            f'{part.replace("_", " ")} were left out of the gradient: their phases '
            'gave no response'
        )
    return found
