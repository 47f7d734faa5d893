"""What every estimator says of itself, and how it takes a mesh with explicit axes."""

from collections.abc import Callable

from eqprop_jax import _axes as axes
from eqprop_jax.types import Estimator, System


def marked(
    system: System, *, adjoint: bool = False
) -> Callable[[Estimator], Estimator]:
    """Returns a decorator of estimates, which leaves `.system` and `.adjoint`.

    Args:
      system: what they are of.
      adjoint: whether they tend to recurrent backprop also where J is not symmetric.
    """

    def mark(estimate: Estimator) -> Estimator:
        run = axes.automatic(estimate, axes.of_estimate)
        vars(run).update(system=system, adjoint=adjoint)
        return run

    return mark


def check(system: System, estimate: Estimator) -> None:
    """Raises ValueError if an estimator is known to be of another system."""
    if getattr(estimate, 'system', system) is not system:
        raise ValueError(
            'this estimator was built of another system: build it of the one that it '
            'is used with, the very same object'
        )
