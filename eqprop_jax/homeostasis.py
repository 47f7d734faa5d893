"""Homeostasis of the Jacobian: a penalty on its asymmetry.

    L_homeo = ‖J − Jᵀ‖²_F / (2n)          per example, n units, J at the fixed point

Two unbiased estimates from ε ~ N(0, I), both of one product with J and one with Jᵀ:

    form          estimate
    published     (‖J ε‖² − εᵀ J² ε) / n
    difference    ‖J ε − Jᵀ ε‖² / (2n)

With S, A = (J ± Jᵀ)/2 the two are quadratic forms in ε that differ by εᵀ[S, A]ε / n,
of mean zero, and for one draw

    Var[difference] = 8 ‖A²‖²_F / n²
    Var[published]  = Var[difference] + 2 ‖SA − AS‖²_F / n²

The difference form is never the noisier one, never negative, and vanishes at symmetry
with its gradient; the published form may be negative, and near symmetry its standard
deviation falls like ‖A‖ where its mean falls like ‖A‖².

Where a system has a signature ς (`System`), J stands for ς ⊙ J in all of this.

The equilibrium is a constant: no gradient flows through the relaxation. With it in the
loss, feedback weights are drawn towards symmetry and plain EP becomes less biased.

References:
  Laborieux and Zenke 2024, https://arxiv.org/abs/2309.02214
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from eqprop_jax import jacobian, tree
from eqprop_jax.solvers import _judge as judge
from eqprop_jax.types import Batch, Equilibrium, Params, Rates, System

FORMS = ('difference', 'published')

Penalty = Callable[[Params, Batch, Equilibrium, jax.Array], Float[Array, '']]


def penalty(
    system: System, *, num_probes: int = 5, form: str = 'difference'
) -> Penalty:
    """Returns (params, batch, free, rng) -> the batch's mean of L_homeo, estimated.

    Differentiate it with respect to the params and add λ times the gradient to that
    of the cost. Examples without a finite free equilibrium are left out of the mean.

    Args:
      system: what moves.
      num_probes: independent draws of ε for each example; positive. Published: 5.
        Memory does not grow with it.
      form: 'difference' or 'published'.

    Raises:
      ValueError: for an unknown form, or a number of probes that is not positive.
    """
    _check_form(form)
    if not (int(num_probes) == num_probes and num_probes >= 1):
        raise ValueError(f'num_probes has to be a positive integer, not {num_probes}')

    def mean_penalty(
        params: Params, batch: Batch, free: Equilibrium, rng: jax.Array
    ) -> Float[Array, '']:
        keep = measured(batch, free)
        x, rates = jax.lax.stop_gradient(tree.fill(keep, (batch.x, free.rates)))
        # Of no example the gradient is 0, too, whatever they hold.
        params = jax.tree.map(
            lambda w: jnp.where(jnp.any(keep), w, jax.lax.stop_gradient(w)), params
        )
        J = jacobian.signed(
            system, jacobian.linearize(system, params, system.inject(params, x), rates)
        )
        units = sum(leaf.size for leaf in jax.tree.leaves(rates)) // keep.size

        def one(key: jax.Array) -> Float[Array, ' B']:
            probe = tree.per_example_normal(key, rates, batch.numbers)
            forward, backward = J.apply(probe), J.transpose(probe)
            if form == 'published':
                square = tree.per_example_vdot(forward, forward)
                return (square - tree.per_example_vdot(backward, forward)) / units
            difference = tree.sub(forward, backward)
            return tree.per_example_vdot(difference, difference) / (2 * units)

        # One after the other, and each again in the backward pass: the memory of one.
        draws = jax.lax.map(jax.checkpoint(one), jax.random.split(rng, num_probes))
        return tree.mean_of(keep, draws)

    return mean_penalty


def measured(batch: Batch, free: Equilibrium) -> Bool[Array, ' B']:
    """Returns which examples the mean is over: neither padding nor runaways.

    Args:
      batch: inputs and targets.
      free: where the free phase stopped; if it diverged, its rates are not finite or
        its residual is above 1.
    """
    finite = jnp.isfinite(tree.per_example_norm(free.rates))
    finite &= judge.usable(free.residual)
    return batch.counted & finite


def by_layer(
    system: System,
    params: Params,
    x: Float[Array, 'B ...'],
    rates: Rates,
    rng: jax.Array,
    *,
    num_probes: int = 32,
) -> dict[str, dict[str, Float[Array, '']]]:
    """Returns each pair of layers' part in the batch's mean of L_homeo.

        part[a][b] = ‖J_ab − (J_ba)ᵀ‖²_F / (2n)        Σ_ab part[a][b] = L_homeo

    Estimated by probes of one layer at a time, whose images are separated by layer.

    Args:
      system: what moves.
      params: θ.
      x: clamped inputs.
      rates: s, real, leaves [B, ...].
      rng: key of the probes.
      num_probes: draws of ε for each example and layer.

    Returns:
      {layer a: {layer b: part}}, symmetric in a and b up to the noise of the probes.
    """
    J = jacobian.signed(
        system, jacobian.linearize(system, params, system.inject(params, x), rates)
    )
    units = sum(leaf.size for leaf in jax.tree.leaves(rates))  # n times the batch

    def column(name: str, key: jax.Array) -> dict[str, Array]:
        probe = tree.zeros_like(rates) | {
            name: jax.random.normal(key, rates[name].shape, rates[name].dtype)
        }
        difference = tree.sub(J.apply(probe), J.transpose(probe))
        return jax.tree.map(lambda d: jnp.sum(d**2) / (2 * units), difference)

    columns = {}
    for index, name in enumerate(rates):
        keys = jax.random.split(jax.random.fold_in(rng, index), num_probes)
        draws = jax.lax.map(lambda key, name=name: column(name, key), keys)
        columns[name] = jax.tree.map(jnp.mean, draws)
    return {a: {b: columns[b][a] for b in rates} for a in rates}


def variance(J: Float[Array, '*B n n'], form: str = 'difference') -> Float[Array, '*B']:
    """Returns the variance of a form's estimate of L_homeo from one draw of ε.

    Args:
      J: functional Jacobians, dense.
      form: 'difference' or 'published'.

    Raises:
      ValueError: for an unknown form.
    """
    _check_form(form)
    transpose = jnp.swapaxes(J, -1, -2)
    S, A = (J + transpose) / 2, (J - transpose) / 2
    quadratic = -2 * A @ A
    if form == 'published':
        quadratic += S @ A - A @ S
    return 2 * jnp.sum(quadratic**2, axis=(-2, -1)) / J.shape[-1] ** 2


def noise(
    system: System,
    params: Params,
    batch: Batch,
    free: Equilibrium,
    rng: jax.Array,
    *,
    form: str = 'difference',
    num_draws: int = 64,
) -> dict[str, Float[Array, '']]:
    """Returns how noisy a form is for a batch, from one draw of ε an example.

        value       the mean of L_homeo
        std         standard deviation of that estimate over draws
        gradient    √E‖∇ − E∇‖² / ‖E∇‖ of its gradient; m draws divide it by √m;
                    NaN where the noise hides the mean

    Args:
      system: what moves.
      params: θ.
      batch: inputs and targets.
      free: the free equilibrium.
      rng: key of the draws.
      form: 'difference' or 'published'.
      num_draws: how many to take the moments over, at least 2.

    Raises:
      ValueError: for an unknown form, or fewer than two draws.
    """
    if num_draws < 2:
        raise ValueError(f'num_draws has to be at least 2, not {num_draws}')
    draw = jax.value_and_grad(penalty(system, num_probes=1, form=form))

    def add(index: Array, moments: tuple) -> tuple:
        value, grads = draw(params, batch, free, jax.random.fold_in(rng, index))
        new = (value, value**2, grads, tree.norm(grads) ** 2)
        return tree.add(moments, new)

    zero = jnp.zeros((), jax.tree.leaves(params)[0].dtype)
    start = (zero, zero, tree.zeros_like(params), zero)
    sums = jax.lax.fori_loop(0, num_draws, add, start)
    value, square, grads, length = tree.scale(1 / num_draws, sums)
    unbiased = num_draws / (num_draws - 1)
    spread = unbiased * (length - tree.norm(grads) ** 2)
    signal = length - spread  # ‖mean‖², without what the noise adds to it
    return {
        'value': value,
        'std': jnp.sqrt(unbiased * jnp.maximum(square - value**2, 0)),
        'gradient': jnp.sqrt(spread / signal),
    }


def _check_form(form: str) -> None:
    if form not in FORMS:
        raise ValueError(f'no form {form!r}; choose from {", ".join(FORMS)}')
