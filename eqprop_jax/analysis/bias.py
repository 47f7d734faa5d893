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

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from eqprop_jax import alignment, dynamics, estimators, homeostasis, jacobian, tree
from eqprop_jax.analysis import causes, disc, layers, stability
from eqprop_jax.analysis.layers import TOTAL
from eqprop_jax.analysis.methods import Method, default_methods
from eqprop_jax.analysis.report import WITHOUT_READOUT, Bias, Report, Worst
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
        and what it leaves unsettled is not told apart.
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
    keys = jax.random.split(jax.random.key(0) if rng is None else rng, 6)

    def relax(solve: Solver) -> Equilibrium:
        run = jax.jit(lambda params, x: dynamics.relax(system, params, x, solve))
        return run(params, batch.x)

    def run(estimate: Estimator, free: Equilibrium) -> Estimate:
        return jax.jit(estimate)(params, batch, free, keys[0])

    free = relax(solve)
    best = free if settled is None else relax(settled)

    exact, tangent, at_free = (
        _solution(run, functools.partial(make, system, tol=tol, max_steps=5000), where)
        for make, where in (
            (estimators.recurrent_backprop, best),
            (estimators.tangent, best),
            (estimators.recurrent_backprop, free),
        )
    )
    share, parts, noise, radius, krylov = jax.jit(
        lambda params, free: _measure(system, params, batch, free, keys, num_probes)
    )(params, best)
    report = Report(
        methods={},
        unsettled=1 - float(jnp.mean(free.converged)),
        unsolved=1 - float(jnp.minimum(exact.info.converged, tangent.info.converged)),
        free_phase=layers.quotient(
            tree.norm(tree.sub(at_free.grads, exact.grads)), tree.norm(exact.grads)
        ),
        symmetric_share=float(share),
        asymmetry=jax.tree.map(float, parts),
        penalty_noise=jax.tree.map(float, noise),
        spectral_radius=float(jnp.max(radius)),
        margin=stability.margin(np.asarray(krylov)),
        angles=_angles(system, params),
    )
    for name, method in methods.items():
        estimate = run(method.estimate, free)
        ideal = run(method.settled or method.estimate, best)
        limit = exact if method.adjoint else tangent
        comparison = _compare(name, method, estimate, ideal, limit, exact, report)
        if method.disc is not None:
            comparison = _with_disc(
                comparison, jax.jit(method.disc)(params, batch, best)
            )
        if repeats:
            seconds = _seconds(lambda m=method: run(m.estimate, free), repeats)
            comparison = comparison._replace(seconds=seconds)
        report.methods[name] = comparison
    return report


def _solution(
    run: Callable[[Estimator, Equilibrium], Estimate],
    make: Callable[..., Estimator],
    free: Equilibrium,
) -> Estimate:
    """Returns what a linear solve finds; by Krylov where relaxation does not."""
    relaxed = run(make(), free)
    if relaxed.info.converged >= jnp.mean(free.converged):
        return relaxed
    solved = run(make(method='krylov'), free)
    better = solved.info.converged >= relaxed.info.converged
    return solved if better else relaxed


def _measure(
    system: System,
    params: Params,
    batch: Batch,
    free: Equilibrium,
    keys: Array,
    num_probes: int,
) -> tuple[Array, dict, dict, Array, Array]:
    share = jacobian.symmetric_share(
        system, params, batch.x, free.rates, keys[1], num_probes=num_probes
    )
    parts = homeostasis.by_layer(
        system, params, batch.x, free.rates, keys[2], num_probes=num_probes
    )
    noise = {
        form: homeostasis.noise(system, params, batch, free, keys[5], form=form)
        for form in homeostasis.FORMS
    }
    radius = jacobian.spectral_radius(system, params, batch.x, free, keys[3])
    krylov = stability.hessenberg(system, params, batch.x, free, keys[4])
    return share, parts, noise, radius, krylov


def _seconds(call: Callable[[], Estimate], repeats: int) -> float:
    """Returns the median wall time of a call that has been compiled before."""
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def _angles(system: System, params: Params) -> dict[str, float]:
    if not system.pairs:
        return {}
    angles = alignment.angles(system, params)
    angles['overall'] = alignment.overall_angle(system, params)
    return jax.tree.map(float, angles)


def _compare(
    name: str,
    method: Method,
    estimate: Estimate,
    ideal: Estimate,
    limit: Estimate,
    exact: Estimate,
    report: Report,
) -> Bias:
    """Returns what is to be said of one method; the errors are told apart by cause."""
    error = estimate.error
    size = layers.by_part(tree.norm, exact.error)

    def distance(a: Rates, b: Rates) -> dict[str, float]:
        norms = layers.by_part(tree.norm, tree.sub(a, b))
        return {part: layers.quotient(norm, size[part]) for part, norm in norms.items()}

    def ratio(a: Rates, b: Rates) -> dict[str, float]:
        norms, others = layers.by_part(tree.norm, a), layers.by_part(tree.norm, b)
        return {part: layers.quotient(norms[part], others[part]) for part in norms}

    steps = np.asarray(estimate.info.num_steps)
    evaluations = None
    if method.row_costs is not None and np.all(steps >= 0):
        evaluations = float(np.dot(method.row_costs, steps.mean(axis=1)))
    parts = {
        'settling': distance(error, ideal.error),
        'nudge': distance(ideal.error, limit.error),
        'asymmetry': distance(limit.error, exact.error),
    }
    off = distance(error, exact.error)
    cosine = layers.by_part(tree.cosine, error, exact.error)
    layer = layers.worst({name: off[name] for name in off if name != TOTAL})
    grads, lower = (
        (cut(estimate.grads), cut(exact.grads))
        for cut in (lambda grads: grads, layers.without_readout)
    )
    return Bias(
        worst=Worst(layer, off[layer], cosine[layer]),
        cosine=cosine,
        norm_ratio=ratio(error, exact.error),
        gradient_cosine=layers.by_part(tree.cosine, *grads)
        | {WITHOUT_READOUT: float(tree.cosine(*lower))},
        gradient_norm_ratio=ratio(*grads) | {WITHOUT_READOUT: ratio(*lower)[TOTAL]},
        error=off,
        **parts,
        unsettled=1 - float(estimate.info.converged),
        evaluations=evaluations,
        seconds=None,
        sentence=causes.sentence(
            name,
            layer,
            off,
            {cause: by_part[layer] for cause, by_part in parts.items()},
            report.symmetric_share,
            1 - float(estimate.info.converged),
            report.unsolved,
        ),
    )


def _with_disc(comparison: Bias, found: disc.Disc) -> Bias:
    """Returns what is said of a method, with what its circle says of the radius."""
    differences = np.asarray(found.difference)
    beyond = float(np.mean(differences > disc.CLOSE))
    said = {
        'median': float(np.median(differences)),
        'largest': float(np.max(differences)),
        'beyond': beyond,
    }
    sentence = f'{comparison.sentence}{causes.too_far(beyond)}'
    return comparison._replace(disc=said, sentence=sentence)
