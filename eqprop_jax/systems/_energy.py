"""Systems written by the user: a primitive Φ, an energy E, or the drive itself.

    from_primitive   F(u) = ∂Φ/∂s(σ(u)) − u       symmetric J
    from_energy      F(u) = −∂E/∂u                 symmetric J; σ is the identity
    from_drive       F(u) = D(σ(u)) − u            any J

The functions are written for a batch, with plain jax.numpy. For complex nudges they
have to be analytic in the rates: no modulus, no maximum, no `vdot` (it conjugates). A
holomorphic system raises TypeError for complex rates where its function or its cost
uses an operation not known to be analytic (see `analytic`).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array

from eqprop_jax import tree
from eqprop_jax.systems import _activations as activations
from eqprop_jax.systems import _analytic as analytic
from eqprop_jax.systems import _costs as costs
from eqprop_jax.systems._activations import Activation
from eqprop_jax.types import Pair, Params, Rates, State, System

Cost = str | Callable[[Params, Rates, Array], Array]
Blocks = Sequence[Sequence[str]]


def from_primitive(
    primitive: Callable[[Params, Array, Rates], Array],
    *,
    init: Callable[[jax.Array, Array], Params],
    rest: Callable[[Array], State],
    activation: str | Activation = 'sigmoid',
    cost: Cost = 'squared_error',
    predict: Callable[[Params, Rates], Array] | None = None,
    blocks: Blocks = (),
    holomorphic: bool | None = None,
    affine: bool = False,
) -> System:
    """A system that climbs a scalar: D = ∂Φ/∂s, so that J is symmetric.

    Args:
      primitive: (params, x, rates) -> Φ of each example, [B].
      init: (rng, x) -> params.
      rest: (x) -> where the free phase starts, {layer name: [B, ...]}.
      activation: name of σ or an `Activation`.
      cost: (params, rates, y) -> [B], or 'squared_error', 'absolute_error' or 'hinge'
        of the output of `predict`.
      predict: (params, rates) -> [B, classes]; None: the rates of the layer whose
        name sorts last (layer_10 after layer_2).
      blocks: layers that are updated together, in the order of a sweep; empty: each
        layer alone, by name.
      holomorphic: whether Φ and the cost are analytic; None: if the activation is.
      affine: whether Φ is quadratic in the rates, so that J is constant in them.

    Returns:
      The system.

    Raises:
      ValueError: for an unknown activation or cost, or holomorphic=True with an
        activation that is not.
    """

    def drive(params: Params, x: Array, rates: Rates) -> State:
        phi, gradient = jax.vjp(lambda s: guarded(params, x, s), rates)
        costs.check_each('primitive', phi, x)
        return gradient(jnp.ones_like(phi))[0]

    system = from_drive(
        drive,
        init=init,
        rest=rest,
        activation=activation,
        cost=cost,
        predict=predict,
        blocks=blocks,
        holomorphic=holomorphic,
        affine=affine,
    )
    guarded = (
        analytic.guard(primitive, 'primitive') if system.holomorphic else primitive
    )
    return system._replace(
        drive=drive,  # of which the primitive is guarded, and not the derivative
        primitive=lambda params, x, rates: primitive(params, jnp.asarray(x), rates),
    )


def from_energy(
    energy: Callable[[Params, Array, State], Array],
    *,
    init: Callable[[jax.Array, Array], Params],
    rest: Callable[[Array], State],
    cost: Cost = 'squared_error',
    predict: Callable[[Params, Rates], Array] | None = None,
    blocks: Blocks = (),
    holomorphic: bool = True,
    affine: bool = False,
) -> System:
    """A system that descends an energy: du/dt = −∂E/∂u.

    In the terms of the other systems σ is the identity, D = u − ∂E/∂u and
    Φ = ½ |u|² − E. A relaxation is gradient descent on E whose learning rate is the
    solver's `step_size`: steep energies need less than the default of 1.

    Args:
      energy: (params, x, state) -> E of each example, [B].
      init: (rng, x) -> params.
      rest: (x) -> where the free phase starts, {layer name: [B, ...]}.
      cost: as in `from_primitive`.
      predict: as in `from_primitive`.
      blocks: as in `from_primitive`.
      holomorphic: whether E and the cost are analytic in the state.
      affine: whether E is quadratic in the state, so that J is constant in it.

    Returns:
      The system.

    Raises:
      ValueError: for an unknown cost.
    """

    def primitive(params: Params, x: Array, state: State) -> Array:
        halves = jax.tree.map(
            lambda u: 0.5 * jnp.sum((u**2).reshape(u.shape[0], -1), axis=1), state
        )
        values = costs.check_each('energy', energy(params, x, state), x)
        return sum(jax.tree.leaves(halves)) - values

    return from_primitive(
        primitive,
        init=init,
        rest=rest,
        activation='identity',
        cost=cost,
        predict=predict,
        blocks=blocks,
        holomorphic=holomorphic,
        affine=affine,
    )


def from_drive(
    drive: Callable[[Params, Array, Rates], State],
    *,
    init: Callable[[jax.Array, Array], Params],
    inject: Callable[[Params, Array], Array] | None = None,
    rest: Callable[[Array], State],
    activation: str | Activation = 'sigmoid',
    cost: Cost = 'squared_error',
    predict: Callable[[Params, Rates], Array] | None = None,
    blocks: Blocks = (),
    pairs: Sequence[Pair] = (),
    holomorphic: bool | None = None,
    affine: bool = False,
) -> System:
    """A system given by its drive: any vector field F(u) = D(σ(u)) − u.

    Args:
      drive: (params, injection, rates) -> D, with the structure of the state.
      init: (rng, x) -> params.
      inject: (params, x) -> what the drive needs of the input, computed once per
        batch, leaves [B, ...]; None: x itself.
      rest: (injection) -> where the free phase starts, {layer name: [B, ...]}.
      activation: name of σ or an `Activation`.
      cost: as in `from_primitive`.
      predict: as in `from_primitive`.
      blocks: as in `from_primitive`.
      pairs: paired weights, see `System`.
      holomorphic: whether D and the cost are analytic; None: if the activation is.
      affine: whether D is affine in the rates.

    Returns:
      The system.

    Raises:
      ValueError: as in `from_primitive`.
    """
    sigma = activations.get(activation)
    if holomorphic and not sigma.holomorphic:
        raise ValueError(
            f'holomorphic=True contradicts the activation {sigma.name!r}, which is not'
        )
    of = costs.get(cost)
    if of.readout:
        raise ValueError(
            f'no cost {cost!r} for a system of your own, which has no softmax readout: '
            'choose "squared_error" or pass a function (params, rates, y) -> [B]'
        )
    if holomorphic and not of.analytic:
        raise ValueError(
            f'holomorphic=True contradicts the cost {of.name!r}, which is not analytic'
        )
    scores, analytic_parts = predict or _last_layer, sigma.holomorphic and of.analytic

    def per_example(params: Params, rates: Rates, y: ArrayLike) -> Array:
        return of(scores, params, rates, y)

    system = System(
        init=lambda rng, x: init(rng, jnp.asarray(x)),
        inject=lambda params, x: (inject or _clamp)(params, jnp.asarray(x)),
        rest=lambda injection: _as_state(rest(injection)),
        rates=lambda state: jax.tree.map(sigma.fn, state),
        drive=drive,
        cost=per_example,
        predict=scores,
        blocks=tuple(map(tuple, blocks)),
        pairs=tuple(pairs),
        holomorphic=analytic_parts if holomorphic is None else holomorphic,
        affine=affine,
    )
    if not system.holomorphic:
        return system
    return system._replace(drive=analytic.guard(drive, 'drive'))


def _clamp(params: Params, x: Array) -> Array:
    del params
    return x


def _as_state(layers: State) -> State:
    """Returns layers as arrays of numbers that move; of images they are integers."""
    if not isinstance(layers, dict):
        raise TypeError(
            f'rest returns {{layer name: [B, ...]}}, not {type(layers).__name__}: give '
            "the state a name, as in {'units': ...}"
        )
    return {n: jnp.asarray(u, jnp.result_type(u, float)) for n, u in layers.items()}


def _last_layer(params: Params, rates: Rates) -> Array:
    del params
    output = rates[tree.natural_order(rates)[-1]]
    return output.reshape(output.shape[0], -1)
