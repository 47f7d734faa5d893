"""The two processes behind the theorems, and EP's updates against those of BPTT.

From the free equilibrium on, with steps of size ε of du/dt = F,

    error derivatives       S̄_t = dC(s_T)/du_{T−t}      how a disturbance t steps before
                                                        the end would change the cost
    temporal derivatives    S_t = −σ′ ⊙ (d/dβ)(u_{t+1} − u_t)/ε      how fast the nudged
                                                        network moves, at β = 0

Both start at σ′ ⊙ ∂C/∂s, and as Theorems 3 and 4 of Scellier et al. 2018 say each is a
flow of its own, by the transpose of the other's matrix:

    S̄_{t+1} = S̄_t + ε (σ′ ⊙ Jᵀ S̄_t − S̄_t)
    S_{t+1} = S_t + ε (σ′ ⊙ J  S_t − S_t)

so that they are the same where J is symmetric. Carried to the parameters,
ε (∂D/∂θ)ᵀ S̄_t is the gradient that BPTT reaches t steps back, and ε (∂D/∂θ)ᵀ S_t is the
update of EP in step t of the nudged phase: gradient-descending updates, GDU (Ernoult et
al. 2019). The sums over t tend to recurrent backprop and to EP.

References:
  Scellier et al. 2018, section 5, https://arxiv.org/abs/1808.04873
  Ernoult et al. 2019, https://arxiv.org/abs/1905.13633
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from eqprop_jax import dynamics, tree
from eqprop_jax.solvers._sweeps import make_sweep
from eqprop_jax.types import Batch, Equilibrium, Field, Params, Rates, State, System


class Processes(NamedTuple):
    """Both processes and both series of updates; T steps, times t = 0 ... T − 1."""

    error: Rates
    """S̄_t, leaves [T, B, ...]."""
    temporal: Rates
    """S_t, leaves [T, B, ...]; with a finite β by differences of the nudged states."""
    bptt: Params
    """Updates that BPTT adds with step t, mean over the batch; leaves [T, ...]."""
    ep: Params
    """Updates of EP in step t of the nudged phase; leaves [T, ...]."""


def processes(
    system: System,
    params: Params,
    batch: Batch,
    free: Equilibrium,
    *,
    num_steps: int = 20,
    step_size: float = 1.0,
    beta: float = 0.0,
) -> Processes:
    """Returns both processes and the updates that they make, step by step.

    The sums over t < T of the updates, plus ∂C/∂θ, are the gradients of `bptt` with T
    steps and of EP after T steps of its nudged phase.

    Args:
      system: what moves.
      params: θ.
      batch: inputs and targets.
      free: the free equilibrium, real; the theorems hold as far as it is settled.
      num_steps: T, positive.
      step_size: ε, positive.
      beta: the nudge of the temporal derivatives; 0 takes their limit, by forward-mode
        differentiation of the nudged relaxation.

    Raises:
      ValueError: if T or ε is not positive.
    """
    if not (int(num_steps) == num_steps and num_steps >= 1):
        raise ValueError(f'num_steps has to be a positive integer, not {num_steps}')
    if not step_size > 0:
        raise ValueError(f'step_size has to be positive, not {step_size}')
    dynamics.check_real('processes', free.state)
    injection = system.inject(params, batch.x)
    field = dynamics.free_field(system, params, injection)
    gradient = dynamics.cost_gradient(system, params, batch.y)
    none = jax.tree.map(
        lambda leaf: jnp.zeros((num_steps, *leaf.shape), leaf.dtype), free.state
    )

    def cost(disturbances: State) -> Array:
        states = _states(field, free.state, disturbances, step_size)
        end = jax.tree.map(lambda leaf: leaf[-1], states)
        return jnp.sum(system.cost(params, system.rates(end), batch.y))

    def nudged(beta: Float[Array, '']) -> State:
        nudged = dynamics.nudged_field(field, gradient, beta)
        return _states(nudged, free.state, none, step_size)

    error = jax.tree.map(lambda leaf: leaf[::-1], jax.grad(cost)(none))
    zero = jnp.zeros((), jnp.result_type(*jax.tree.leaves(free.state)))
    if beta:
        shift = tree.scale(1 / beta, tree.sub(nudged(zero + beta), nudged(zero)))
    else:
        _, shift = jax.jvp(nudged, (zero,), (zero + 1,))

    def velocity(shift: Array, slope: Array) -> Array:
        return -slope[None] * jnp.diff(shift, axis=0, prepend=0) / step_size

    def drive(params: Params) -> State:
        return system.drive(params, system.inject(params, batch.x), free.rates)

    _, pullback = jax.vjp(drive, params)

    def update(process: Rates) -> Params:
        """Returns ε (∂D/∂θ)ᵀ of one moment, mean over the batch."""
        return pullback(tree.scale(step_size / len(batch.x), process))[0]

    temporal = jax.tree.map(
        velocity, shift, dynamics.slopes(system, free.state, free.held)
    )
    return Processes(error, temporal, lax.map(update, error), lax.map(update, temporal))


def _states(field: Field, start: State, disturbances: State, step_size: float) -> State:
    """Returns the states after each step, to which its disturbance is added."""
    field, sweep = make_sweep(field, start, 'synchronous', step_size, None)

    def step(state: State, disturbance: State) -> tuple[State, State]:
        moved = tree.add(sweep(field, state), disturbance)
        return moved, moved

    return lax.scan(step, start, disturbances)[1]


def distances(a: Rates, b: Rates) -> Float[Array, ' T']:
    """Returns |a_t − b_t| / |b_t| of every step, over all layers or parameters.

    Args:
      a: leaves [T, ...], as in `Processes`.
      b: what a is compared with.
    """
    return tree.per_example_norm(tree.sub(a, b)) / tree.per_example_norm(b)
