"""The causes of a gradient's error, in words, and what reduces each."""

import math
from collections.abc import Mapping

NEGLIGIBLE = 0.01  # relative error below which no cause is named
RUNAWAY = 1e3  # relative error from which on a phase has run away
UNKNOWN = 0.1  # fraction of the examples that may lack a reference
CAUSES = {
    'settling': (
        'phases that have not settled, or are noisy',
        'a smaller tol or more steps reduce it (of solver, nudged_solver or the linear '
        'solve; num_steps of BPTT; online steps_per_point, and against noise periods '
        'or the radius)',
    ),
    'nudge': (
        'the finite nudge',
        'a smaller radius or more points on the circle reduce it, like r^N, down to '
        'where real nudges meet rounding',
    ),
    'asymmetry': (
        'the asymmetry of the Jacobian',
        'the antisymmetric correction removes it, homeostasis and Kolen–Pollack '
        'alignment reduce it',
    ),
}


def sentence(
    name: str,
    layer: str,
    errors: Mapping[str, float],
    causes: Mapping[str, float],
    symmetric_share: float,
    unsettled: float = 0.0,
    unsolved: float = 0.0,
    beyond: float = 0.0,
) -> str:
    """Returns in words the dominant cause in the worst layer, and what reduces it.

    Args:
      name: of the method.
      layer: the one with the largest error.
      errors: |δ̂ − δ| / |δ|, by layer and in 'total'.
      causes: the same of each cause in that layer, by its name in `CAUSES`.
      symmetric_share: of J.
      unsettled: fraction of the examples of which a phase did not settle.
      unsolved: fraction of the examples for which the reference was not found.
      beyond: fraction of the examples for which the radius is too large.
    """
    error = errors[layer]
    if not unsolved <= UNKNOWN:
        said = (
            f'not to be judged, since for {100 * unsolved:.3g} % of the examples there '
            'is no settled equilibrium or no adjoint to compare with; where there is '
            'one, a smaller step_size or more max_steps of solver may find it.'
        )
    elif not error < RUNAWAY:
        what = f'δ of {layer} is {error:.1g} times its length off'
        if not math.isfinite(error):
            what = f'δ of {layer} is not finite'
        if unsettled:
            what = f'{100 * unsettled:.3g} % of the examples do not settle'
        said = (
            f'{what}; a smaller radius or step_size, more max_steps or, for a linear '
            'solve, method="krylov" may help.'
        )
    elif error < NEGLIGIBLE:
        said = f'every layer within {error:.1g} of recurrent backprop, nothing to mend.'
    else:
        dominant = max(causes, key=causes.__getitem__)
        what, remedy = CAUSES[dominant]
        if dominant == 'asymmetry':
            what += f' (symmetric share {symmetric_share:.2f})'
        said = (
            f'δ of {layer}, the worst layer, is {100 * error:.3g} % off recurrent '
            f'backprop ({100 * errors["total"]:.3g} % in all), most of it '
            f'({100 * causes[dominant]:.3g} %) by {what}; {remedy}.'
        )
    if beyond:
        said += (
            f' For {100 * beyond:.3g} % of the examples the radius lies beyond, or '
            'close to, the disc on which s(β) is analytic: take a smaller one.'
        )
    return f'{name}: {said}'
