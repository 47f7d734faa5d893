"""The programs of one run, or of several that are trained together.

Runs of one program share data, shapes and whatever is not in `Scalars`. They exchange
nothing: devices are divided among them first (the axis `runs` of a mesh), and those of
one device are vmapped, or done one after the other in one program ('map'). Vmapped runs
wait for each other in every phase, and cost little where a device is not full; on a CPU
one run fills it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import NamedSharding

from eqprop_jax.training import mesh
from eqprop_jax.training import step as steps
from eqprop_jax.training.diagnose import first_examples, make_diagnose
from eqprop_jax.training.state import Experiment, TrainState, stream


def _one_after_the_other(fn: Any) -> Any:
    return lambda *args: lax.map(lambda each: fn(*each), args)


LIFTS: Mapping[str, steps.Lift] = {'vmap': jax.vmap, 'map': _one_after_the_other}
"""How several runs of a device are done."""


class Programs:
    """What is compiled, and the data that it works on.

    Args:
      experiments: that differ in their scalars alone.
      how: a key of `LIFTS`; None: 'map' on a CPU, else 'vmap'. One run needs none.

    Raises:
      ValueError: for an unknown `how`.
    """

    def __init__(self, experiments: Sequence[Experiment], how: str | None = None):
        self._runs = len(experiments)
        run, lift = experiments[0], None
        if self._runs > 1:
            how = how or ('map' if jax.default_backend() == 'cpu' else 'vmap')
            if how not in LIFTS:
                raise ValueError(f'no way {how!r}; choose from {", ".join(LIFTS)}')
            lift = LIFTS[how]
            run = run._replace(mesh=mesh.of_runs(run.mesh, self._runs))
        self._experiments, self._mesh = experiments, run.mesh
        dataset = run.dataset
        self._train = mesh.place(dataset.train, run.mesh)
        self._evaluated = {
            name: mesh.place(split, run.mesh)
            for name, split in (('eval', dataset.held_out), ('test', dataset.test))
            if len(split.labels)
        }
        self._probe = first_examples(run, run.diagnostics.num_examples)
        self._run_chunk = steps.make_train_chunk(run, lift=lift)
        self._evaluate = steps.make_evaluate(run, lift=lift)
        self._diagnose = make_diagnose(run, lift=lift)
        self._scalars = ()
        if lift is not None:
            scalars = [experiment.scalars for experiment in experiments]
            self._scalars = (self.pack(scalars),)

    def pack(self, trees: Sequence[Any]) -> Any:
        """Returns what each run has as what the programs take."""
        if self._runs == 1:
            return trees[0]
        rows = mesh.filled_up(self._runs, self._mesh)
        padded = [*trees, *(trees[-1],) * (rows - self._runs)]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *padded)
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
    ) -> tuple[TrainState, list[steps.Chunk]]:
        """Takes steps; as `steps.make_train_chunk`, with what came of it by run."""
        position = (jnp.int32(number) for number in (epoch, first, num_steps))
        state, chunk = self._run_chunk(state, self._train, *position, *self._scalars)
        return state, self.unpack(jax.block_until_ready(chunk))

    def evaluate(self, state: TrainState) -> list[dict[str, Mapping[str, Any]]]:
        """Returns for each run its metrics by split, 'eval' where there is one."""
        found = {
            name: self.unpack(self._evaluate(state.params, split))
            for name, split in self._evaluated.items()
        }
        return [
            {name: metrics[index] for name, metrics in found.items()}
            for index in range(self._runs)
        ]

    def diagnose(self, state: TrainState, step: int) -> list[Mapping[str, Any]]:
        """Returns for each run what is wrong with its gradient."""
        keys = [
            jax.random.fold_in(stream(experiment.seed, 'diagnose'), step)
            for experiment in self._experiments
        ]
        rng = self.pack(keys)
        return self.unpack(self._diagnose(state.params, self._probe, rng))
