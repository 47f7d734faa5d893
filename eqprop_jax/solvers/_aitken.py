"""Aitken relaxation: every example finds the step that suits it, from sweep to sweep.

With G(u) the state after a sweep from u, f = G(u) − u what it moves, and Δf what has
changed of it since the last one,

    u ← u + ω f        ω ← −ω ⟨f_before, Δf⟩ / ⟨Δf, Δf⟩

It is the secant method along f. Where sweeps swing from side to side ω comes down and
damps them, and where they creep it goes up; a network that needs ε = 0.8 for a few of
its examples does not slow down the others. A step costs two inner products, the lengths
of the layers and one more state to remember, where Anderson mixing has several of each.

What counts in ⟨·, ·⟩ is what residuals are made of: of every layer what the contour
reads, relative to its size, so that layers with little credit count, too.

References:
  Irons and Tuck 1969, https://doi.org/10.1002/nme.1620010306
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eqprop_jax import tree
from eqprop_jax.solvers._lengths import lengths, read
from eqprop_jax.solvers._settle import Advance, by_sweeps
from eqprop_jax.solvers._sweeps import Sweep
from eqprop_jax.types import Field, Solver, State

LEAST, MOST = 0.2, 2.0  # bounds of ω


def aitken(
    *,
    order: str = 'alternating',
    step_size: float = 1.0,
    clip: tuple[float, float] | None = None,
    tol: float = 1e-4,
    max_steps: int = 250,
    compact: bool | None = None,
) -> Solver:
    """Relaxation by steps of ω f, to the same equilibria.

    Stopping, residuals and the independence of examples are those of `relaxation`,
    except that no less than the last move counts as left to move. It pays where plain
    sweeps overshoot, as in trained convolutional networks with feedback of their own. ω
    is held between 0.2 (or `step_size`, if that is less) and 2, so that modes down to
    1 − 2/0.2 = −9 settle.

    Args:
      order: as in `relaxation`, like `clip`, `tol`, `max_steps` and `compact`.
      step_size: ω of the first step, and of those after which f has grown along itself;
        positive.
      clip: bounds.
      tol: tolerance.
      max_steps: bound on the number of sweeps.
      compact: whether the last third of a batch is relaxed by itself.

    Returns:
      solve(field, state) -> Equilibrium, as that of `relaxation`.

    Raises:
      ValueError: for an unknown order, or a number outside its range.
    """

    def begin(field: Field, state: State, sweep: Sweep) -> tuple[Advance, tuple]:
        whole = sweep._replace(step_size=1.0)

        def advance(
            field: Field, state: State, memory: tuple, step: Array
        ) -> tuple[State, State, tuple]:
            del step
            before, omega = memory
            swept = whole(field, state)
            f = tree.sub(swept, state)
            seen = read(field, f)
            found = adapted(omega, before, seen, lengths(field, swept))
            found = jnp.clip(found, min(LEAST, step_size), MOST)
            omega = jnp.where(jnp.isnan(found), step_size, found)
            moved = jax.tree.map(lambda g, m: g + _times(omega - 1, m), swept, f)
            longest = jax.tree.map(lambda m: _times(jnp.maximum(omega, 1), m), f)
            return sweep.clipped(moved), longest, (seen, omega)

        before = [jnp.zeros_like(layer) for layer in read(field, state)]
        omega = jnp.full(len(before[0]), step_size, before[0].dtype)
        return advance, (before, omega)

    return by_sweeps(  # steps of another length do not shrink evenly: not `through`
        begin,
        order=order,
        step_size=step_size,
        clip=clip,
        tol=tol,
        max_steps=max_steps,
        compact=compact,
    )


def adapted(
    omega: Float[Array, ' B'],
    before: list[Array],
    f: list[Array],
    sizes: Float[Array, 'L B'],
) -> Float[Array, ' B']:
    """Returns ω for the next step; NaN at the first, and where f grows along itself.

    Args:
      omega: that of the last step, [B].
      before: f of the last sweep, by layer; zeros before the first.
      f: of this one.
      sizes: of the layers, which f counts relative to.
    """

    def dot(a: list[Array], b: list[Array]) -> Array:
        terms = [
            jnp.sum((_over(x, size) * _over(y, size)).reshape(len(x), -1), axis=1)
            for x, y, size in zip(a, b, sizes, strict=True)
        ]
        return sum(terms, start=jnp.zeros_like(omega))

    change = tree.sub(f, before)
    found = -omega * dot(before, change) / dot(change, change)
    first = jnp.all(jnp.stack([tree.per_example_norm(b) == 0 for b in before]), axis=0)
    return jnp.where((found > 0) & ~first, found, jnp.nan)


def _times(factor: Array, leaf: Array) -> Array:
    """Returns the leaf times a factor of each example's own."""
    return factor.reshape((-1,) + (1,) * (leaf.ndim - 1)) * leaf


def _over(leaf: Array, size: Array) -> Array:
    return _times(jnp.where(size > 0, 1 / size, 0), leaf)
