"""The figure of a run shows what the records say, whatever the run has left out."""

import struct

import matplotlib
import numpy as np
import pytest
import runs

from eqprop_jax import records
from eqprop_jax.figures import curves

TRAIN = {
    'loss': 1.0,
    'error': 0.5,
    'residual': 1e-4,
    'max_residual': 1e-3,
    'max_nudged_residual': 2e-3,
    'settled': 0.9,
}
DIAGNOSTICS = {
    'gradient_cosine': 0.75,
    'cosine/layer_1': 0.5,
    'cosine/layer_2': 0.25,
    'symmetric_share': 0.6,
    'angle/layer_1/feedback': 80.0,
}
ERRORS = {
    'gradient_cosine_without_readout': 0.125,
    'error/layer_1': 2.0,
    'error/layer_2': 0.03,
    'worst_error': 2.0,
}


def write(workdir, rows, changes=None):
    """Writes a run by hand; rows are (epoch, split, metrics)."""
    records.claim(workdir, runs.values(changes))
    with records.Writer(workdir) as writer:
        for epoch, split, metrics in rows:
            writer.write(round(10 * epoch), epoch, split, metrics)


@pytest.mark.parametrize(
    'setting',
    [{'text.usetex': True}, {'font.size': 30}, {'figure.dpi': 1e4}],
)
def test_other_settings_of_the_user_do_not_matter(tmp_path, setting):
    write(tmp_path, whole_run())
    wanted = curves.draw(tmp_path).read_bytes()
    with matplotlib.rc_context(setting):
        assert curves.draw(tmp_path).read_bytes() == wanted


def whole_run(factor=1.0, diagnostics=DIAGNOSTICS):
    rows = []
    for epoch in (1.0, 2.0, 3.0):
        error = factor * 0.6 / epoch
        rows.append((epoch, 'train', TRAIN | {'error': error}))
        rows.append((epoch, 'eval', {'loss': 1.0, 'error': error / 2} | diagnostics))
        rows.append((epoch, 'test', {'loss': 1.0, 'error': error / 3}))
    return rows


def drawn_lines(figure, ylabel):
    (axis,) = (axis for axis in figure.axes if axis.get_ylabel() == ylabel)
    return {line.get_label(): np.array(line.get_data()) for line in axis.lines}


