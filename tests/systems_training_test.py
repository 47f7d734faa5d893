"""The systems of the papers go through the training loop, and learn."""

import json

import jax
import jax.numpy as jnp
import pytest
import runs

pytestmark = pytest.mark.whole

CONV = {
    'name': 'conv',
    'image_shape': (8, 8, 1),
    'channels': (6,),
    'hidden': (12,),
    'classes': 10,
    'feedback': 'free',
    'angle': 90.0,
}
CLIPPED = {
    'solver.clip': (0.0, 1.0),
    'nudged_solver.clip': (0.0, 1.0),
    'nudged_solver.step_size': 0.5,
    'estimator.contour': 'one_sided',
    'estimator.radius': 1.0,
    'estimator.num_points': None,
}
ADJOINT = {
    'estimator.correction': 'adjoint',
    'estimator.contour': 'complex_step',
    'estimator.radius': 1e-3,
    'estimator.num_points': None,
}
PLAIN = {'estimator.correction': None, 'solver.step_size': 0.3}
RUNS = {
    'conv': {'system': CONV} | ADJOINT,
    'conv, dropout, augmented, coarse': {
        'system': CONV | {'dropout': 0.3},
        'precision': 'bfloat16',
        'data.augment.pad': 1,
    }
    | ADJOINT,
    'conv, max': {
        'system': CONV
        | {'pooling': 'max', 'feedback': 'tied', 'angle': None}
        | {'activation': 'hard_sigmoid', 'cost': 'squared_error'},
        'estimator.correction': None,
        'estimator.radius': 0.01,  # a larger one crosses kinks
        'optimizer.learning_rate': 1e-3,  # units that saturate for good learn nothing
    },
    'leaky': {'system': {'name': 'leaky', 'sizes': (64, 16, 10)}} | CLIPPED,
    'predictive coding': {
        'system': {'name': 'predictive_coding', 'sizes': (64, 16, 16, 10)},
        'nudged_solver.step_size': 0.3,
        'nudged_solver.tol': 1e-2,
    }
    | ADJOINT
    | PLAIN,
}


@pytest.mark.parametrize('name', RUNS)
def test_a_run_learns_and_is_diagnosed(name, tmp_path):
    changes = {
        'num_epochs': 4,
        'optimizer.learning_rate': 5e-3,
        'diagnostics.every_evals': 1,
    }
    experiment = runs.experiment(changes | RUNS[name])
    state = runs.train(experiment, tmp_path)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
    records = [json.loads(line) for line in lines]
    records = [record for record in records if record['split'] == 'eval']
    assert records[-1]['loss'] < records[0]['loss']
    assert records[-1]['reference_converged'] == 1
    if name != 'leaky':  # a nudge of 1 is far from the limit of small ones
        assert records[-1]['gradient_cosine'] > 0.9
