"""What a run from Python came to."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from eqprop_jax import dynamics
from eqprop_jax.data._from_arrays import as_inputs
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
        run = self.run
        raw = x if isinstance(x, jax.Array) else jnp.asarray(as_inputs('inputs', x))
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
