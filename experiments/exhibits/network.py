"""A network at its free equilibrium, and its numbers as JSON has them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eqprop_jax import dynamics, tree
from eqprop_jax.estimators import recurrent_backprop, tangent
from eqprop_jax.solvers import relaxation
from eqprop_jax.types import (
    Batch,
    Equilibrium,
    Estimator,
    Params,
    Rates,
    Solver,
    System,
)

TOL = 1e-14  # of all that is referred to
MAX_STEPS = 5000


class Network(NamedTuple):
    """A network at its free equilibrium."""

    system: System
    params: Params
    batch: Batch
    free: Equilibrium
    solve: Solver

    def __call__(self, estimate: Estimator) -> Rates:
        """Returns the error vector that an estimator finds."""
        return jax.jit(estimate)(self.params, self.batch, self.free, None).error

    def exact(self) -> Rates:
        """Returns that of recurrent backprop, (Jᵀ − Λ) δ = ∂C/∂s, to 1e-14."""
        return self(recurrent_backprop(self.system, tol=TOL, max_steps=MAX_STEPS))

    def response(self) -> Rates:
        """Returns that of EP as β → 0, (J − Λ) δ = ∂C/∂s, to 1e-14."""
        return self(tangent(self.system, tol=TOL, max_steps=MAX_STEPS))


def settle(
    system: System, params: Params, batch: Batch, solve: Solver | None = None
) -> Network:
    """Returns a network at its free equilibrium.

    Args:
      system: what moves.
      params: θ.
      batch: inputs and targets.
      solve: relaxes the free and the nudged phases; None: to 1e-14, in float64.
    """
    solve = solve or relaxation(tol=TOL, max_steps=MAX_STEPS)
    free = dynamics.relax(system, params, batch.x, solve)
    return Network(system, params, batch, free, solve)


def single(network: Network) -> Network:
    """Returns the network in float32, settled as tightly as that allows."""
    params, batch = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32), (network.params, network.batch)
    )
    solve = relaxation(tol=1e-7, max_steps=100)
    return settle(network.system, params, batch, solve)


def cosines(a: Rates, b: Rates) -> Float[Array, ' B']:
    """Returns the cosine of two error vectors, or of one layer of them, by example."""
    sizes = tree.per_example_norm(a) * tree.per_example_norm(b)
    return tree.per_example_vdot(a, b) / sizes


def plain(values: Any, digits: int = 6) -> list[float]:
    """Returns numbers of so many digits."""
    return [float(f'{value:.{digits}g}') for value in np.asarray(values, float)]
