"""Equilibria and costs as functions that JAX differentiates, and one call for a step.

    loss              θ, batch ↦ C          its gradient is an estimator's
    value_and_grad    both in one call, with what they were read off from
    block             θ, x ↦ s*             what it passes on is an estimator's

They go inside of `jit`, `vmap`, optax, and modules of flax or equinox, behind a stem,
in front of a head and in chains, and are differentiated like any other function.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, Float

from eqprop_jax import _axes as axes
from eqprop_jax import dynamics, tree
from eqprop_jax.estimators import recurrent_backprop
from eqprop_jax.estimators._marked import check
from eqprop_jax.types import (
    Batch,
    Equilibrium,
    Estimate,
    Estimator,
    Info,
    Params,
    Rates,
    Solver,
    State,
    System,
)


class Aux(NamedTuple):
    """What a value and its gradient were read off from."""

    free: Equilibrium
    """The free equilibrium."""
    scores: Float[Array, 'B classes']
    """Of each class; the largest is the prediction."""
    error: Rates | None
    """δ, leaves [B, ...]; None where the estimator has none."""
    info: Info
    """How the nudged phases settled."""


def value_and_grad(
    system: System, solve: Solver, estimate: Estimator
) -> Callable[..., tuple[tuple[Float[Array, ''], Aux], Params]]:
    """Returns (params, batch, rng=None) ↦ ((loss, aux), grads), as JAX's with has_aux.

    Args:
      system: what moves.
      solve: relaxes the free phase.
      estimate: from `eqprop_jax.estimators`, of this system.

    Returns:
      A function of θ, a `Batch`, and a key for estimators that draw. `loss` is the mean
      cost of the examples, `grads` are like params, and `aux` is an `Aux`.

    Raises:
      TypeError: for a part that is none, as a factory that was not called.
      ValueError: if the estimator is of another system.
    """
    check(system, solve, estimate)

    def run(params: Params, batch: Batch, rng: jax.Array | None = None) -> tuple:
        free = dynamics.relax(system, params, batch.x, solve)
        found = estimate(params, batch, free, rng)
        scores = system.predict(params, free.rates)
        aux = Aux(free, scores, found.error, found.info)
        return (_mean_cost(system, params, batch, free), aux), found.grads

    def specs(params: Params, batch: Batch, rng: Any = None) -> tuple:
        each, free = axes.of_examples(batch.x), axes.of_equilibrium(batch.x)
        return (axes.WHOLE, Aux(free, each, each, axes.WHOLE)), axes.own(params)

    return axes.automatic(run, specs)


def loss(
    system: System, solve: Solver, estimate: Estimator
) -> Callable[..., Float[Array, '']]:
    """Returns (params, batch, rng=None) ↦ mean cost, whose gradient is the estimator's.

    The gradient in θ is the estimate, the mean over the K examples that it keeps. Those
    in x [B, ...], for what stands in front of the system, and in continuous y [B, ...]
    are

        −(∂D/∂x)ᵀ δ / K        ∂C/∂y / B

    and 0 in x of an example that is not kept. An estimator gives gradients, and no
    directional derivatives: there are first derivatives in reverse mode alone.

    Args:
      system: what moves.
      solve: relaxes the free phase.
      estimate: from `eqprop_jax.estimators`, of this very system.

    Raises:
      TypeError: in forward mode, for second derivatives, for the gradient in x of an
        estimator without δ, and for a part that is none.
      ValueError: if the estimator is of another system.
    """
    run = value_and_grad(system, solve, estimate)

    @jax.custom_vjp
    def cost(params: Params, batch: Batch, rng: jax.Array | None = None) -> Array:
        free = dynamics.relax(system, params, batch.x, solve)
        return _mean_cost(system, params, batch, free)

    def forward(params: Any, batch: Any, rng: Any) -> tuple[Array, tuple]:
        needs_x, needs_y = batch.x.perturbed, batch.y.perturbed
        params, batch, rng = jax.tree.map(lambda leaf: leaf.value, (params, batch, rng))
        (value, aux), grads = run(params, batch, rng)
        of_x: Any = None
        of_y: Any = None
        if needs_x:
            each = _passed_on(system, params, batch.x, aux.free, aux.error, aux.info)[1]
            of_x = tree.scale(1 / jnp.maximum(aux.info.num_kept, 1), each)
        if needs_y:
            of_y = jax.grad(
                lambda y: _mean_cost(system, params, batch._replace(y=y), aux.free)
            )(batch.y)
        return value, (grads, Batch(of_x, of_y))

    def backward(gradients: tuple, cotangent: Array) -> tuple:
        return (*tree.scale(cotangent, gradients), None)

    cost.defvjp(forward, backward, symbolic_zeros=True)
    return axes.automatic(cost, lambda *_, **__: axes.WHOLE)


def block(
    system: System,
    solve: Solver,
    make: Callable[[System], Estimator] | None = None,
    *,
    layer: str | None = None,
) -> Callable[..., Float[Array, 'B ...']]:
    """Returns (params, x, rng=None) ↦ s* of a layer, to be chained like any function.

    What stands behind it sends back c = ∂C/∂s of that layer. Nudged by the cost
    ⟨c, s⟩, an estimator of δ turns it into the gradients of the block's own,

        ∂C/∂θ = −(∂D/∂θ)ᵀ δ        ∂C/∂x = −(∂D/∂x)ᵀ δ,

    which is how feed-forward and energy-based blocks alternate (ff-EBM). Of every
    example c is divided by its largest entry for the nudged phases, so that a radius
    means the same at any depth of a chain and at any size of batch. Examples that the
    estimator leaves out send nothing back.

    Args:
      system: what moves; its own cost is not used.
      solve: relaxes the free phase.
      make: builds the estimator of a given system: `lambda s: contour(s, solve, ...)`.
        Only its δ is used. None: recurrent backprop, relaxed by Aitken's steps.
      layer: whose rates are returned; None: that whose name sorts last.

    Raises:
      KeyError: for an unknown layer.
      TypeError: in forward mode, for second derivatives, if there is no δ, and for a
        part that is none.

    References:
      Nest and Ernoult 2024, https://arxiv.org/abs/2409.03673
    """

    def name_of(rates: Rates) -> str:
        names = tree.natural_order(rates)
        if layer is not None and layer not in names:
            raise KeyError(f'no layer {layer!r}; choose from {", ".join(names)}')
        return names[-1] if layer is None else layer

    build = make or functools.partial(recurrent_backprop, method='aitken')
    check(system, solve, build(system))  # refuses at once what does not fit

    @jax.custom_vjp
    def run(params: Params, x: Array, rng: jax.Array | None = None) -> Array:
        rates = dynamics.relax(system, params, x, solve).rates
        return rates[name_of(rates)]

    def forward(params: Params, x: Array, rng: jax.Array | None) -> tuple[Array, tuple]:
        free = dynamics.relax(system, params, x, solve)
        return free.rates[name_of(free.rates)], (params, x, free, rng)

    def backward(saved: tuple, sent: Array) -> tuple:
        params, x, free, rng = saved
        sent = dynamics.undifferentiated(sent)
        size = jnp.max(jnp.abs(sent.reshape(len(sent), -1)), axis=1)
        size = jnp.where(size > 0, size, 1)
        push = jax.vmap(jnp.divide)(sent, size)
        nudged = _pushed(system, name_of(free.rates), push)
        batch = Batch(x, jnp.zeros(len(x), jnp.int32))
        found: Estimate = build(nudged)(params, batch, free, rng)
        error = found.error
        if error is not None:
            error = jax.vmap(tree.scale)(size, error)
        of_params, of_x = _passed_on(system, params, x, free, error, found.info)
        damage = jnp.where(jnp.all(jnp.isfinite(sent)), 0, jnp.nan)  # is passed on, too
        marked = tree.on_floats(lambda g: g + damage.astype(g.dtype), of_params)
        return marked, of_x, None

    run.defvjp(forward, axes.promoting(backward))
    return axes.automatic(run, lambda _, x, rng=None: axes.of_examples(x))


def _mean_cost(
    system: System, params: Params, batch: Batch, free: Equilibrium
) -> Float[Array, '']:
    """Returns the mean of C over the examples of a batch."""
    return tree.mean_of(batch.counted, system.cost(params, free.rates, batch.y))


def _pushed(system: System, layer: str, push: Array) -> System:
    """Returns the system with the cost ⟨c, s⟩ of one layer, of c for each example."""

    def cost(push: Array, _: Params, rates: Rates, __: Array) -> Array:
        return jnp.sum((push * rates[layer]).reshape(len(push), -1), axis=1)

    signature = system.signature
    if signature is not None:  # Jᵀ = ς J ς holds for −ς, too
        signature = tuple((n, dict(signature)[layer] * sign) for n, sign in signature)
    return system._replace(cost=Partial(cost, push), thin=None, signature=signature)


def _passed_on(
    system: System,
    params: Params,
    x: Array,
    free: Equilibrium,
    error: Rates | None,
    info: Info,
) -> tuple[Params, Array]:
    """Returns −(∂D/∂θ)ᵀ δ, summed over the examples that are kept, and −(∂D/∂x)ᵀ δ."""
    if error is None:
        raise TypeError(
            'this estimator has no δ, of which the gradient in x is made: take another'
        )
    error = tree.select(info.kept, error, tree.zeros_like(error))
    rates, x = tree.fill(info.kept, (free.rates, x))

    def drive(params: Params, x: Array) -> State:
        return system.drive(params, system.inject(params, x), rates)

    return jax.vjp(drive, params, x)[1](tree.scale(-1, error))
