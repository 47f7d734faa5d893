"""Dropout of the readout: an estimator whose cost sees a random part of the units.

The mask is drawn once for each example and batch and stays through all nudges, since
what nudges the network and what its gradient is taken of must be one cost. The free
phase has no nudge and knows nothing of it.

References:
  Laborieux et al. 2021, https://arxiv.org/abs/2006.03824
"""

from collections.abc import Callable

import jax

from eqprop_jax.estimators._marked import marked
from eqprop_jax.types import Batch, Equilibrium, Estimate, Estimator, Params, System


def dropout(system: System, make: Callable[[System], Estimator]) -> Estimator:
    """Returns the estimator of a system whose readout drops units at random.

    Args:
      system: what moves, with `thin`.
      make: builds the estimator of a given system.

    Returns:
      estimate(params, batch, free, rng) -> Estimate; it needs a key.

    Raises:
      ValueError: if the system has no dropout; the estimate itself raises it where it
        gets no key.
    """
    thin = system.thin
    if thin is None:
        raise ValueError(
            'this system has no dropout: build it with dropout above 0, or use its '
            'estimator as it is'
        )
    whole = make(system)  # refuses at once what does not fit

    @marked(system, adjoint=getattr(whole, 'adjoint', True))
    def estimate(
        params: Params, batch: Batch, free: Equilibrium, rng: jax.Array | None
    ) -> Estimate:
        if rng is None:
            raise ValueError('dropout needs a key: pass rng')
        own, rng = jax.random.split(rng)
        return make(thin(own, batch.numbers))(params, batch, free, rng)

    return estimate
