"""What a run from Python came to."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from eqprop_jax import dynamics
from eqprop_jax.training.state import Experiment, TrainState
from eqprop_jax.types import Params


class Fit(NamedTuple):
    """A run that has ended."""

    state: TrainState
    """After the last step; `state.params` is θ."""
    history: list[dict[str, Any]]
    """The records of the run, in their order, as metrics.jsonl has them."""
    run: Experiment
    """Its parts."""

    @property
    def params(self) -> Params:
        """θ after the last step."""
        return self.state.params

    def predict(self, x: ArrayLike) -> Float[Array, 'B n']:
        """Returns the scores of classes, or the outputs, for raw inputs.

        They are normalized as in training.

        Args:
          x: inputs [B, ...] like those of the data set; images of one channel may lack
            its axis.

        Raises:
          ValueError: for inputs of another shape, or no real numbers.
        """
        run, raw = self.run, _numbers(x)
        wanted = run.dataset.train.images.shape[1:]
        if (*raw.shape[1:], 1) == wanted:
            raw = raw[..., None]
        if raw.shape[1:] != wanted:
            raise ValueError(
                f'inputs have shape {raw.shape[1:]}, but {wanted} was trained on'
            )

        @jax.jit
        def scores(params: Params, raw: Array) -> Array:
            x = run.preprocess(raw)
            free = dynamics.relax(run.system, params, x, run.solve)
            return run.system.predict(params, free.rates)

        return scores(self.params, raw)

    def __repr__(self) -> str:
        """Returns how far it came, and what to."""
        last = self.history[-1]
        error = f'{last["split"]} error {last["error"]:.4g}'
        return f'Fit({error} after {int(self.state.step)} steps)'


def _numbers(x: ArrayLike) -> Array:
    """Returns numbers as an array; integers of 64 bits, which JAX cuts, as float32."""
    raw = x if isinstance(x, jax.Array) else np.asarray(x)
    if raw.dtype.kind not in 'biuf':
        raise ValueError(f'inputs are {raw.dtype}, no real numbers')
    if isinstance(raw, np.ndarray):
        wide = raw.dtype.kind in 'iu' and raw.dtype.itemsize > 4
        raw = raw.astype(np.float32 if wide else raw.dtype.newbyteorder('='))
    return jnp.asarray(raw)
