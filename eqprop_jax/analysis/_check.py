"""Does it settle, and is its gradient right: a network looked at in one call."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from eqprop_jax import _parts as parts
from eqprop_jax.analysis._bias import bias
from eqprop_jax.analysis._causes import UNKNOWN
from eqprop_jax.analysis.methods import Method, contour_method, finds_adjoint
from eqprop_jax.nudges import Contour, complex_step, symmetric
from eqprop_jax.solvers import relaxation
from eqprop_jax.types import Batch, Estimator, Params, Solver, System


class Check(NamedTuple):
    """What `check` finds, as plain numbers."""

    settled: float
    """Fraction of the examples whose free phase settles."""
    spectral_radius: float
    """Of J diag(σ′), the largest over the batch; synchronous sweeps settle below 1."""
    worst_layer: str
    """The layer whose δ is furthest off that of recurrent backprop."""
    error: float
    """|δ̂ − δ| / |δ| there."""
    cosine: float
    """Of δ̂ and δ there."""
    advice: str
    """What is most wrong, and what would reduce it."""


def check(
    system: System,
    params: Params,
    batch: Batch,
    solve: Solver | None = None,
    estimate: Estimator | None = None,
    *,
    contour: Contour | None = None,
    correction: str | None = None,
    rng: jax.Array | None = None,
) -> Check:
    """Returns whether a network settles, and how far off its gradient is, and why.

    `analysis.bias` has all layers, other estimators and every cause. Not for inside
    `jit`: it returns plain numbers.

    Args:
      system: what moves.
      params: θ.
      batch: inputs and targets; some dozens are enough.
      solve: relaxes the free and the nudged phases; None: `solvers.relaxation()`.
      estimate: whose gradient is looked at; None: that of EP by a contour, plain unless
        there is a correction. The advice begins with which of them it is.
      contour: its nudges; None: a complex step of 1e-3, or two real nudges of ±0.1
        where the system is not holomorphic.
      correction: of EP, as in `estimators.contour`.
      rng: key of random probes; None: that of 0.

    Raises:
      TypeError: for a part that is none.
      ValueError: as `estimators.contour`; for a contour or correction beside an
        estimator, an empty batch, and inputs or costs that are not finite, as those of
        class indices out of range are.
    """
    parts.check(system=system)
    if estimate is not None:
        parts.check(estimate=estimate)
        if contour or correction:
            raise ValueError('an estimator has its own contour and correction')
    solve = relaxation() if solve is None else solve
    if contour is None:
        contour = complex_step(1e-3) if system.holomorphic else symmetric(0.1)
    _check_finite(system, params, batch)
    method = contour_method(system, solve, contour=contour, correction=correction)
    name = 'plain EP' if correction is None else 'corrected EP'
    if estimate is not None:
        tends = getattr(estimate, 'adjoint', True) or finds_adjoint(system, None)
        name, method = 'this estimator', Method(estimate, tends)
    report = bias(system, params, batch, solve, methods={name: method}, rng=rng)
    found = report.methods[name]
    advice = found.sentence
    for phases, unsettled in (
        ('nudged phases', found.unsettled),
        ('free phases', report.unsettled),
    ):
        if not unsettled <= UNKNOWN:
            advice = (
                f'{100 * unsettled:.3g} % of the {phases} do not settle, and gradients '
                'say little; more max_steps, a smaller step_size or solvers.aitken may '
                'reach an equilibrium, and smaller weights have one.'
            )
    return Check(
        1 - report.unsettled, report.spectral_radius, *found.worst, advice=advice
    )


def _check_finite(system: System, params: Params, batch: Batch) -> None:
    """Raises ValueError for what no number of sweeps would mend."""
    if not len(batch.x):
        raise ValueError('the batch is empty: there is nothing to look at')
    if not jnp.all(jnp.isfinite(batch.x)):
        raise ValueError('inputs hold NaN or infinity: remove or repair them')

    @jax.jit
    def costs(params: Params, batch: Batch) -> Array:
        rest = system.rest(system.inject(params, batch.x))
        return system.cost(params, system.rates(rest), batch.y)

    bad = jnp.flatnonzero(~jnp.isfinite(costs(params, batch)))
    if bad.size:
        raise ValueError(
            f'the cost of example {bad[0]} is not finite where the network rests: is '
            'its target a class that there is?'
        )
