"""What every estimator says of itself, and how it takes a mesh with explicit axes."""

from collections.abc import Callable

from eqprop_jax import _axes as axes
from eqprop_jax import _parts as parts
from eqprop_jax.types import Estimator, Solver, System


def marked(
    system: System, *, adjoint: bool = False
) -> Callable[[Estimator], Estimator]:
    """Returns a decorator of estimates, which leaves `.system` and `.adjoint`.

    Args:
      system: what they are of.
      adjoint: whether they tend to recurrent backprop also where J is not symmetric.
    """
    parts.check(system=system)

    def mark(estimate: Estimator) -> Estimator:
        run = axes.automatic(estimate, axes.of_estimate)
        vars(run).update(system=system, adjoint=adjoint)
        return run

    return mark


def check(system: System, solve: Solver, estimate: Estimator) -> None:
    """Raises ValueError if an estimator is known to be of another system.

    And TypeError for a part that is none.
    """
    parts.check(system=system, solve=solve, estimate=estimate)
    if getattr(estimate, 'system', system) is not system:
        raise ValueError(
            'this estimator was built of another system: build it of the one that it '
            'is used with, the very same object'
        )