def texts(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def assert_png(path):
    head = path.read_bytes()[:24]
    assert head[:8] == b'\x89PNG\r\n\x1a\n'
    width, height = struct.unpack('>II', head[16:24])
    assert min(width, height) > 500


class TestDraw:
    def test_lines_are_the_records(self, tmp_path, figures):
        write(tmp_path, whole_run())
        assert curves.draw(tmp_path) == tmp_path / 'curves.png'
        assert_png(tmp_path / 'curves.png')
        (figure,) = figures
        errors = drawn_lines(figure, 'error (%)')
        np.testing.assert_allclose(errors['training'], [[1, 2, 3], [60, 30, 20]])
        np.testing.assert_allclose(errors['held out'], [[1, 2, 3], [30, 15, 10]])
        np.testing.assert_allclose(errors['test'], [[1, 2, 3], [20, 10, 20 / 3]])
        cosines = drawn_lines(figure, 'cosine to the exact one')
        assert {name: values[1, 0] for name, values in cosines.items()} == {
            'gradient': 0.75,
            'δ of layer 1': 0.5,
            'δ of layer 2': 0.25,
        }
        angles = drawn_lines(figure, 'angle of the feedback (°)')
        np.testing.assert_array_equal(angles['to layer 1'][1], 80.0)
        residuals = drawn_lines(figure, 'residual of the worst layer')
        np.testing.assert_allclose(residuals['nudged phases, worst'][1], 2e-3)
        assert texts(figure) == []

    def test_the_worst_layer_leads(self, tmp_path, figures):
        write(tmp_path, whole_run(diagnostics=DIAGNOSTICS | ERRORS))
        assert_png(curves.draw(tmp_path))
        errors = drawn_lines(figures[0], 'relative error of δ')
        assert {name: values[1, 2] for name, values in errors.items()} == {
            'δ of layer 1': 2.0,
            'δ of layer 2': 0.03,
            'worst layer': 2.0,
        }
        (axis,) = (
            a for a in figures[0].axes if a.get_ylabel() == 'relative error of δ'
        )
        assert axis.get_yscale() == 'log'
        assert axis.get_ylim() == pytest.approx((0.01, 10))
        (cosine,) = drawn_lines(figures[0], 'cosine without the readout').values()
        np.testing.assert_array_equal(cosine, [[1, 2, 3], [0.125] * 3])

    def test_title_names_the_method(self, tmp_path, figures):
        write(tmp_path, whole_run(), {'homeostasis.weight': 0.5})
        curves.draw(tmp_path)
        title = figures[0].get_suptitle().replace('\n', ' ')
        assert title == (
            'digits, mlp 64-16-16-10, circle nudges, antisymmetric correction, '
            'homeostasis 0.5'
        )

    def test_title_names_the_sizes_and_the_complex_step(self, tmp_path, figures):
        changes = {'estimator.half_step': True, 'estimator.num_points': 2}
        write(
            tmp_path,
            whole_run(),
            {
                'system': {'name': 'conv', 'channels': (8, 16), 'hidden': (32,)},
                **changes,
            },
        )
        curves.draw(tmp_path)
        title = figures[0].get_suptitle()
        assert title.startswith('digits, conv 8-16-32, complex step nudges')

    def test_without_diagnostics(self, tmp_path, figures):
        rows = [
            (epoch, split, {k: v for k, v in metrics.items() if k not in DIAGNOSTICS})
            for epoch, split, metrics in whole_run()
        ]
        write(tmp_path, rows)
        assert_png(curves.draw(tmp_path))
        assert len(texts(figures[0])) == 2
        assert all('diagnostics.every_evals' in text for text in texts(figures[0]))

    def test_without_held_out_examples(self, tmp_path, figures):
        rows = [
            (epoch, split, metrics | (DIAGNOSTICS if split == 'test' else {}))
            for epoch, split, metrics in whole_run()
            if split != 'eval'
        ]
        write(tmp_path, rows)
        assert_png(curves.draw(tmp_path))
        assert set(drawn_lines(figures[0], 'error (%)')) == {'training', 'test'}
        cosines = drawn_lines(figures[0], 'cosine to the exact one')
        np.testing.assert_array_equal(cosines['gradient'][1], 0.75)

    @pytest.mark.parametrize(
        'rows',
        [
            [],
            whole_run()[:1],
            whole_run()[1:2],
            whole_run(factor=0.0),
            whole_run(diagnostics=dict.fromkeys(DIAGNOSTICS | ERRORS, np.nan)),
            whole_run(diagnostics=dict.fromkeys(DIAGNOSTICS | ERRORS, 0.0)),
            [(1.0, 'train', dict.fromkeys(TRAIN, np.nan))],
            [(1.0, 'train', TRAIN | dict.fromkeys(('residual', 'max_residual'), 0.0))],
        ],
        ids=[
            'nothing',
            'train',
            'eval',
            'perfect',
            'no reference',
            'no error',
            'not finite',
            'settled exactly',
        ],
    )
    def test_odd_runs(self, tmp_path, rows):
        write(tmp_path, rows)
        assert_png(curves.draw(tmp_path))

    def test_many_layers(self, tmp_path):
        layers = {f'cosine/layer_{index}': 0.1 * index for index in range(9)}
        layers |= {f'error/layer_{index}': 10.0**-index for index in range(9)}
        row = {'loss': 1.0, 'error': 0.1} | DIAGNOSTICS | ERRORS | layers
        write(tmp_path, [(1.0, 'eval', row)])
        assert_png(curves.draw(tmp_path))

    def test_no_run(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=f'is {tmp_path} a run'):
            curves.draw(tmp_path)


class TestSummaryLine:
    def test_says_last_and_best(self, tmp_path):
        records.write_summary(
            tmp_path,
            {
                'last': {'test': {'error': 0.125}, 'epoch': 9.0},
                'best': {'test': {'error': 0.0625}, 'epoch': 4.5},
            },
        )
        line = curves.summary_line(tmp_path)
        assert '12.50 % after the last epoch' in line
        assert '6.25 % at epoch 4.5' in line
