"""Ways to a gradient, and what each of them computes.

A step is the free phase and the gradient of a batch, without the optimizer, which is
the same for all. Some rows are parts of one, and say where its time goes. Two methods
are there to be compared with: the published schedule, a fixed number of synchronous
sweeps, here in one compiled loop; and backprop of a feed-forward network of the same
size, written in flax. Loose rows end their phases at `networks.LOOSE`.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from eqprop_jax import (
    dynamics,
    estimators,
    homeostasis,
    nudges,
    solvers,
    systems,
    tree,
)
from eqprop_jax.analysis.methods import online_costs, row_costs
from eqprop_jax.estimators._local_rule import local_gradient
from eqprop_jax.nudges import Contour
from eqprop_jax.types import (
    Batch,
    Equilibrium,
    Estimator,
    Info,
    Params,
    Rates,
    Solver,
    System,
)
from experiments.benchmark.networks import LOOSE, MAX_STEPS, TIGHT, Network, Tols

PUBLISHED, BACKPROP = 'published schedule', 'backprop'
BPTT_STEPS = 20
SWEEPS = 20
FREE = 'free phase'
REAL, COMPLEX = f'{SWEEPS} real sweeps', f'{SWEEPS} complex sweeps'
NAMES = (
    PUBLISHED,
    'symmetric',
    'symmetric, bfloat16',
    'circle, 4 points',
    'complex step',
    'complex step, loose',
    'corrected',
    'corrected, loose',
    'online',
    'tangent',
    'tangent, loose',
    'recurrent backprop',
    'recurrent backprop, loose',
    f'bptt, {BPTT_STEPS} steps',
    'homeostasis',
    FREE,
    REAL,
    COMPLEX,
    BACKPROP,
)


class Work(NamedTuple):
    """What a step did."""

    grads: Params
    """{} of parts of a step."""
    free: Equilibrium | None = None
    """The free phase."""
    info: Info | None = None
    """The other phases."""
    error: Rates | None = None
    """δ; None where there is none."""


class Method(NamedTuple):
    """A way to a gradient."""

    step: Callable[[Params, Batch, jax.Array], Work]
    """(params, batch, key) -> Work."""
    parts: tuple[Callable[[Params, Batch], Any], ...]
    """What is computed beside relaxations, as functions whose products are counted."""
    phases: tuple[float, ...] = ()
    """Evaluations of the drive in a sweep of each phase of `Work.info`."""
    anchored: bool = False
    """Whether nudged phases take D at the free equilibrium."""
    compacts: bool = True
    """Whether relaxations gather what is left of a batch (`solvers._settle`)."""
    traced: bool = False
    """Whether `parts` has the phases in it."""
    plain: bool = False
    """Whether the params are those of the feed-forward network."""
    devices: int = 1
    """Among which every batch is divided."""


def methods(network: Network) -> dict[str, Method]:
    """Returns all methods by name."""
    system, settings = network.system, network.settings

    def inject(params: Params, batch: Batch) -> Any:
        return system.inject(params, batch.x)

    def rule(params: Params, batch: Batch) -> Params:
        rates = at_rest(network, params, batch).rates
        return local_gradient(system, params, batch, rates, rates)

    def relaxed(estimate: Estimator, free: Solver, own: System = system) -> Method:
        def step(params: Params, batch: Batch, rng: jax.Array) -> Work:
            settled = dynamics.relax(own, params, batch.x, free)
            grads, error, info = estimate(params, batch, settled, rng)
            return Work(grads, settled, info, error)

        return Method(step, (inject, rule))

    def solved(make: Callable[..., Estimator], tols: Tols = TIGHT) -> Method:
        free, _ = settings.phases(tols)
        estimate = make(
            system, tol=tols.nudged, method=settings.linear, max_steps=MAX_STEPS
        )
        return relaxed(estimate, free)._replace(phases=(1,))

    def nudged(
        contour: Contour,
        correction: str | None = None,
        phases: tuple[Solver, Solver] = settings.phases(TIGHT),
        precision: str = 'float32',
    ) -> Method:
        free, solve = phases
        own = systems.rounded(system, precision)
        estimate = estimators.contour(
            own, solve, contour=contour, correction=correction, warm_start=True
        )
        costs = row_costs(system, contour, correction)
        plain = correction is None
        return relaxed(estimate, free, own)._replace(phases=costs, anchored=plain)

    def published() -> Method:
        first, second = (
            solvers.unrolled(num_steps=count, tol=tol)
            for count, tol in zip(settings.published, TIGHT, strict=True)
        )
        nudge = nudges.symmetric(settings.radius)
        estimate = estimators.contour(system, second, contour=nudge, batched=False)
        return relaxed(estimate, first)._replace(
            phases=(1, 1), anchored=True, compacts=False
        )

    def online() -> Method:
        estimate = estimators.oscillation(
            system, radius=settings.radius, num_points=4, from_rest=True
        )

        def step(params: Params, batch: Batch, rng: jax.Array) -> Work:
            rest = at_rest(network, params, batch)
            grads, error, info = estimate(params, batch, rest, rng)
            return Work(grads, info=info, error=error)

        return Method(
            step, (inject, rule), online_costs(system, 4, None), compacts=False
        )

    def truncated() -> Method:
        estimate = estimators.bptt(system, num_steps=BPTT_STEPS)

        def unrolled(params: Params, batch: Batch) -> Params:
            return estimate(params, batch, at_rest(network, params, batch), None).grads

        return relaxed(estimate, settings.phases(TIGHT)[0])._replace(
            parts=(inject, unrolled), phases=(3,), traced=True
        )

    def homeostatic() -> Method:
        pull = jax.grad(homeostasis.penalty(system, num_probes=5))

        def step(params: Params, batch: Batch, rng: jax.Array) -> Work:
            work = symmetric.step(params, batch, rng)
            pulled = pull(params, batch, work.free, rng)
            return work._replace(grads=tree.add(work.grads, pulled))

        def alone(params: Params, batch: Batch) -> Params:
            rest = at_rest(network, params, batch)
            return pull(params, batch, rest, jax.random.key(0))

        return symmetric._replace(step=step, parts=(*symmetric.parts, alone))

    def free_phase() -> Method:
        """Returns the free phase and nothing else."""

        def step(params: Params, batch: Batch, rng: jax.Array) -> Work:
            del rng
            settled = dynamics.relax(system, params, batch.x, settings.phases(TIGHT)[0])
            return Work({}, settled)

        return Method(step, (inject,))

    def sweeps(beta: float | complex, cost: int) -> Method:
        """Returns a fixed number of alternating sweeps under a nudge, from rest."""
        solve = solvers.unrolled(num_steps=SWEEPS, order='alternating')

        def step(params: Params, batch: Batch, rng: jax.Array) -> Work:
            del rng
            start = system.rest(inject(params, batch))
            field = dynamics.free_field(system, params, inject(params, batch))
            gradient = dynamics.cost_gradient(system, params, batch.y)
            if isinstance(beta, complex):
                start = tree.to_complex(start)
            nudged = dynamics.nudged_field(field, gradient, jnp.asarray(beta))
            end = solve(nudged, start)
            info = Info(
                residual=end.residual[None],
                num_steps=end.num_steps[None],
                converged=jnp.ones(()),
                skipped=jnp.zeros(()),
                kept=jnp.ones(len(batch.x), bool),
            )
            return Work({}, info=info)

        return Method(step, (inject,), (cost,), compacts=False)

    def backprop() -> Method:
        def loss(params: Params, batch: Batch) -> Array:
            scores: Any = network.plain.apply(params, batch.x)
            return jnp.mean(optax.softmax_cross_entropy(scores, batch.y))

        gradient = jax.grad(loss)
        return Method(
            lambda p, batch, _: Work(gradient(p, batch)), (gradient,), plain=True
        )

    def rows() -> Iterator[Method]:
        """Yields the methods in the order of `NAMES`."""
        step, loose = nudges.complex_step(1e-3), settings.phases(LOOSE)
        yield published()
        yield symmetric
        yield nudged(nudges.symmetric(settings.radius), precision='bfloat16')
        yield nudged(nudges.circle(settings.radius, 4))
        yield nudged(step)
        yield nudged(step, phases=loose)
        yield nudged(step, settings.correction)
        yield nudged(step, settings.correction, loose)
        yield online()
        yield solved(estimators.tangent)
        yield solved(estimators.tangent, LOOSE)
        yield solved(estimators.recurrent_backprop)
        yield solved(estimators.recurrent_backprop, LOOSE)
        yield truncated()
        yield homeostatic()
        yield free_phase()
        yield sweeps(settings.radius, 1)
        yield sweeps(1j * settings.radius, 2)
        yield backprop()

    symmetric = nudged(nudges.symmetric(settings.radius))
    return dict(zip(NAMES, rows(), strict=True))


def at_rest(network: Network, params: Params, batch: Batch) -> Equilibrium:
    """Returns the state of rest in the place of a free equilibrium."""
    system = network.system
    state = system.rest(system.inject(params, batch.x))
    count = batch.x.shape[0]
    return Equilibrium(
        state=state,
        rates=system.rates(state),
        residual=jnp.zeros(count),
        num_steps=jnp.zeros(count, jnp.int32),
        converged=jnp.zeros(count, bool),
    )
