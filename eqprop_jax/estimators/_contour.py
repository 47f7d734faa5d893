"""Error vectors from nudged equilibria on a contour, and the antisymmetric correction.

    δ = Σ_k Re[w_k (s(β_k) − s*)]

As the contour shrinks, δ becomes the response of the dynamics, (J − Λ) δ = g. The
gradient needs the adjoint, with Jᵀ: plain EP is biased wherever J is not symmetric.
The correction removes that bias. In the nudged phases F is replaced by

    F(u) − (J − Jᵀ)(s − s*)          J at the free equilibrium

whose linear response is the adjoint's, and whose equilibria stay analytic in β, so
that an N-point contour is exact up to O(r^N) without weight symmetry. Where D is not
affine in the rates this costs three times F. Only the linear response matters, so that
the adjoint network

    D(s*) + Jᵀ(s − s*) − u

does as well at the cost of F; where D is affine the two are one and the same field.

References:
  Laborieux and Zenke 2022, https://arxiv.org/abs/2209.00530
  Laborieux and Zenke 2024, https://arxiv.org/abs/2309.02214
  Scurria et al. 2026, antisymmetric correction, https://arxiv.org/abs/2602.03670
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jax.typing import ArrayLike

from eqprop_jax import dynamics, jacobian, tree
from eqprop_jax._program import Drive
from eqprop_jax.estimators import _local_rule as local_rule
from eqprop_jax.estimators import _phases as phases
from eqprop_jax.estimators._marked import marked
from eqprop_jax.jacobian import Jacobian
from eqprop_jax.noise import Disturb, disturbance
from eqprop_jax.noise import check as check_noise
from eqprop_jax.nudges import Contour
from eqprop_jax.types import (
    Batch,
    Equilibrium,
    Estimate,
    Estimator,
    Field,
    Injection,
    Params,
    Rates,
    Solver,
    State,
    System,
)

CORRECTIONS = (None, 'antisymmetric', 'adjoint')


def contour(
    system: System,
    solve: Solver,
    *,
    contour: Contour,
    correction: str | None = None,
    noise: float = 0.0,
    skip_unconverged: bool = False,
    batched: bool | None = None,
    warm_start: bool = False,
    axis_name: str | None = None,
) -> Estimator:
    """Equilibrium propagation over any contour, with the local (vector-field) rule.

    Error: the contour's O(r^N) in δ; the solver's `tol` in every layer, or ε|u*|/(r|δ|)
    where a real nudge is so small that rounding, ε, is larger; about noise/r; and
    without correction the asymmetry's, to first order δ − δ_exact ≈ −2 (S − Λ)⁻¹ A δ
    with S, A = (J ± Jᵀ)/2.

    Args:
      system: what moves.
      solve: relaxes the nudged phases, which start from the free equilibrium.
      contour: from `eqprop_jax.nudges`.
      correction: None; 'antisymmetric' or 'adjoint' for the exact adjoint's response,
        by adding −(J − Jᵀ)(s − s*) to the field or by linearizing it.
      noise: standard deviation σ of what is added to every potential after every
        sweep (`eqprop_jax.noise`). It needs a key, and `solvers.unrolled`. The nudged
        phases have it, and one more free phase of as many sweeps, from the last state
        of which they start and δ is measured. J and the local rule keep the given
        equilibrium: with the same noise in both factors of the rule one-sided nudges
        would have a bias of Cov(s*)/β.
      skip_unconverged: leave out of the mean what has not converged in any phase;
        False: only what runs away or is lost (`local_rule.account`).
      batched: relax the points together (`vmap`), or one after the other (`lax.scan`),
        with the memory of one and no idle sweeps. None: together, but on a CPU.
      warm_start: where points are relaxed one after the other, start all but the first
        at u* + (β_k/β_1) (u(β_1) − u*) and not at u*, which saves sweeps.
      axis_name: of devices, as in `jax.shard_map`, that divide the points, of which
        there are no fewer; residuals are relative to the responses of one device.

    Returns:
      An estimator. `info` has a row for each relaxed point; the key draws signs, noise.

    Raises:
      ValueError: for complex points on a system that is not holomorphic, an unknown
        correction, a negative noise, or noise together with `skip_unconverged`.
    """
    phases.check(system, contour, solve=solve)
    check_correction(correction)
    check_noise(noise)
    if noise and skip_unconverged:
        raise ValueError('under noise nothing converges: leave skip_unconverged out')
    ways = phases.Ways(solve, contour, batched, warm_start, axis_name)

    @marked(system, adjoint=correction is not None)
    def estimate(
        params: Params, batch: Batch, free: Equilibrium, rng: jax.Array | None
    ) -> Estimate:
        injection = dynamics.injected(system, params, batch.x, free)
        field_at = nudged_from(system, params, injection, free, correction)
        noise_of = _noise_of(noise, batch, rng) if noise else None
        outcome, _, _ = phases.relax(
            system, ways, params, batch, injection, free, field_at, rng, noise_of
        )
        if correction is None:
            outcome = outcome._replace(error=dynamics.signed(system, outcome.error))
        push = None
        if not noise:
            push = dynamics.cost_gradient(system, params, batch.y)(free.rates)
        return local_rule.credit(
            system,
            params,
            batch,
            free,
            outcome,
            push,
            skip_unconverged=skip_unconverged,
        )

    return estimate


def _noise_of(
    noise: float, batch: Batch, rng: jax.Array | None
) -> Callable[[ArrayLike, ArrayLike], Disturb]:
    """Returns (number of the phase, β) ↦ its noise."""
    if rng is None:
        raise ValueError('noise needs a key: pass rng')
    own = jax.random.fold_in(rng, phases.FREE)  # the key itself draws signs
    return lambda number, beta: disturbance(
        noise,
        jax.random.fold_in(own, number),
        batch.numbers,
        imaginary=jnp.imag(beta) != 0,  # none where a real nudge is made complex
    )


def nudged_from(
    system: System,
    params: Params,
    injection: Injection,
    free: Equilibrium,
    correction: str | None,
) -> Callable[[Equilibrium], Field]:
    """Returns (u*, real or complex) ↦ the field of nudged phases, anchored there."""
    if correction is None:
        field = dynamics.free_field(system, params, injection)
        drive = field.drive(free.rates)
        return lambda anchor: dynamics.anchored(field, anchor, drive)
    J = jacobian.linearize(system, params, injection, free.rates)
    return lambda anchor: corrected_field(
        system, params, injection, free.rates, correction, anchor, J
    )


def corrected_field(
    system: System,
    params: Params,
    injection: Injection,
    free: Rates,
    correction: str = 'antisymmetric',
    anchor: Equilibrium | None = None,
    J: Jacobian | None = None,
) -> Field:
    """Returns the field of the nudged phases, with J at the free point s*.

        antisymmetric    F(u) − (J − Jᵀ)(s − s*)
        adjoint          D(s*) + Jᵀ(s − s*) − u

    The second costs no more than F, and is taken for the first wherever D is affine in
    the rates.

    Args:
      system: what moves.
      params: θ.
      injection: `system.inject(params, x)`.
      free: s*, real.
      correction: 'antisymmetric' or 'adjoint'.
      anchor: u* in the type of the states to come, to subtract F(u*): then D(s*) reads
        u*. None: F is left as it is.
      J: that at s*, if it is known.
    """
    field = dynamics.free_field(system, params, injection)
    if J is None:
        J = jacobian.linearize(system, params, injection, free)

    def adjoint(J: Jacobian, rest: State, free: Rates, rates: Rates) -> State:
        return tree.add(rest, J.transpose(tree.sub(rates, free)))

    def antisymmetric(J: Jacobian, own: Drive, free: Rates, rates: Rates) -> State:
        shift = tree.sub(rates, free)
        return tree.sub(own(rates), tree.sub(J.apply(shift), J.transpose(shift)))

    if system.affine or correction == 'adjoint':
        rest = J.drive if anchor is None else anchor.state
        return field._replace(drive=Partial(adjoint, J, rest, free))
    if anchor is not None:
        field = dynamics.anchored(field, anchor, J.drive)
    return field._replace(drive=Partial(antisymmetric, J, field.drive, free))


def check_correction(correction: str | None) -> None:
    """Raises ValueError, listing the choices, unless there is such a correction."""
    if correction not in CORRECTIONS:
        raise ValueError(
            f'no correction {correction!r}; choose from None, "antisymmetric", '
            '"adjoint"'
        )
