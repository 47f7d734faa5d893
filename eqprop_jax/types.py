"""The symbols, and the records that the four roles pass to each other.

    symbol          name         meaning
    x, y            batch.x, .y  clamped input, target (one-hot)
    u               state        potentials: {layer name: [B, ...]}
    s = σ(u)        rates        firing rates, σ elementwise
    D(θ, x, s)      drive        what every unit receives, given all rates
    F = D(σ(u)) − u field        the vector field du/dt
    C(θ, s, y)      cost         cost of each example, [B]
    β               beta         nudge, real or complex: F^β = F − β ∂C/∂s
    u*, s*          free         free equilibrium, F(u*) = 0
    J = ∂D/∂s       jacobian     functional Jacobian at s*, in rate coordinates
    δ = ds*/dβ      error        neuronal error vector at β = 0
    Φ(θ, x, s)      primitive    scalar with D = ∂Φ/∂s, where one exists

Two linear systems define what is estimated and what is wanted, with
g = ∂C/∂s at s* and Λ = diag(1/σ′(u*)):

    response of the dynamics (EP):        (J  − Λ) δ = g
    exact adjoint (recurrent backprop):   (Jᵀ − Λ) δ = g

and either gives a gradient, exact for the second:

    dC/dθ ≈ ∂C/∂θ − (∂D/∂θ)ᵀ δ

`jax.vjp` of a holomorphic function is the plain transpose without conjugation: ᵀ here.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, Int

from eqprop_jax._precision import FULL, Way

Params = Any  # pytree of real arrays
Injection = Any  # the clamped input's part of the drive; leaves [B, ...]
State = Any  # potentials, {layer name: [B, ...]}, real or complex
Rates = Any  # the same structure as State
Path = tuple[Any, ...]  # keys, names of fields, and places in sequences
Pair = tuple[Path, Path, bool]  # forward, feedback, "feedback is the transpose"


class Batch(NamedTuple):
    """Examples to learn from."""

    x: Float[Array, 'B ...']
    """Clamped inputs."""
    y: Float[Array, 'B classes'] | Int[Array, ' B']
    """Targets, one-hot, or the indices of classes."""
    rows: Int[Array, ' B'] | None = None
    """Ids of the examples in the whole batch; −1: padding. None: 0 to B − 1."""

    @property
    def numbers(self) -> Int[Array, ' B']:
        """What an example's random draws depend on, beside the key."""
        return jnp.arange(self.x.shape[0]) if self.rows is None else self.rows

    @property
    def counted(self) -> Bool[Array, ' B']:
        """Mask of the examples that are not padding."""
        return self.numbers >= 0


class System(NamedTuple):
    """What moves: pure functions, leaves [B, ...]; from `eqprop_jax.systems`."""

    init: Callable[[jax.Array, Array], Params]
    """(rng, x) -> params."""
    inject: Callable[[Params, Array], Injection]
    """(params, x) -> the input's part of the drive, computed once per batch."""
    rest: Callable[[Injection], State]
    """(injection) -> where the free phase starts."""
    rates: Callable[[State], Rates]
    """σ, elementwise."""
    drive: Callable[[Params, Injection, Rates], State]
    """D, with the structure of the state."""
    cost: Callable[[Params, Rates, Array], Inexact[Array, ' B']]
    """C for each example; holomorphic in the rates if the system is. What it knows of
    each example beside y it carries as a `Partial`, like the drive of a `Field`."""
    predict: Callable[[Params, Rates], Float[Array, 'B classes']]
    """Class scores; the largest is the prediction."""
    blocks: tuple[tuple[str, ...], ...] = ()
    """Layers updated together, in the order of a sweep; empty: each layer alone."""
    pairs: tuple[Pair, ...] = ()
    """Paired forward and feedback weights, as paths in the params."""
    holomorphic: bool = False
    """Whether drive, rates and cost accept complex states and are analytic."""
    primitive: Callable[[Params, Array, Rates], Inexact[Array, ' B']] | None = None
    """(params, x, rates) -> Φ, or None where no Φ is known."""
    affine: bool = False
    """Whether J does not depend on the rates: D(s) = D(s*) + J (s − s*)."""
    signature: tuple[tuple[str, int], ...] | None = None
    """(layer, ς = ±1) of every layer, under which ς ⊙ J is symmetric, as far as `pairs`
    are equal (1 on those that the cost reads); None where no such signs are known, or
    all are 1."""
    thin: 'Callable[[jax.Array, Int[Array, " B"]], System] | None' = None
    """(rng, numbers of the examples) -> the system whose cost sees a random part of
    each example's units (dropout); None: it has no dropout."""
    way: Way = FULL
    """How the products of the drive are taken (`systems.rounded`)."""


