"""The causes of a gradient's error, in words, and what reduces each."""

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
    error: float,
    causes: Mapping[str, float],
    symmetric_share: float,
    unsettled: float = 0.0,
    unsolved: float = 0.0,
) -> str:
    """Returns one sentence: the dominant cause, and what would reduce it.

    Args:
      name: of the method.
      error: |δ̂ − δ| / |δ|.
      causes: the same of each cause, by its name in `CAUSES`.
      symmetric_share: of J.
      unsettled: fraction of the examples of which a phase did not settle.
      unsolved: fraction of the examples for which the reference was not found.
    """
    if not unsolved <= UNKNOWN:
        return (
            f'{name}: not to be judged, since for {100 * unsolved:.3g} % of the '
            'examples there is no settled equilibrium or no adjoint to compare with; '
            'where there is one, a smaller step_size or more max_steps of solver may '
            'find it.'
        )
    if not error < RUNAWAY:
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
