"""How the cost of a gradient grows with width, depth, batch, points and tolerance.

Cost is counted and not timed, so that it is the same on every machine: evaluations of
the drive for each example, a complex one for two, in the free phase and under all
nudges of a contour with the antisymmetric correction.

    alone         an example stops with its own last sweep
    compacted     what is left of a batch is gathered (`solvers._settle`)
    together      the batch sweeps until its last example has stopped

A power law, evaluations ∝ value^p, is fitted to what grows with a size; for a tolerance
it is the number of evaluations for another decade.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array

from eqprop_jax import dynamics, estimators, nudges, solvers, systems, tree
from eqprop_jax.analysis.methods import row_costs
from eqprop_jax.solvers._settle import sizes
from eqprop_jax.types import Batch, Equilibrium, Info, Params, Solver
from experiments import flops

RADIUS = 0.1
MAX_STEPS = 1000


class Setting(NamedTuple):
    """A network, a batch and how finely they are relaxed."""

    width: int = 128
    """Units of each layer."""
    depth: int = 2
    """Layers that settle."""
    batch_size: int = 64
    num_points: int = 2
    """Nudges on the circle, with a half step; even."""
    tol: float = 1e-3
    """Of both phases."""


DEFAULT = Setting()


class Cost(NamedTuple):
    """Evaluations of the drive per example, and what they are good for."""

    alone: float
    compacted: float
    together: float
    flops: float
    """Operations of their products for each example, compacted."""
    cosine: float
    """Of the gradient to the exact one."""
    settled: float
    """Fraction of the examples that settled in all phases."""


VARIANTS: dict[str, tuple[float, Callable[..., Solver]]] = {
    '90°, plain sweeps': (90.0, solvers.relaxation),
    '0°, plain sweeps': (0.0, solvers.relaxation),
    '0°, Anderson mixing': (0.0, solvers.anderson),
}


def cost(
    images: Array,
    labels: Array,
    setting: Setting,
    variant: str,
    rng: jax.Array,
) -> Cost:
    """Returns the cost of one gradient of an untied network at initialisation.

    Args:
      images: inputs, at least a batch of them.
      labels: one-hot.
      setting: what network and how.
      variant: angle of the feedback and solver, a key of `VARIANTS`.
      rng: key of the weights.
    """
    angle, solver = VARIANTS[variant]
    hidden = (setting.width,) * setting.depth
    system = systems.mlp(
        (int(np.prod(images.shape[1:])), *hidden, labels.shape[1]),
        feedback='free',
        angle=angle,
    )
    batch = Batch(images[: setting.batch_size], labels[: setting.batch_size])
    solve = solver(tol=setting.tol, max_steps=MAX_STEPS, compact=False)
    circle = nudges.circle(RADIUS, setting.num_points, half_step=True)
    corrected = 'antisymmetric'
    estimate = estimators.contour(system, solve, contour=circle, correction=corrected)
    tight = solvers.anderson(tol=1e-6, max_steps=MAX_STEPS)
    exact = estimators.recurrent_backprop(system, method='anderson', tol=1e-6)

    def run(params: Params, batch: Batch) -> tuple[Equilibrium, Info, Array]:
        free = dynamics.relax(system, params, batch.x, solve)
        grads, _, info = estimate(params, batch, free, None)
        best = dynamics.relax(system, params, batch.x, tight)
        wanted = exact(params, batch, best, None).grads
        return free, info, tree.cosine(grads, wanted)

    params = system.init(rng, batch.x)
    free, info, cosine = jax.jit(run)(params, batch)
    steps = np.concatenate([np.asarray(free.num_steps)[None], info.num_steps])
    weights = np.array([1, *row_costs(system, circle, corrected)])

    def evaluations(swept: Callable[[np.ndarray], float]) -> float:
        return float(weights @ [1 + swept(one) for one in steps])

    count = setting.batch_size
    compacted = evaluations(lambda one: flops.rows(one, sizes(count)) / count)
    rest = system.rest(system.inject(params, batch.x))
    drive = flops.count(
        system.drive, params, system.inject(params, batch.x), system.rates(rest)
    )
    return Cost(
        alone=evaluations(lambda one: float(np.mean(one))),
        compacted=compacted,
        together=evaluations(lambda one: float(np.max(one))),
        flops=compacted * drive / count,
        cosine=float(cosine),
        settled=float(info.converged),
    )


def scaling_data(
    images: Array,
    labels: Array,
    rng: jax.Array,
    axes: Mapping[str, Sequence[Any]],
    start: Setting = DEFAULT,
) -> dict[str, Any]:
    """Measures what figures.scaling draws.

    Args:
      images: inputs, at least the largest batch.
      labels: one-hot.
      rng: key of the weights.
      axes: fields of `Setting`, each with the values that it takes.
      start: the rest of them.

    Returns:
      For each axis its values, and for each variant lists of the fields of `Cost` with
      the law that was fitted, in plain numbers.
    """
    known: dict[tuple[Setting, str], Cost] = {}

    def once(setting: Setting, variant: str) -> Cost:
        if (setting, variant) not in known:
            known[setting, variant] = cost(images, labels, setting, variant, rng)
        return known[setting, variant]

    data: dict[str, Any] = {}
    for axis, values in axes.items():
        law = per_decade if axis == 'tol' else exponent
        data[axis] = {'values': list(values), 'variants': {}}
        for variant in VARIANTS:
            costs = [once(start._replace(**{axis: value}), variant) for value in values]
            data[axis]['variants'][variant] = {
                **{
                    name: [getattr(one, name) for one in costs] for name in Cost._fields
                },
                'law': law(values, [one.compacted for one in costs]),
            }
    return data


def exponent(values: Sequence[Any], costs: Sequence[float]) -> float:
    """Returns p of cost ∝ value^p, by least squares of the logarithms."""
    if len(values) < 2:
        return float('nan')
    return float(np.polyfit(np.log(values), np.log(costs), 1)[0])


def per_decade(tols: Sequence[float], costs: Sequence[float]) -> float:
    """Returns how much a cost rises when the tolerance falls to a tenth."""
    if len(tols) < 2:
        return float('nan')
    return float(-np.polyfit(np.log10(tols), costs, 1)[0])
