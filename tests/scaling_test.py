"""Counted costs against the solvers' own sweeps, laws, and the picture."""

import jax
import numpy as np
import pytest

import eqprop_jax as ep
from experiments import scaling
from experiments.figures import scaling as figure

pytestmark = pytest.mark.whole

START = scaling.Setting(width=9, depth=2, batch_size=16)
PLAIN = '90°, plain sweeps'


@pytest.fixture(scope='module')
def data():
    """Digits as inputs; two axes."""
    digits = ep.data.load('digits')
    axes = {'num_points': [2, 8], 'tol': [1e-1, 1e-3, 1e-5]}
    return scaling.scaling_data(
        jax.numpy.asarray(digits.train.images / digits.scale),
        jax.nn.one_hot(digits.train.labels, 10),
        jax.random.key(0),
        axes,
        START,
    )


def test_compaction_lies_between(data):
    for panel in data.values():
        assert list(panel['variants']) == list(scaling.VARIANTS)
        for columns in panel['variants'].values():
            alone, compacted, together = (
                np.array(columns[kind]) for kind in ('alone', 'compacted', 'together')
            )
            assert np.all((alone <= compacted) & (compacted <= together))


def test_what_is_paid_for_buys_accuracy(data):
    for columns in data['tol']['variants'].values():
        assert columns['compacted'][-1] > columns['compacted'][0]
        loose, fine, finest = (1 - value for value in columns['cosine'])
        assert loose > 10 * max(fine, finest)  # what is left then is the nudge's
        assert columns['settled'][-1] == 1


def test_evaluations_are_the_solvers_own_sweeps(data):
    """By the solver itself, one phase after the other, in the same network."""
    digits = ep.data.load('digits')
    x = jax.numpy.asarray(digits.train.images[:16] / digits.scale)
    y = jax.nn.one_hot(digits.train.labels[:16], 10)
    system = ep.systems.mlp((64, 9, 9, 10), feedback='free', angle=90.0)
    params = system.init(jax.random.key(0), x)
    solve = ep.solvers.relaxation(tol=1e-3)
    free = ep.relax(system, params, x, solve)
    estimate = ep.estimators.contour(
        system,
        solve,
        contour=ep.nudges.circle(0.1, 2, half_step=True),
        correction='antisymmetric',
    )
    (steps,) = estimate(params, ep.Batch(x, y), free, None).info.num_steps
    columns = data['num_points']['variants'][PLAIN]
    together = 1 + free.num_steps.max() + 2 * (1 + steps.max())
    assert columns['together'][0] == together
    alone = 1 + free.num_steps.mean() + 2 * (1 + steps.mean())
    assert columns['alone'][0] == pytest.approx(float(alone))
    products = 2 * 2 * 9 * 9  # of a sweep, for an example
    assert columns['flops'][0] == pytest.approx(products * columns['compacted'][0])


def test_every_point_is_a_phase(data):
    few, many = data['num_points']['variants'][PLAIN]['compacted']
    assert 2.5 < many / few < 4  # one complex phase beside the free one, or four


def test_laws():
    sizes = [2, 4, 8, 32]
    assert scaling.exponent(sizes, [3 * n**1.5 for n in sizes]) == pytest.approx(1.5)
    assert scaling.per_decade([1e-1, 1e-2, 1e-4], [4.0, 7.0, 13.0]) == pytest.approx(3)
    assert np.isnan(scaling.exponent([2], [3.0]))


def test_the_picture(tmp_path, data):
    axes = {
        axis: data['tol' if axis == 'tol' else 'num_points'] for axis in figure.LABELS
    }
    ep.records.write_data(tmp_path, 'scaling', {'axes': axes})
    path = figure.draw(tmp_path, tmp_path / 'images')
    assert path == tmp_path / 'images' / 'scaling.png'
    assert len(path.read_bytes()) > 20_000
