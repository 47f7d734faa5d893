"""Costs per example, analytic in the rates so that complex nudges can be applied.

squared_error:  C = ½ Σᵢ (sᵢ − yᵢ)²             no modulus: (s − y)², not |s − y|²
cross_entropy:  C = −Σᵢ yᵢ log softmax(z)ᵢ      z the scores of a `readout`
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Inexact

COSTS = ('cross_entropy', 'squared_error')


def squared_error(
    output: Inexact[Array, 'B classes'], y: Float[Array, 'B classes']
) -> Inexact[Array, ' B']:
    """Returns ½ Σᵢ (sᵢ − yᵢ)² of each example."""
    return 0.5 * jnp.sum((output - y) ** 2, axis=-1)


def cross_entropy(
    logits: Inexact[Array, 'B classes'], y: Float[Array, 'B classes']
) -> Inexact[Array, ' B']:
    """Returns log Σᵢ e^{zᵢ} Σᵢ yᵢ − Σᵢ yᵢ zᵢ of each example; y may be soft."""
    shift = lax.stop_gradient(jnp.max(jnp.real(logits), axis=-1, keepdims=True))
    shifted = logits - shift
    log_normalizer = jnp.log(jnp.sum(jnp.exp(shifted), axis=-1))
    return jnp.sum(y, axis=-1) * log_normalizer - jnp.sum(y * shifted, axis=-1)


def check(cost: str) -> None:
    """Raises ValueError, listing the choices, unless `cost` names a cost."""
    if cost not in COSTS:
        raise ValueError(f'no cost {cost!r}; choose from {", ".join(COSTS)}')


def targets(scores: Inexact[Array, 'B classes'], y: ArrayLike) -> Array:
    """Returns targets in the shape and precision of the scores.

    They may be one-hot or soft, [B, classes], or class indices, integers [B]. An index
    that is no class has NaN; −1, of padding, zeros.
    """
    y, dtype = jnp.asarray(y), jnp.real(scores).dtype
    if y.shape == scores.shape:
        return y.astype(dtype)
    if y.shape != scores.shape[:1] or not jnp.issubdtype(y.dtype, jnp.integer):
        raise ValueError(
            f'targets have shape {y.shape} but the network scores {scores.shape}: '
            'y is one-hot, [B, classes], or holds class indices, integers [B]'
        )
    one_hot = jax.nn.one_hot(y, scores.shape[1], dtype=dtype)
    return jnp.where(y[:, None] < scores.shape[1], one_hot, jnp.nan)
