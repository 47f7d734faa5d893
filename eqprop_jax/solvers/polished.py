"""Relaxation in two parts: roughly first, in a cheaper field, then to the tolerance."""

import jax.numpy as jnp

from eqprop_jax import tree
from eqprop_jax.types import Equilibrium, Field, Solver, State


def polished(solve: Solver, rough: Solver) -> Solver:
    """Relaxes the field's rough twin, then the field itself from there.

    What comes out is an equilibrium of the field to the tolerance of `solve`, whatever
    the twin was worth; an example that did not end in finite numbers in the first part
    starts the second where the whole started.

    Args:
      solve: the second part; its tolerance is that of the result.
      rough: the first part. Its tolerance need not lie below what the twin's rounding
        leaves, about 4e-3 in bfloat16.

    Returns:
      solve(field, state) -> Equilibrium, with the sweeps of both parts in `num_steps`.
      It raises ValueError for a field without a twin.
    """

    def run(field: Field, state: State) -> Equilibrium:
        if getattr(field, 'rough', None) is None:
            raise ValueError(
                'this field has no rough twin: build the system by '
                'systems.mixed(system)'
            )
        start = rough(field.rough, state)
        finite = jnp.isfinite(tree.per_example_norm(start.state))
        end = solve(field, tree.select(finite, start.state, state))
        return end._replace(num_steps=start.num_steps + end.num_steps)

    return run
