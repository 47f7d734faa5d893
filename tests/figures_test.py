"""The figures of the analysis show their data, whatever is null in it."""

import struct

import numpy as np
import pytest
import runs

from eqprop_jax import records
from eqprop_jax.figures import bias, style
from experiments.figures import (
    convergence,
    jacobians,
    order,
    oscillation,
    processes,
    two_biases,
)

NETWORK = {'sizes': [64, 8, 6, 10], 'angle': 90.0, 'num_images': 3, 'seed': 0}
RADII = [10.0**power for power in range(-8, 1)]
CONVERGENCE = {
    'network': NETWORK,
    'radii': RADII,
    'panels': {
        'float32': {
            'errors': {
                'N = 1': [0.3 * r + 1e-8 / r for r in RADII],
                'N = 8': [None, *(1e-8 / r for r in RADII[1:])],
                'complex step': [0.2 * r**2 + 1e-7 for r in RADII],
            },
            'orders': {'N = 1': 0.98, 'N = 8': None, 'complex step': 2.0},
        },
        'float64': {
            'errors': {
                'N = 1': [0.3 * r + 1e-15 / r for r in RADII],
                'N = 8': [None] * len(RADII),
                'complex step': [0.2 * r**2 + 1e-15 for r in RADII],
            },
            'orders': {'N = 1': 1.0, 'N = 8': None, 'complex step': 2.0},
        },
    },
}
OSCILLATION = {
    'network': NETWORK,
    'radius': 0.5,
    'num_points': 4,
    'sweeps': [1, 2, 4],
    'patience': {'float64': [0.5, 0.1, 1e-12], 'float32': [0.5, 0.1, None]},
    'noise': 0.04,
    'steps_per_point': 20,
    'online': {'periods': [1, 4], 'errors': [0.5, 0.26], 'at_equilibrium': 0.01},
    'one_sided': [
        {
            'beta': 0.5,
            'periods': [0.5, 1, 4],
            'errors': [1.3, 0.9, None],
            'at_equilibrium': None,
        }
    ],
}
SYNAPSE = {'from': 1, 'to': 2, 'ep': [0.0, 0.1, 0.2], 'bptt': [0.0, 0.1, None]}
PROCESSES = {
    'network': NETWORK,
    'step_size': 0.25,
    'times': [0.0, 0.25, 0.5],
    'networks': {
        name: {
            'layers': {'layer_1': [SYNAPSE], 'layer_2': [SYNAPSE, SYNAPSE]},
            'distance': distance,
        }
        for name, distance in (('tied', [0, 1e-15, 1e-14]), ('untied', [0, 1, None]))
    },
}


def parts(*values):
    return dict(zip(('layer_1', 'layer_2', 'total'), values, strict=True))


def method(error, total=None, **changes):
    total = error if total is None else total
    return {
        'cosine': parts(0.5, -0.25, 0.75),
        'error': parts(error, total, total),
        'settling': parts(0.0, 0.0, 0.0),
        'nudge': parts(1e-6, 1e-6, 1e-6),
        'asymmetry': parts(error, error, error),
        'evaluations': 12.0,
        'sentence': 'this: too large, mend it.',
    } | changes


REPORT = {
    'methods': {
        'this run': method(0.125, 0.5, worst={'layer': 'layer_2'}),
        'a long name, corrected': method(1e-3, evaluations=13.0),
        'far': method(2e-3, 1e-3, evaluations=400.0),
        'not finite': method(None, cosine=parts(None, 0.5, None)),
        'uncounted': method(0.0, evaluations=None),
    },
    'symmetric_share': 0.625,
    'spectral_radius': None,
    'margin': 0.25,
    'unsettled': 0.125,
    'asymmetry': {
        'layer_1': {'layer_1': 0.0, 'layer_2': 0.5},
        'layer_2': {'layer_1': 0.51, 'layer_2': None},
    },
}


def lines(axis):
    """The labelled curves of a panel: {label: values}."""
    return {
        line.get_label(): np.array(line.get_data())
        for line in axis.lines
        if not line.get_label().startswith('_')
    }


