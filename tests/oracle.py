"""What dense linear algebra in float64 says of a system at its free equilibrium.

Only the system's own functions are used, by automatic differentiation of one example;
everything after that is numpy.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import zoo
from jax.flatten_util import ravel_pytree

import eqprop_jax as ep

TOL = 1e-13


class Oracle(NamedTuple):
    """A settled system and its matrices; units and params as `ravel_pytree` orders."""

    system: ep.System
    params: Any
    batch: ep.Batch
    free: Any
    J: np.ndarray  # ∂D/∂s, [B, n, n]
    slopes: np.ndarray  # σ′(u*), [B, n]
    g: np.ndarray  # ∂C/∂s, [B, n]
    P: np.ndarray  # ∂D/∂θ, [B, n, p]
    direct: np.ndarray  # ∂C/∂θ, mean over the batch, [p]

    def error(self, *, adjoint):
        """δ of (J − Λ) δ = g, or of its adjoint, [B, n]."""
        matrix = self.J.swapaxes(1, 2) if adjoint else self.J
        diagonal = np.stack([np.diag(1 / slope) for slope in self.slopes])
        return np.linalg.solve(matrix - diagonal, self.g[..., None])[..., 0]

    def gradient(self, error):
        """∂C/∂θ − (∂D/∂θ)ᵀ δ, mean over the batch, [p]."""
        return self.direct - self.pull(error)

    def pull(self, error):
        """(∂D/∂θ)ᵀ δ, mean over the batch, [p]."""
        return np.einsum('bnp,bn->p', self.P, error) / len(error)

    def step_matrix(self, step_size):
        """du_{t+1}/du_t = (1 − ε) I + ε J diag(σ′) of a synchronous step, [B, n, n]."""
        one = np.eye(self.J.shape[-1])
        return (1 - step_size) * one + step_size * self.J * self.slopes[:, None, :]


@functools.cache
def _derivatives(system, of_params):
    """Returns what computes J, σ′, g and, if asked, ∂D/∂θ and ∂C/∂θ, compiled once."""

    def one(params, x, y, state):
        x, y = x[None], y[None]
        flat_state, unravel = ravel_pytree(state)
        flat_rates = ravel_pytree(system.rates(state))[0]
        flat_params, unravel_params = ravel_pytree(params)

        def drive(theta, rates):
            theta, rates = unravel_params(theta), as_batch(unravel(rates))
            return ravel_pytree(system.drive(theta, system.inject(theta, x), rates))[0]

        def cost(theta, rates):
            return system.cost(unravel_params(theta), as_batch(unravel(rates)), y)[0]

        def sigma(u):
            return ravel_pytree(system.rates(unravel(u)))[0]

        slopes = jax.jacrev(sigma)(flat_state).sum(axis=0)  # σ is elementwise
        J = jax.jacrev(drive, argnums=1)(flat_params, flat_rates)
        g = jax.grad(cost, argnums=1)(flat_params, flat_rates)
        if not of_params:
            return J, slopes, g
        P = jax.jacrev(drive)(flat_params, flat_rates)
        return J, slopes, g, P, jax.grad(cost)(flat_params, flat_rates)

    return jax.jit(jax.vmap(one, (None, 0, 0, 0)))


def at(system, params, batch, free, *, of_params=True):
    """Returns the oracle of a system at a settled free equilibrium.

    Without `of_params` it has no P and no direct, and is there sooner.
    """
    found = _derivatives(system, of_params)(params, batch.x, batch.y, free.state)
    J, slopes, g, *rest = (np.asarray(value) for value in found)
    P, direct = (rest[0], rest[1].mean(axis=0)) if of_params else (None, None)
    return Oracle(system, params, batch, free, J, slopes, g, P, direct)


@functools.cache
def of(animal):
    """Returns the oracle of a system of the zoo."""
    system, params, batch = zoo.setting(animal)
    solve = zoo.solver(animal, tol=TOL)
    free = jax.jit(lambda p, x: ep.relax(system, p, x, solve))(params, batch.x)
    assert free.converged.all()
    return at(system, params, batch, free)


def settle(system, params, batch, *, step_size=1.0):
    """Returns the oracle of any other system, relaxed."""
    solve = ep.solvers.relaxation(step_size=step_size, tol=TOL, max_steps=5000)
    free = jax.jit(lambda p, x: ep.relax(system, p, x, solve))(params, batch.x)
    assert free.converged.all()
    return at(system, params, batch, free)


def linear():
    """Returns a linear network u = x + J s, and an example with two targets."""
    system = ep.systems.from_drive(
        lambda params, x, rates: {'u': x + rates['u'] @ params['J'].T},
        init=lambda rng, x: {},
        rest=lambda x: {'u': jnp.zeros_like(x)},
        activation='identity',
    )
    J = jnp.array([[0.5, 0.3], [-0.2, 0.5]])
    batch = ep.Batch(jnp.array([[1.0, -0.5]]), jnp.eye(2)[:1])
    return system, {'J': J}, batch


def estimate(make, oracle, rng=None):
    """Returns what an estimator says: gradient [p] and error vectors [B, n]."""
    found = jax.jit(make)(oracle.params, oracle.batch, oracle.free, rng)
    return np.asarray(ravel_pytree(found.grads)[0]), flat(found.error)


def flat(tree):
    """Returns leaves [B, ...] as one array [B, n]."""
    return np.asarray(jax.vmap(lambda leaf: ravel_pytree(leaf)[0])(tree))


def as_batch(tree):
    """Returns leaves [...] as a batch of one."""
    return jax.tree.map(lambda leaf: leaf[None], tree)


def off(a, b):
    """Returns |a − b| / |b|."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))
