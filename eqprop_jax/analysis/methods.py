"""Estimators as a report sees them: what each tends to, and what a sweep costs."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from eqprop_jax import estimators, nudges
from eqprop_jax.analysis import disc
from eqprop_jax.analysis.disc import Disc
from eqprop_jax.nudges import Contour, circle, one_sided, symmetric
from eqprop_jax.types import Batch, Equilibrium, Estimator, Params, Solver, System


class Method(NamedTuple):
    """An estimator to report on."""

    estimate: Estimator
    adjoint: bool
    """Whether it tends to recurrent backprop, not to the response of the dynamics."""
    settled: Estimator | None = None
    """The same with its phases settled more tightly; None: itself."""
    row_costs: tuple[float, ...] | None = None
    """Field evaluations in a sweep of each row of `info`; None: not counted."""
    disc: Callable[[Params, Batch, Equilibrium], Disc] | None = None
    """(params, batch, free) -> `disc.check` of its contour; None: no such circle."""


def default_methods(
    system: System,
    solve: Solver,
    settled: Solver | None = None,
    *,
    radius: float = 0.1,
    step_size: float = 1.0,
) -> dict[str, Method]:
    """Returns the estimators that a report is about if it is given no others.

    One-sided, symmetric, four nudges on a circle, and four points online (20 sweeps
    each, two turns of which the second counts); then the last three corrected; then
    the linear solves that these estimate. Systems that are not holomorphic take two
    points where others take four.

    Args:
      system: what moves.
      solve: relaxes the nudged phases.
      settled: the same more tightly, to tell settling and nudge apart.
      radius: |β| of all.
      step_size: of the sweeps online and of the linear solves.
    """
    count = 4 if system.holomorphic else 2
    contours = {'one-sided': one_sided(radius), 'symmetric': symmetric(radius)}
    if count > 2:
        contours[f'circle N = {count}'] = circle(radius, count)
    methods = {}
    for suffix, correction in (('', None), (', corrected', 'antisymmetric')):
        for name, contour in contours.items():
            methods[name + suffix] = contour_method(
                system, solve, settled, contour=contour, correction=correction
            )
        methods[f'online N = {count}{suffix}'] = online_method(
            system,
            radius=radius,
            num_points=count,
            correction=correction,
            step_size=step_size,
        )
    del methods['one-sided, corrected']
    tangent, exact = (
        make(system, method='aitken', step_size=step_size)
        for make in (estimators.tangent, estimators.recurrent_backprop)
    )
    methods['tangent'] = Method(tangent, finds_adjoint(system, None), None, (1,))
    methods['recurrent backprop'] = Method(exact, True, None, (1,))
    return methods


def finds_adjoint(system: System, correction: str | None) -> bool:
    """Whether nudges tend to the exact adjoint: corrected, or symmetric up to signs."""
    symmetric = system.signature is not None and not system.pairs
    return correction is not None or symmetric


def contour_method(
    system: System,
    solve: Solver,
    settled: Solver | None = None,
    *,
    contour: Contour,
    correction: str | None = None,
) -> Method:
    """Returns `estimators.contour` as a method to report on.

    Args:
      system: what moves.
      solve: relaxes the nudged phases.
      settled: the same more tightly.
      contour: the nudges.
      correction: as in `estimators.contour`.
    """

    def make(solve: Solver) -> Estimator:
        return estimators.contour(system, solve, contour=contour, correction=correction)

    return Method(
        estimate=make(solve),
        adjoint=finds_adjoint(system, correction),
        settled=None if settled is None else make(settled),
        row_costs=row_costs(system, contour, correction),
        disc=disc_check(system, settled or solve, contour, correction),
    )


def disc_check(
    system: System, solve: Solver, contour: Contour, correction: str | None
) -> Callable[[Params, Batch, Equilibrium], Disc] | None:
    """Returns `Method.disc` of a contour, its nudged phases relaxed by `solve`."""
    if nudges.halved(contour) is None:
        return None
    return lambda params, batch, free: disc.check(
        system, params, batch, free, solve, contour, correction
    )


def online_method(
    system: System,
    *,
    radius: float,
    num_points: int,
    steps_per_point: int = 20,
    correction: str | None = None,
    **options: Any,
) -> Method:
    """Returns `estimators.oscillation` as a method to report on.

    What its turn is too fast for counts as settling, as does noise: it is held against
    ten times the steps without noise.

    Args:
      system: what moves.
      radius: r.
      num_points: N.
      steps_per_point: sweeps at each point.
      correction: as in `estimators.contour`.
      **options: further ones of the estimator.
    """
    make = functools.partial(
        estimators.oscillation,
        system,
        radius=radius,
        num_points=num_points,
        correction=correction,
        **options,
    )
    turns = {key: options[key] for key in ('periods', 'burn_in') if key in options}
    return Method(
        estimate=make(steps_per_point=steps_per_point),
        adjoint=finds_adjoint(system, correction),
        settled=make(steps_per_point=10 * steps_per_point, noise=0.0),
        row_costs=online_costs(system, num_points, correction, **turns),
    )


def online_costs(
    system: System,
    num_points: int,
    correction: str | None,
    *,
    periods: int = 1,
    burn_in: int = 1,
) -> tuple[float, ...]:
    """Returns the mean of `sweep_cost` over all turns, for each of N points.

    With a correction there is a first burn-in that does without.
    """
    plain, corrected = (
        sweep_cost(system, kind, is_complex=num_points > 2)
        for kind in (None, correction)
    )
    first = burn_in if correction else 0
    rest = burn_in + periods
    mean = (first * plain + rest * corrected) / (first + rest)
    return (mean,) * num_points


def row_costs(
    system: System, contour: Contour, correction: str | None
) -> tuple[int, ...]:
    """Returns `sweep_cost` of each point that a contour relaxes, in its order."""
    return tuple(
        sweep_cost(system, correction, is_complex=part.is_complex)
        for part in contour.parts()
        for _ in part.points
    )


def sweep_cost(system: System, correction: str | None, *, is_complex: bool) -> int:
    """Returns the field evaluations in one sweep, in units of one real drive.

    A complex drive is two real ones. The correction costs nothing where the drive is
    affine in the rates or replaced by its adjoint network, and elsewhere a product with
    J and one with Jᵀ beside it.
    """
    products = 3 if correction == 'antisymmetric' and not system.affine else 1
    return products * (2 if is_complex else 1)