def labels(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


def values(entries):
    return [np.nan if entry is None else entry for entry in entries]


def assert_png(path):
    head = path.read_bytes()[:24]
    assert head[:8] == b'\x89PNG\r\n\x1a\n'
    width, height = struct.unpack('>II', head[16:24])
    assert min(width, height) > 500


SYMMETRIC = {
    'layers': {'layer_1': 2, 'layer_2': 1},
    'jacobian': [[0.0, 0.0, 0.5], [0.0, 0.0, -0.2], [0.5, -0.2, 0.0]],
    'symmetric_share': 1.0,
    'exact': {'layer_1': [1.0, -0.5], 'layer_2': [1.0]},
    'response': {'layer_1': [1.0, None], 'layer_2': [0.9]},
    'cosine': 0.98,
}
JACOBIANS = {
    'network': NETWORK,
    'networks': {'tied': SYMMETRIC, 'untied': SYMMETRIC, 'feed-forward': SYMMETRIC},
}
TWO_BIASES = {
    'network': NETWORK,
    'radii': [0.1, 1.0],
    'errors': {
        'tied': {'N = 1': [0.1, 1.0], 'N = 4': [1e-4, None]},
        'untied': {'N = 1': [0.5, 0.6], 'N = 4, corrected': [1e-4, 1.0]},
    },
    'angles': [0.0, 90.0],
    'cosines': [[1.0, 1.0, 1.0, 1.0], [0.2, 0.5, None, 0.4]],
    'layers': {'layer_1': [0.1, 0.2, 0.3, 0.1], 'layer_2': [0.8, 0.9, 0.7, 0.8]},
    'turning': {
        'radius': 0.5,
        'durations': [25.0, 100.0],
        'errors': [
            {'turns': [0.5, 1.0], 'error': [0.8, 0.2]},
            {'turns': [0.5, 1.0], 'error': [0.7, None]},
        ],
        'units': [
            {'layer': 'layer_1', 'unit': 3, 'estimate': [1.0, 0.3], 'exact': 0.29}
        ],
    },
}


def test_jacobians(tmp_path, figures):
    records.write_data(tmp_path, 'fig1', JACOBIANS)
    assert_png(jacobians.draw(tmp_path))
    above, _, _, below, *_ = figures[0].axes
    (image,) = above.images
    np.testing.assert_array_equal(image.get_array(), SYMMETRIC['jacobian'])
    assert [tick.get_text() for tick in above.get_xticklabels()] == [
        'layer 1',
        'layer 2',
    ]
    assert 'symmetric share 1.00' in above.get_title()
    np.testing.assert_array_equal(lines(below)['layer 1'], [[1, -0.5], [1, np.nan]])
    assert below.get_title() == 'cosine 0.98'


def test_two_biases(tmp_path, figures):
    records.write_data(tmp_path, 'fig2', TWO_BIASES)
    assert_png(two_biases.draw(tmp_path))
    a, b, c, d, e, f = figures[0].axes
    assert [axis.texts[0].get_text() for axis in (a, b, c, d, e, f)] == [*'abcdef']
    np.testing.assert_array_equal(lines(a)['N = 4'], [[0.1, 1], [1e-4, np.nan]])
    (legend,) = figures[0].subfigs[0].legends
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == ['N = 1', 'N = 4, corrected']  # those of the untied network
    colours = [line.get_color() for line in (*a.lines, *b.lines)]
    assert colours == [style.RED, style.SKY, style.RED, style.BLUE]
    assert labels(c) == ['0°: all 1.00', '90°']
    colours = [line.get_color() for line in c.lines]
    assert colours == [style.angle(0), style.angle(90)]
    assert labels(d) == ['layer 1', 'layer 2']
    np.testing.assert_array_equal(lines(e)['layer 1, unit 3'][1], [1, 0.3])
    marks = lines(f)['T = 25 τ']
    np.testing.assert_array_equal(marks, [[1], [0.2]])


def test_convergence(tmp_path, figures):
    records.write_data(tmp_path, 'convergence', CONVERGENCE)
    path = convergence.draw(tmp_path, tmp_path / 'out')
    assert path == tmp_path / 'out' / 'convergence.png'
    assert_png(path)
    single, double = figures[0].axes
    assert [single.get_title(), double.get_title()] == ['float32', 'float64']
    np.testing.assert_array_equal(
        lines(single)['N = 1'],
        [RADII, CONVERGENCE['panels']['float32']['errors']['N = 1']],
    )
    assert set(lines(double)) == {'N = 1', 'N = 8', 'complex step'}
    orders = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert orders == [
        'N = 1: 0.98, 1.00',
        'N = 8: –, –',
        'complex step: 2.00, 2.00',
        'rounding: 1/r',
        'rᴺ',
    ]
    guides = [line for line in double.lines if line.get_linestyle() == '--']
    (x, y) = guides[0].get_data()
    np.testing.assert_allclose(np.diff(np.log(y)) / np.diff(np.log(x)), 1)
    assert '64-8-6-10' in figures[0].get_suptitle()


def test_convergence_of_nothing(tmp_path):
    panel = {'errors': {'N = 1': [None]}, 'orders': {'N = 1': None}}
    data = {'network': NETWORK, 'radii': [0.1], 'panels': {'float64': panel}}
    records.write_data(tmp_path, 'convergence', data)
    assert convergence.draw(tmp_path).exists()


def test_order(tmp_path, figures):
    curves = {'from the top': [0.5, 0.1, None], 'odd and even': [1.0, 0.5, 0.1]}
    data = {'sweeps': [1, 2, 3], 'curves': {'4 layers': curves}}
    records.write_data(tmp_path, 'order', data)
    assert_png(order.draw(tmp_path))
    (axis,) = figures[0].axes
    solid, dashed = axis.lines[:2]
    assert (solid.get_linestyle(), dashed.get_linestyle()) == ('-', '--')
    assert solid.get_color() == dashed.get_color()
    np.testing.assert_array_equal(dashed.get_ydata(), [1.0, 0.5, 0.1])
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == ['4 layers', 'from the top', 'odd and even']


def test_oscillation(tmp_path, figures):
    records.write_data(tmp_path, 'oscillation', OSCILLATION)
    assert_png(oscillation.draw(tmp_path))
    left, right = figures[0].axes
    assert left.get_xscale() == right.get_yscale() == 'log'
    for name, errors in OSCILLATION['patience'].items():
        np.testing.assert_array_equal(lines(left)[name], [[1, 2, 4], values(errors)])
    curves = lines(right)
    np.testing.assert_array_equal(curves['online, 4 points'], [[1, 4], [0.5, 0.26]])
    np.testing.assert_array_equal(curves['1/√periods'], [[1, 4], [0.5, 0.25]])
    assert curves['one-sided, β = 0.5'][1][:2].tolist() == [1.3, 0.9]
    assert [tick.get_text() for tick in right.get_xticklabels()] == ['0.5', '1', '4']
    assert '80 sweeps' in right.get_xlabel()


def test_processes(tmp_path, figures):
    records.write_data(tmp_path, 'processes', PROCESSES)
    assert_png(processes.draw(tmp_path))
    *panels, right = figures[0].axes
    assert [axis.get_title() for axis in panels] == ['tied', 'untied', '', '']
    assert [len(axis.lines) for axis in panels] == [3, 3, 5, 5]
    ep, bptt = panels[0].lines[:2]
    np.testing.assert_array_equal(ep.get_ydata(), [0, 0.1, 0.2])
    np.testing.assert_array_equal(bptt.get_ydata(), [0, 0.1, np.nan])
    assert labels(panels[0]) == ['EP', 'BPTT']
    assert right.get_yscale() == 'log'
    np.testing.assert_array_equal(lines(right)['tied'][1], [0, 1e-15, 1e-14])


class TestBias:
    def test_panels(self, tmp_path, figures):
        records.claim(tmp_path, runs.values())
        records.write_bias(tmp_path, REPORT)
        assert bias.draw(tmp_path) == tmp_path / 'bias.png'
        assert_png(tmp_path / 'bias.png')
        (figure,) = figures
        causes, cosines, costs, asymmetry = figure.axes
        assert [tick.get_text() for tick in causes.get_yticklabels()] == [
            f'{number}  {name}' for number, name in enumerate(REPORT['methods'], 1)
        ]
        errors = lines(causes)['error'][0]
        np.testing.assert_array_equal(errors, [0.5, 1e-3, 2e-3, np.nan, 0])
        assert [text.get_text() for text in causes.texts] == [
            'layer 2',
            *['layer 1'] * 4,
        ]
        assert causes.get_xscale() == 'symlog'
        assert causes.get_xlim()[0] < 0  # zero has a place
        assert list(lines(cosines)) == ['all layers', 'layer 1', 'layer 2']
        assert lines(cosines)['layer 2'][0].tolist() == [
            -0.25,
            -0.25,
            -0.25,
            0.5,
            -0.25,
        ]
        assert cosines.get_xlim()[0] < -0.25
        numbers = [text.get_text() for text in costs.texts]
        assert numbers == ['1', '2', '3']
        assert [text.get_text() for text in asymmetry.texts] == [
            '0',
            '0.5',
            '0.51',
            '–',
        ]
        assert figure.get_suptitle().endswith(
            'mlp 64-16-16-10, circle nudges, antisymmetric correction'
        )
        (below,) = (part.get_supxlabel() for part in figure.subfigs[1:])
        for part in ('share 0.625', 'radius not finite', '12.5 %', 'mend it.'):
            assert part in below

    @pytest.mark.parametrize(
        'only',
        [method(0.0, nudge=parts(0, 0, 0)), method(None, evaluations=None)],
        ids=['zero', 'nothing'],
    )
    def test_one_method(self, tmp_path, only):
        parts = {'layer_1': {'layer_1': None}}
        report = REPORT | {'methods': {'this run': only}, 'asymmetry': parts}
        records.write_bias(tmp_path, report)
        assert bias.draw(tmp_path).exists()

    def test_what_is_not_there_or_damaged(self, tmp_path):
        with pytest.raises(records.WorkdirError, match='has no bias.json'):
            bias.draw(tmp_path)
        (tmp_path / records.BIAS).write_text('{"methods": ')
        with pytest.raises(records.WorkdirError, match='bias.json is damaged'):
            bias.draw(tmp_path)


class TestData:
    def test_comes_back(self, tmp_path):
        data = {'name, [odd]': 'a [ 1,\n2 ]', 'rows': [[1.5, None], []], 'nan': np.nan}
        path = records.write_data(tmp_path / 'new', 'some', data)
        assert path == tmp_path / 'new' / 'some.json'
        assert '[1.5, null]' in path.read_text()
        assert records.read_data(tmp_path / 'new', 'some') == data | {'nan': None}

    def test_a_folder_that_cannot_be(self, tmp_path):
        (tmp_path / 'file').write_text('')
        with pytest.raises(records.WorkdirError, match='cannot write'):
            records.write_data(tmp_path / 'file', 'some', {})
