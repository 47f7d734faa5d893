"""What is wrong with a gradient, layer by layer and cause by cause.

Every estimate δ̂ of the error vector is held against that of recurrent backprop at the
settled equilibrium, δ, and the way between them is split where the theory splits it,

    δ̂ − δ  =  (δ̂ − δ̂_settled)  +  (δ̂_settled − δ_limit)  +  (δ_limit − δ)
              settling            finite nudge             asymmetry

where δ̂_settled is the same estimate with all phases settled more tightly, and δ_limit
what it tends to as the nudge shrinks: the response of the dynamics, (J − Λ) δ = g (the
"true ∂β u*"), or with a correction δ itself.

References:
  Laborieux and Zenke 2024, Fig. 2, https://arxiv.org/abs/2309.02214
"""

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eqprop_jax import alignment, dynamics, estimators, homeostasis, jacobian, tree
from eqprop_jax._axes import promoting
from eqprop_jax.analysis import _causes as causes
from eqprop_jax.analysis import disc, layers, stability
from eqprop_jax.analysis._report import WITHOUT_READOUT, Bias, Report, Worst
from eqprop_jax.analysis.layers import TOTAL
from eqprop_jax.analysis.methods import Method, default_methods
from eqprop_jax.types import (
    Batch,
    Equilibrium,
    Estimate,
    Estimator,
    Params,
    Rates,
    Solver,
    System,
)


@promoting
def bias(
    system: System,
    params: Params,
    batch: Batch,
    solve: Solver,
    *,
    settled: Solver | None = None,
    methods: Mapping[str, Method] | None = None,
    rng: jax.Array | None = None,
    tol: float | None = None,
    num_probes: int = 32,
    repeats: int = 0,
) -> Report:
    """Returns what is wrong with the gradients of a system, by layer and by cause.

    Not for inside `jit`: it returns plain numbers, and compiles what it measures.

    Args:
      system: what moves.
      params: θ.
      batch: inputs and targets.
      solve: relaxes the free phase and, unless `methods` says otherwise, the nudged.
      settled: the same more tightly, where the reference is taken; None: as `solve`,
        and what it leaves unsettled is not separated.
      methods: estimators by name; None: those of `default_methods`.
      rng: key of probes, random signs and noise; None: that of 0.
      tol: of the linear solves; None: 1e-5 in single precision, 1e-10 in double.
      num_probes: draws for symmetric share and asymmetry.
      repeats: timed calls of every estimator; 0: none.
    """
    if methods is None:
        methods = default_methods(system, solve, settled)
    single = jnp.finfo(jax.tree.leaves(params)[0].dtype).bits <= 32
    tol = tol or (1e-5 if single else 1e-10)
    rng = jax.random.key(0, impl='threefry2x32') if rng is None else rng
    keys = jax.random.split(rng, 6)

    def relaxed(solve: Solver) -> Equilibrium:
        run = jax.jit(lambda params, x: dynamics.relax(system, params, x, solve))
        return run(params, batch.x)

    def run(estimate: Estimator, free: Equilibrium) -> Estimate:
        return jax.jit(estimate)(params, batch, free, keys[0])

    def solved(make: Callable[..., Estimator], free: Equilibrium) -> Estimate:
        """Returns what a linear solve finds; by Krylov where relaxation does not."""
        make = functools.partial(make, system, tol=tol, max_steps=5000)
        found = run(make(), free)
        if found.info.converged >= jnp.mean(free.converged):
            return found
        krylov = run(make(method='krylov'), free)
        return krylov if krylov.info.converged >= found.info.converged else found

    free = relaxed(solve)
    best = free if settled is None else relaxed(settled)
    exact = solved(estimators.recurrent_backprop, best)
    tangent = solved(estimators.tangent, best)
    at_free = solved(estimators.recurrent_backprop, free)
    report = Report(
        methods={},
        unsettled=1 - float(jnp.mean(free.converged)),
        unsolved=1 - float(jnp.minimum(exact.info.converged, tangent.info.converged)),
        free_phase=float(layers.distance(at_free.grads, exact.grads, exact.grads)),
        **_of_network(system, params, batch, best, keys, num_probes),
    )
    for name, method in methods.items():
        estimate = run(method.estimate, free)
        ideal = run(method.settled or method.estimate, best)
        limit = exact if method.adjoint else tangent
        said = _compare(estimate, ideal, limit, exact)
        said = said._replace(evaluations=_evaluations(method, estimate))
        if method.disc is not None:
            found = jax.jit(method.disc)(params, batch, best)
            said = said._replace(disc=_of_circle(found.difference))
        if repeats:
            seconds = _seconds(lambda m=method: run(m.estimate, free), repeats)
            said = said._replace(seconds=seconds)
        report.methods[name] = said._replace(sentence=_sentence(name, said, report))
    return report


