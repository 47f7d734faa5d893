r"""Fashion-MNIST, Table 1 of Laborieux and Zenke 2024, and what it is held against.

The published setting (https://arxiv.org/abs/2309.02214; values from the authors' code):
784-256-256-10, ten settling units at the end and a softmax readout behind them,
sigmoid(4z − 2), feedback of its own that starts as the transposes (angle 0), SGD with
momentum 0.9 at a constant 0.01, batch 50, 50 epochs, pixels in [0, 1]. Rows: N points
on a circle of |β| = 0.05 or 0.5, the limit of small nudges, and the nudge that turns.

Differences: 55,000 training images (5,000 are held out to choose an epoch by); phases
end at a tolerance and not after 150 and 20 synchronous sweeps, of which a free phase
from angle 0 needs more; nudged phases end after 20 sweeps, as there, if they have not
before. Examples whose linear solve has not ended after 50 are left out of the mean:
with 20 sweeps and all examples, recurrent backprop fell apart in the sixth epoch, it
seems by the few whose equilibrium was about to vanish, and ended at chance
(seed 0, commit 93b4d58, 2026-11-26, 2 cores of an AMD EPYC).

With one nudge the sign matters. In the authors' code a positive β pushes away from the
target; that is −β here, and both signs are rows.

    python launch/prepare_data.py --dataset=fashion_mnist        # once
    python launch/sweep.py --config=configs/table1_fmnist.py --workdir=runs/table1

Measured before 2026-11-27, by one residual for all layers (results/table1_fmnist.json
has the runs; 10 epochs where 50 are published, but for the first five rows): corrected
EP has 11.35 ± 0.16 % after 50 epochs, recurrent backprop 11.51 ± 0.38 and backprop of
the feed-forward network 11.32 ± 0.22, five seeds each. At a constant rate last epochs
of 50 are up to 1.6 points above the best ones. Against the paper:

* N = 6, radius 0.5: 13.6 ± 0.6 % last, 13.4 best, five seeds; published 14.3. Which
  difference of the settings makes it less was not looked into.
* The limit of small nudges: 16.2 % after 10 epochs; published 14.7. It is taken as
  there, by 20 synchronous steps, which are 10 alternating sweeps here. Solved further
  (50 sweeps, 1e-2) it follows examples next to losing their equilibrium: 30.2 ± 2.2 %,
  three seeds, commit 1882a10.
* One nudge of 0.5, away from the target: 53 to 81 % by seed; published 38.4. Runs are
  there after the first epoch and stay: nudged phases end after a single sweep (1.0 to
  1.6, metrics.jsonl, commit 1882a10), so that it seems the readout alone learns.
  Towards the target: 15.6 %, less than with two or four nudges.
* Nudges of 0.05, and two of 0.5, ended at 3e-5 and not at 1e-3 of the state, which they
  hardly move it by: with 1e-3 two of 0.05 took 1.05 sweeps, lower layers heard little,
  and the error was 23.7 ± 0.9 % (three seeds, commit 1882a10) and not 16.4.
* Online: 16.1 % after 10 epochs; published 17.3. Here the first turn is not averaged,
  and the second is the estimate: 15 alternating sweeps at each point, where five turns
  of 60 synchronous ones are all averaged there.
* Homeostasis with λ = 0.1, which is ours: 13.9 ± 0.8 %, five seeds, not better than
  without. The weights stay within 13 degrees and nine tenths of J symmetric, and the
  gradient's cosine to the exact one is 0.14 to 0.74, in the median 0.54, where the
  spectral radius is below 1; it is 0.93 to 1.12 (metrics.jsonl, commits c4340b0,
  537afe2 and c710752). Next to symmetry the network is next to the loss of its
  equilibrium, too.
"""

from collections.abc import Callable
from typing import Any

import ml_collections

from configs import fmnist_mlp

SHORT = {'num_epochs': 10}  # rows beside the headline ones
RBP = {
    'estimator.name': 'recurrent_backprop',
    'estimator.method': 'anderson',
    'estimator.tol': 0.01,
    'estimator.max_steps': 50,
    'estimator.skip_unconverged': True,  # one such example can end a run
}
TANGENT = {  # 10 alternating sweeps for 20 synchronous steps; all examples count
    'estimator.name': 'tangent',
    'estimator.tol': 0.01,
    'estimator.max_steps': 10,
}
ONE = {'estimator.contour': 'one_sided'}
ONLINE = {
    'estimator.name': 'oscillation',
    'estimator.num_points': 4,
    'estimator.steps_per_point': 15,
    'estimator.from_rest': True,
}
PUBLISHED = {  # quoted second-hand; with one nudge, pushed away from the target
    'plain N=1 away, 0.5': '38.4 (50 epochs)',
    'plain N=6, 0.5': '14.3',
    'plain true derivative': '14.7 (50 epochs)',
    'plain online': '17.3 (50 epochs)',
}
CORRECTED = {
    'estimator.contour': 'complex_step',
    'estimator.radius': 0.01,
    'estimator.correction': 'antisymmetric',
}


def get_config() -> ml_collections.ConfigDict:
    """Returns what the rows change: plain EP with N = 6, |β| = 0.5."""
    config = fmnist_mlp.get_config()
    config.num_epochs = 50
    config.system.classes = 10
    config.system.angle = 0.0
    config.solver.name = 'anderson'
    config.solver.depth = 2
    config.nudged_solver = config.solver.copy_and_resolve_references()
    config.nudged_solver.tol = 1e-2
    config.nudged_solver.max_steps = 20
    config.estimator.radius = 0.5
    config.estimator.num_points = 6
    config.estimator.correction = None
    config.optimizer.name = 'sgd'
    config.optimizer.learning_rate = 0.01
    config.optimizer.schedule = 'constant'
    config.diagnostics.every_evals = 5
    return config


def sweep(add: Callable[[str, dict[str, Any]], None]) -> None:
    """Adds the rows.

    Args:
      add: takes a name and the values to change, by dotted key.
    """
    add('plain N=6, 0.5', {})
    add('corrected', CORRECTED)
    add('homeostasis', {'homeostasis.weight': 0.1})
    add('recurrent backprop', RBP)
    add('feed-forward backprop', RBP | {'system.name': 'feedforward'})

    add('plain true derivative', TANGENT | SHORT)
    for radius in (0.05, 0.5):
        size = {'estimator.radius': radius} | SHORT
        add(f'plain N=1, {radius}', ONE | size)
        add(f'plain N=1 away, {radius}', ONE | size | {'estimator.radius': -radius})
        for points in (2, 4, 6):
            if (points, radius) != (6, 0.5):
                changes = size | {'estimator.num_points': points}
                add(f'plain N={points}, {radius}', changes)
    add('plain online', ONLINE | SHORT)
