"""How far an equilibrium is from instability, by the spectrum of J diag(σ′).

The dynamics du/dt = F are stable while all eigenvalues of J diag(σ′) have real parts
below 1. Those of its Hessenberg matrix in a Krylov space (Ritz values) approach the
outermost of them, on either side.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eqprop_jax import dynamics, tree
from eqprop_jax.jacobian import linearize
from eqprop_jax.types import Equilibrium, Params, State, System


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

    Its eigenvalues approximate the outermost ones of J diag(σ′), on either side; the
    dynamics du/dt = F are stable while all real parts are below 1. A space that is
    exhausted early adds eigenvalues of zero.

    Args:
      system: what moves.
      params: θ.
      x: clamped inputs.
      free: the free equilibrium.
      rng: key of the first vector.
      num_steps: k, the dimension; all of them are kept in memory.
    """
    jacobian = linearize(system, params, system.inject(params, x), free.rates)
    slopes = dynamics.slopes(system, free.state)
    project = jax.vmap(tree.per_example_vdot, in_axes=(0, None))

    def normalized(v: State) -> tuple[State, Array]:
        length = tree.per_example_norm(v)
        exhausted = length <= 100 * jnp.finfo(length.dtype).eps
        length = jnp.where(exhausted, 0, length)
        inverse = jnp.where(exhausted, 0, 1 / jnp.where(exhausted, 1, length))
        return jax.vmap(tree.scale)(inverse, v), length

    def orthogonal(w: State, basis: State) -> tuple[State, Array]:
        parts = project(basis, w)

        def remove(leaf: Array, vectors: Array) -> Array:
            weights = parts.reshape(parts.shape + (1,) * (leaf.ndim - 1))
            return leaf - jnp.sum(weights * vectors, axis=0)

        return jax.tree.map(remove, w, basis), parts

    def step(basis: State, index: Array) -> tuple[State, Array]:
        v = jax.tree.map(lambda vectors: vectors[index], basis)
        w = jacobian.apply(tree.mul(slopes, v))
        w, first = orthogonal(w, basis)
        w, second = orthogonal(w, basis)  # once more, for what rounding left
        v, length = normalized(w)
        basis = jax.tree.map(lambda vs, new: vs.at[index + 1].set(new), basis, v)
        return basis, (first + second).at[index + 1].add(length)

    start, _ = normalized(tree.random_normal(rng, free.state))
    basis = jax.tree.map(
        lambda leaf: (
            jnp.zeros((num_steps + 1, *leaf.shape), leaf.dtype).at[0].set(leaf)
        ),
        start,
    )
    _, columns = jax.lax.scan(step, basis, jnp.arange(num_steps))
    return jnp.transpose(columns[:, :num_steps], (2, 1, 0))


def margin(krylov: np.ndarray) -> float:
    """Returns 1 − max Re λ of J diag(σ′) over the batch: the distance to instability.

    It is the rate of the slowest mode of du/dt = F; at 0 the equilibrium is lost.

    Args:
      krylov: from `hessenberg`, [B, k, k]; not a tracer.
    """
    largest = -np.inf
    for matrix in krylov:
        # An exhausted Krylov space ends with the first zero below the diagonal.
        ends = np.flatnonzero(np.diagonal(matrix, -1) == 0)
        size = ends[0] + 1 if ends.size else len(matrix)
        largest = max(largest, np.linalg.eigvals(matrix[:size, :size]).real.max())
    return 1 - float(largest)
