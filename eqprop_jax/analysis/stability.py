"""How far an equilibrium is from instability, by the spectrum of J diag(σ′).

The dynamics du/dt = F are stable while all eigenvalues of J diag(σ′) have real parts
below 1. Those of its Hessenberg matrix in a Krylov space (Ritz values) approach the
outermost of them, on either side.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from eqprop_jax import dynamics, tree
from eqprop_jax.jacobian import linearize
from eqprop_jax.types import Equilibrium, Params, System


def hessenberg(
    system: System,
    params: Params,
    x: Float[Array, 'B ...'],
    free: Equilibrium,
    rng: jax.Array,
    *,
    num_steps: int = 40,
) -> Float[Array, 'B k k']:
    """Returns J diag(σ′) of every example, projected onto a Krylov space (Arnoldi).

    A space that is exhausted early adds eigenvalues of zero.

    Args:
      system: what moves.
      params: θ.
      x: clamped inputs.
      free: the free equilibrium.
      rng: key of the first vector.
      num_steps: k, the dimension; all of them are kept in memory.
    """
    jacobian = linearize(system, params, system.inject(params, x), free.rates)
    slopes = dynamics.slopes(system, free.state, free.held)
    flat = jax.vmap(lambda state: ravel_pytree(state)[0])
    unflat = jax.vmap(ravel_pytree(jax.tree.map(lambda leaf: leaf[0], free.state))[1])

    def normalized(w: Array) -> tuple[Array, Array]:
        length = jnp.linalg.norm(w, axis=1)
        exhausted = length <= 100 * jnp.finfo(length.dtype).eps
        v = w / jnp.where(exhausted, jnp.inf, length)[:, None]
        return v, jnp.where(exhausted, 0, length)

    def orthogonal(w: Array, basis: Array) -> tuple[Array, Array]:
        parts = jnp.sum(basis * w[None], axis=2)
        return w - jnp.sum(parts[:, :, None] * basis, axis=0), parts

    def step(basis: Array, index: Array) -> tuple[Array, Array]:
        w = flat(jacobian.apply(tree.mul(slopes, unflat(basis[index]))))
        w, first = orthogonal(w, basis)
        w, second = orthogonal(w, basis)  # once more, for what rounding left
        v, length = normalized(w)
        return basis.at[index + 1].set(v), (first + second).at[index + 1].add(length)

    start, _ = normalized(flat(tree.random_normal(rng, free.state)))
    basis = jnp.zeros((num_steps + 1, *start.shape), start.dtype).at[0].set(start)
    _, columns = jax.lax.scan(step, basis, jnp.arange(num_steps))
    return jnp.transpose(columns[:, :num_steps], (2, 1, 0))


def margin(krylov: np.ndarray) -> float:
    """Returns 1 − max Re λ of J diag(σ′) over the batch: the distance to instability.

    It is the rate of the slowest mode of du/dt = F; at 0 the equilibrium is lost.

    Args:
      krylov: from `hessenberg`, [B, k, k]; not a tracer.

    Returns:
      The margin; NaN if an example has run away.
    """
    if not np.isfinite(krylov).all():
        return np.nan
    largest = -np.inf
    for matrix in krylov:
        # An exhausted Krylov space ends with the first zero below the diagonal.
        ends = np.flatnonzero(np.diagonal(matrix, -1) == 0)
        size = ends[0] + 1 if ends.size else len(matrix)
        largest = max(largest, np.linalg.eigvals(matrix[:size, :size]).real.max())
    return 1 - float(largest)
