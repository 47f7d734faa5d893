"""The causes of a gradient's error, in words, and what reduces each."""

from collections.abc import Mapping

import numpy as np

NEGLIGIBLE = 0.01  # relative error below which no cause is named
CAUSES = {
    'settling': (
        'phases that stop before they have settled',
        'a smaller tol or a larger max_steps of solver and nudged_solver, or online '
        'more steps_per_point, reduce it',
    ),
    'nudge': (
        'the finite nudge',
        'a smaller radius or more points on the circle reduce it, like r^N',
    ),
    'asymmetry': (
        'the asymmetry of the Jacobian',
        'correction="antisymmetric" removes it, homeostasis and Kolen–Pollack '
        'alignment reduce it',
    ),
}


def sentence(
    name: str,
    error: float,
    causes: Mapping[str, float],
    symmetric_share: float,
    unsettled: float = 0.0,
) -> str:
    """Returns one sentence: the dominant cause, and what would reduce it.

    Args:
      name: of the method.
      error: |δ̂ − δ| / |δ|.
      causes: the same of each cause, by its name in `CAUSES`.
      symmetric_share: of J.
      unsettled: fraction of the examples of which a phase did not settle.
    """
    if not np.isfinite(error) or (error > 1 and unsettled):
        share = f'{100 * unsettled:.3g} % of the examples do not settle'
        return (
            f'{name}: {share if unsettled else "not finite"}; a smaller radius or '
            'step_size, more max_steps or, for a linear solve, method="krylov" may '
            'help.'
        )
    if error < NEGLIGIBLE:
        return f'{name}: within {error:.1g} of recurrent backprop, nothing to mend.'
    dominant = max(causes, key=lambda cause: causes[cause])
    what, remedy = CAUSES[dominant]
    if dominant == 'asymmetry':
        what += f' (symmetric share {symmetric_share:.2f})'
    return (
        f'{name}: {100 * error:.3g} % off recurrent backprop, most of it '
        f'({100 * causes[dominant]:.3g} %) by {what}; {remedy}.'
    )
