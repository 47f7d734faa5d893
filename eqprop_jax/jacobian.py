"""The functional Jacobian J = ∂D/∂s at fixed rates, without forming it unless asked.

    J v, Jᵀ v            exact, by forward and reverse mode, for real or complex v
    symmetric share      ‖S‖ / (‖S‖ + ‖A‖) with S, A = (J ± Jᵀ)/2: 1 if J = Jᵀ
    spectral radius      of J diag(σ′), by which an undamped synchronous relaxation
                         shrinks its error per sweep: it is stable below 1

The Jacobian of a batch is block-diagonal, one block for each example.

References:
  Laborieux and Zenke 2024, sections 3 and 4, https://arxiv.org/abs/2309.02214
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from eqprop_jax import dynamics, tree
from eqprop_jax.types import Equilibrium, Injection, Params, Rates, State, System


@jax.tree_util.register_pytree_node_class
class Jacobian:
    """J at given rates, as linear functions of a vector shaped like the rates.

    A pytree of what it is taken at, leaves [B, ...], so that fields can carry it
    (`types.Field`): that of some examples is taken anew.

    Args:
      function: (injection, rates) -> D.
      injection: `system.inject(params, x)`.
      rates: s, real.
    """

    def __init__(
        self,
        function: Callable[[Injection, Rates], State],
        injection: Injection,
        rates: Rates,
    ):
        self.function, self.at = function, (injection, rates)
        self._known: tuple[State, Callable] | None = None
        self._known = self._linear()

    @property
    def drive(self) -> State:
        """D at these rates."""
        return self._linear()[0]

    def apply(self, v: Rates) -> State:
        """Returns J v, for real or complex v."""
        injection, rates = self.at

        def forward(v: Rates) -> State:
            return jax.jvp(lambda s: self.function(injection, s), (rates,), (v,))[1]

        return tree.on_parts(forward)(v)

    def transpose(self, v: State) -> Rates:
        """Returns Jᵀ v, for real or complex v."""
        pullback = self._linear()[1]
        return tree.on_parts(lambda part: pullback(part)[0])(v)

    def _linear(self) -> tuple[State, Callable]:
        """Returns D and its pullback, in that order."""
        if self._known is not None:
            return self._known
        injection, rates = self.at
        return jax.vjp(lambda s: self.function(injection, s), rates)

    def tree_flatten(self) -> tuple[tuple, Callable]:
        """As JAX takes a pytree apart."""
        return self.at, self.function

    @classmethod
    def tree_unflatten(cls, function: Callable, at: tuple) -> 'Jacobian':
        """As JAX puts one together, of whatever leaves: nothing is evaluated."""
        new = cls.__new__(cls)
        new.function, new.at, new._known = function, tuple(at), None
        return new


def linearize(
    system: System, params: Params, injection: Injection, rates: Rates
) -> Jacobian:
    """Returns J at the given rates.

    Args:
      system: what moves.
      params: θ.
      injection: `system.inject(params, x)`.
      rates: s, real.
    """
    return Jacobian(functools.partial(system.drive, params), injection, rates)


def signed(system: System, J: Jacobian) -> Jacobian:
    """Returns ς ⊙ J, whose symmetry is what matters to a system with a signature ς.

    Args:
      system: what moves; without a signature J is returned as it is.
      J: its Jacobian.
    """
    if system.signature is None:
        return J
    return Jacobian(lambda *at: dynamics.signed(system, J.function(*at)), *J.at)


def dense(
    system: System, params: Params, x: Float[Array, 'B ...'], rates: Rates
) -> Float[Array, 'B n n']:
    """Returns J of every example as a matrix; for small systems.

    Units are numbered as `jax.flatten_util.ravel_pytree` orders the rates of one
    example: by layer name, then row by row.

    Args:
      system: what moves.
      params: θ.
      x: clamped inputs.
      rates: s, real, leaves [B, ...].
    """

    def one(injection: Injection, rates: Rates) -> Float[Array, 'n n']:
        flat, unravel = ravel_pytree(rates)

        def drive(flat: Array) -> Array:
            batched = jax.tree.map(lambda leaf: leaf[None], (injection, unravel(flat)))
            return ravel_pytree(system.drive(params, *batched))[0]

        return jax.jacfwd(drive)(flat)

    return jax.vmap(one)(system.inject(params, x), rates)


def share(J: Float[Array, '*B n n']) -> Float[Array, '*B']:
    """Returns ‖S‖ / (‖S‖ + ‖A‖) of matrices, Frobenius norms; 1 where J = 0."""
    transpose = jnp.swapaxes(J, -1, -2)
    return _share(
        jnp.linalg.norm(J + transpose, axis=(-2, -1)),
        jnp.linalg.norm(J - transpose, axis=(-2, -1)),
    )


def symmetric_share(
    system: System,
    params: Params,
    x: Float[Array, 'B ...'],
    rates: Rates,
    rng: jax.Array,
    *,
    num_probes: int = 32,
) -> Float[Array, '']:
    """Returns the symmetric share of the batch's Jacobian, from random probes.

    Of a system with a signature it is that of ς ⊙ J; of one without synapses between
    its units, J = 0, it is 1.

    ‖S‖² and ‖A‖² are the means of ‖(J ± Jᵀ) ε‖²/4 over ε ~ N(0, I) (Hutchinson); the
    relative error of the share is of the order 1/√(num_probes · B · n).

    Args:
      system: what moves.
      params: θ.
      x: clamped inputs.
      rates: s, real, leaves [B, ...].
      rng: key of the probes.
      num_probes: draws for each example.
    """
    jacobian = signed(
        system, linearize(system, params, system.inject(params, x), rates)
    )

    def squares(key: jax.Array) -> tuple[Array, Array]:
        probe = tree.random_normal(key, rates)
        forward, backward = jacobian.apply(probe), jacobian.transpose(probe)
        return (
            tree.norm(tree.add(forward, backward)) ** 2,
            tree.norm(tree.sub(forward, backward)) ** 2,
        )

    squares = jax.lax.map(squares, jax.random.split(rng, num_probes))
    return _share(*(jnp.sqrt(jnp.sum(square)) for square in squares))


def _share(symmetric: Array, antisymmetric: Array) -> Array:
    total = symmetric + antisymmetric
    return jnp.where(total == 0, 1, symmetric / jnp.where(total == 0, 1, total))


def spectral_radius(
    system: System,
    params: Params,
    x: Float[Array, 'B ...'],
    free: Equilibrium,
    rng: jax.Array,
    *,
    num_steps: int = 120,
) -> Float[Array, ' B']:
    """Returns the largest modulus of the eigenvalues of J diag(σ′), per example.

    The mean growth of log ‖v‖ in the second half of a power iteration. A single
    dominant eigenvalue is found to rounding; where several of one modulus take turns
    (±λ of layered networks, the roots of a loop, complex pairs) the norm oscillates
    within bounds and the error falls as 1/num_steps, none for periods that divide
    num_steps / 2.

    Args:
      system: what moves.
      params: θ.
      x: clamped inputs.
      free: the free equilibrium.
      rng: key of the first vector.
      num_steps: number of products with J; even.
    """
    jacobian = linearize(system, params, system.inject(params, x), free.rates)
    slopes = dynamics.slopes(system, free.state, free.held)

    def grow(_: Any, carry: tuple[State, Array]) -> tuple[State, Array]:
        v, log_growth = carry
        v = jacobian.apply(tree.mul(slopes, v))
        length = tree.per_example_norm(v)
        length += jnp.finfo(length.dtype).tiny
        return jax.vmap(tree.scale)(1 / length, v), log_growth + jnp.log(length)

    window = num_steps // 2
    start = tree.random_normal(rng, free.state)
    zero = jnp.zeros_like(tree.per_example_norm(start))
    settled, _ = jax.lax.fori_loop(0, num_steps - window, grow, (start, zero))
    _, log_growth = jax.lax.fori_loop(0, window, grow, (settled, zero))
    return jnp.exp(log_growth / window)