def _of_network(
    system: System,
    params: Params,
    batch: Batch,
    free: Equilibrium,
    keys: Array,
    num_probes: int,
) -> dict[str, Any]:
    """Returns the fields of a report that are about no estimator."""

    @jax.jit
    def measure(params: Params, free: Equilibrium) -> tuple[dict, Array]:
        network = system, params, batch.x
        by_probes = {
            'symmetric_share': jacobian.symmetric_share(
                *network, free.rates, keys[1], num_probes=num_probes
            ),
            'asymmetry': homeostasis.by_layer(
                *network, free.rates, keys[2], num_probes=num_probes
            ),
            'penalty_noise': {
                form: homeostasis.noise(system, params, batch, free, keys[5], form=form)
                for form in homeostasis.FORMS
            },
            'spectral_radius': jnp.max(
                jacobian.spectral_radius(*network, free, keys[3])
            ),
        }
        return by_probes, stability.hessenberg(*network, free, keys[4])

    by_probes, krylov = measure(params, free)
    angles = alignment.angles(system, params)
    if system.pairs:
        angles['overall'] = alignment.overall_angle(system, params)
    return jax.tree.map(float, by_probes | {'angles': angles}) | {
        'margin': stability.margin(np.asarray(krylov))
    }


def _seconds(call: Callable[[], Estimate], repeats: int) -> float:
    """Returns the median wall time of a call that has been compiled before."""
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def _compare(
    estimate: Estimate, ideal: Estimate, limit: Estimate, exact: Estimate
) -> Bias:
    """Returns how an estimate compares with the exact one, its error split by cause."""
    error, wanted = estimate.error, exact.error

    def distance(a: Rates, b: Rates) -> dict[str, float]:
        return layers.by_part(layers.distance, a, b, wanted)

    def of_gradients(fn: Callable[..., Array]) -> dict[str, float]:
        parts = layers.by_part(fn, estimate.grads, exact.grads)
        lower = map(layers.without_readout, (estimate.grads, exact.grads))
        return parts | {WITHOUT_READOUT: float(fn(*lower))}

    off = distance(error, wanted)
    cosine = layers.by_part(tree.cosine, error, wanted)
    worst = layers.worst({name: off[name] for name in off if name != TOTAL})
    return Bias(
        worst=Worst(worst, off[worst], cosine[worst]),
        cosine=cosine,
        norm_ratio=layers.by_part(layers.norm_ratio, error, wanted),
        gradient_cosine=of_gradients(tree.cosine),
        gradient_norm_ratio=of_gradients(layers.norm_ratio),
        error=off,
        settling=distance(error, ideal.error),
        nudge=distance(ideal.error, limit.error),
        asymmetry=distance(limit.error, wanted),
        unsettled=1 - float(estimate.info.converged),
    )


def _evaluations(method: Method, estimate: Estimate) -> float | None:
    """Returns the field evaluations an example, where they are counted."""
    steps = np.asarray(estimate.info.num_steps)
    if method.row_costs is None or np.any(steps < 0):
        return None
    return float(np.dot(method.row_costs, steps.mean(axis=1)))


def _of_circle(difference: Float[Array, ' B']) -> dict[str, float]:
    """Returns `Bias.disc` from `Disc.difference`."""
    differences = np.asarray(difference)
    return {
        'median': float(np.median(differences)),
        'largest': float(np.max(differences)),
        'beyond': float(np.mean(differences > disc.CLOSE)),
    }


def _sentence(name: str, said: Bias, report: Report) -> str:
    layer = said.worst.layer
    return causes.sentence(
        name,
        layer,
        said.error,
        {cause: getattr(said, cause)[layer] for cause in causes.CAUSES},
        report.symmetric_share,
        said.unsettled,
        report.unsolved,
        said.disc['beyond'] if said.disc else 0.0,
    )
