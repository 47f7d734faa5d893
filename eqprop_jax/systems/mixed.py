"""Mixed precision: a twin of a system whose products are taken in bfloat16.

Parameters, potentials and sums stay as they are; the twin's drive rounds the weights,
and what they multiply, to bfloat16 (`eqprop_jax.products`). Complex potentials are
split into real and imaginary parts, each rounded relative to its own size, so that a
small imaginary nudge is as well resolved as a large one.

A relaxation in the twin's field stops near the equilibrium, off by the rounding of
eight bits; `solvers.polished` then relaxes the field itself to the tolerance asked for.
"""

import jax
import jax.numpy as jnp

from eqprop_jax.types import Injection, Params, Rates, State, System


def mixed(system: System) -> System:
    """Returns the system with a rough twin, for `solvers.polished`.

    The injection, which is computed once, and the cost keep their precision. Only
    products of `eqprop_jax.linear` become cheaper: a drive of your own that multiplies
    in another way is rounded without a gain.

    Args:
      system: what moves.
    """

    def drive(params: Params, injection: Injection, rates: Rates) -> State:
        rounded = jax.tree.map(
            lambda w: w.astype(jnp.bfloat16) if w.ndim > 1 else w, params
        )
        return system.drive(rounded, injection, rates)

    thin = system.thin
    return system._replace(
        rough=system._replace(drive=drive, thin=None),
        thin=thin and (lambda rng, numbers: mixed(thin(rng, numbers))),
    )
