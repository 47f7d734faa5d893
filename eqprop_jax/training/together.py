"""Runs that are trained together: their states side by side, in the programs of one."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array

from eqprop_jax.training import mesh, programs
from eqprop_jax.training.diagnose import first_examples
from eqprop_jax.training.metrics import Values
from eqprop_jax.training.state import Experiment, TrainState, stream


class Runs:
    """Some runs, their programs, and the data that they work on.

    Args:
      runs: that differ in what their states hold alone.
      way: a key of `programs.WAYS`; None: 'map' on a CPU, else 'vmap'. Of one run it
        says nothing.

    Raises:
      ValueError: for an unknown way.
    """

    def __init__(self, runs: Sequence[Experiment], way: str | None = None):
        self._runs, run = len(runs), runs[0]
        if self._runs == 1:
            way = None
        else:
            way = way or ('map' if jax.default_backend() == 'cpu' else 'vmap')
            if way not in programs.WAYS:
                raise ValueError(
                    f'no way {way!r}; choose from {", ".join(programs.WAYS)}'
                )
            run = run._replace(mesh=mesh.of_runs(run.mesh, self._runs))
        self._mesh, dataset = run.mesh, run.dataset
        self._train = mesh.place(dataset.train, run.mesh)
        self._evaluated = {
            name: mesh.place(split, run.mesh)
            for name, split in (('eval', dataset.held_out), ('test', dataset.test))
            if len(split.labels)
        }
        self._probe = first_examples(run, run.diagnostics.num_examples)
        self._run_chunk = programs.make_train_chunk(run, way)
        self._evaluate = programs.make_evaluate(run, way=way)
        self._diagnose = programs.make_diagnose(run, way)

    def pack(self, states: Sequence[Any]) -> Any:
        """Returns the states of the runs as what the programs take."""
        if self._runs == 1:
            return states[0]
        fillers = -self._runs % self._mesh.shape[mesh.RUNS]
        filled_up = [*states, *(states[-1],) * fillers]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *filled_up)
        return jax.device_put(stacked, NamedSharding(self._mesh, mesh.RUNS_DIVIDED))

    def unpack(self, packed: Any) -> list[Any]:
        """Returns what each run has, on this host where there are several."""
        if self._runs == 1:
            return [packed]
        here = jax.device_get(packed)
        return [
            jax.tree.map(lambda leaf, i=index: leaf[i], here)
            for index in range(self._runs)
        ]

    def train(
        self, state: TrainState, epoch: int, first: int, num_steps: int
    ) -> tuple[TrainState, list[programs.Chunk]]:
        """Takes steps; as `make_train_chunk`, with what came of it by run."""
        position = (jnp.int32(number) for number in (epoch, first, num_steps))
        state, chunk = self._run_chunk(state, self._train, *position)
        return state, self.unpack(jax.block_until_ready(chunk))

    def evaluate(self, state: TrainState) -> list[dict[str, Values]]:
        """Returns for each run its metrics by split, 'eval' where there is one."""
        found = {
            name: self.unpack(self._evaluate(state.params, split))
            for name, split in self._evaluated.items()
        }
        return [
            {name: metrics[index] for name, metrics in found.items()}
            for index in range(self._runs)
        ]

    def diagnose(self, state: TrainState) -> list[Values]:
        """Returns for each run what is wrong with its gradient."""

        def key(seed: Array, step: Array) -> jax.Array:
            return jax.random.fold_in(stream(seed, 'diagnose'), step)

        key = key if self._runs == 1 else jax.vmap(key)
        rng = key(state.seed, state.step)
        return self.unpack(self._diagnose(state.params, rng, self._probe))