class Field(NamedTuple):
    """The vector field F(u) = D(σ(u)) − u, in the parts a solver works with.

    A drive carries what it knows of each example as a `jax.tree_util.Partial` does:

        Field(drive=Partial(lambda injection, s: s @ W + injection, injection), ...)

    Then it is a pytree of leaves [B, ...], and that of some examples of the batch is
    the drive with these rows of every leaf, which is how a solver relaxes the last
    examples of a batch by themselves. With a plain function the batch stays whole.
    """

    drive: Callable[[Rates], State]
    """D^β, the nudge and any correction included."""
    rates: Callable[[State], Rates]
    """σ, elementwise."""
    blocks: tuple[tuple[str, ...], ...] = ()
    """Layers updated together, in the order of a sweep; empty: each layer alone."""
    rounding: float = 0.0
    """To what relative error the drive rounds factors."""
    disturb: 'Callable[[Array, State], State] | None' = None
    """(number of the sweep, u) -> u with the noise of that sweep (`eqprop_jax.noise`),
    for solvers that sweep a fixed number of times; None: there is no noise."""
    response: 'Response | None' = None
    """What the response is measured by; None in a free phase: the state itself."""

    def __call__(self, state: State) -> State:
        """Returns F(u) = du/dt."""
        drive = self.drive(self.rates(state))
        return jax.tree.map(lambda d, u: d - u, drive, state)


class Response(NamedTuple):
    """What the response u − u* of a field to a nudge, or a source, is measured by."""

    origin: State
    """u*, real, where the field is at rest without the nudge."""
    rates: Rates
    """σ(u*)."""
    drive: State
    """D at u* before the field was anchored there: outside its bounds where a clipped
    solver holds a unit."""
    feeders: Mapping[str, frozenset[str]]
    """{layer: the layers that feed it}, of all layers that the nudge can reach."""
    pushed: Mapping[str, Bool[Array, ' B']]
    """{layer: whether the nudge pushes it}, of the layers that the cost reads."""
    weight: Inexact[Array, ''] | None = None
    """w of the contour, which reads Re[w (u − u*)]; None: all of a real state."""
    scale: Float[Array, 'B L'] | None = None
    """Lengths of the largest responses to nudges of the contour that are relaxed
    already, by layer: δ is made of all, and residuals are relative to no less."""
    together: str | None = None
    """Axis name of nudges that are relaxed at the same time, for that, too."""


class Equilibrium(NamedTuple):
    """Where a solver stopped, and how well settled each example is there."""

    state: State
    """u, leaves [B, ...]."""
    rates: Rates
    """σ(u)."""
    residual: Float[Array, '*P B']
    """What is left to move in the worst layer, relative to |u_l|, or in a nudged phase
    to what the nudge has moved there (`solvers._judge`); NaN once |u| overflows, or
    where the response to a nudge is lost in rounding."""
    num_steps: Int[Array, '*P B']
    """Sweeps that this example used."""
    converged: Bool[Array, '*P B']
    """residual <= tol; False for NaN."""
    trajectory: Rates | None = None
    """Rates of every step, leaves [T + 1, B, ...], where the solver keeps them."""
    injection: Injection | None = None
    """The input's part of the drive in a free phase, for later ones; else None."""
    held: State | None = None
    """Units that bounds hold in a free phase, Booleans [B, ...]; None: no bounds."""


class Info(NamedTuple):
    """What is only logged, of P relaxed contour points, or P = 1 linear solve."""

    residual: Float[Array, 'P B']
    """Relative error of each phase and example in its worst layer, as estimated."""
    num_steps: Int[Array, 'P B']
    """Sweeps used; −1 where the method does not count them."""
    converged: Float[Array, '']
    """Fraction of the examples whose phases, the free one included, all settled."""
    skipped: Float[Array, '']
    """Fraction of the examples skipped by the mean. Padding is in neither."""
    kept: Bool[Array, ' B']
    """The examples that the mean is over."""

    @property
    def num_kept(self) -> Int[Array, '']:
        """How many examples the mean is over."""
        return jnp.sum(self.kept)


class Estimate(NamedTuple):
    """A gradient estimate and the error vector it was read off from."""

    grads: Params
    """Like params: the mean of dC/dθ over the examples that count."""
    error: Rates | None
    """δ, leaves [B, ...], not divided by B; None where the method has none."""
    info: Info
    """How the phases settled."""


@runtime_checkable
class Solver(Protocol):
    """How it settles; from a factory of `eqprop_jax.solvers`, or one of your own.

    Every example stops for itself, whatever else is in its batch, and says in
    `residual` and `converged` whether it settled. States may be real or complex.
    """

    def __call__(
        self, field: Field | Callable[[State], State], state: State, /
    ) -> Equilibrium:
        """Returns where the field settles from a state, leaves [B, ...].

        Args:
          field: a `Field`, or any function u ↦ du/dt.
          state: where it starts.
        """
        ...


@runtime_checkable
class Estimator(Protocol):
    """Whom to credit; from a factory of `eqprop_jax.estimators`, or one of your own."""

    def __call__(
        self, params: Params, batch: Batch, free: Equilibrium, rng: jax.Array | None, /
    ) -> Estimate:
        """Returns an estimate of the gradient of the mean cost at a free equilibrium.

        Args:
          params: θ.
          batch: inputs and targets.
          free: the free equilibrium, real, of this batch under these parameters.
          rng: a key; None will do where nothing is drawn.
        """
        ...
