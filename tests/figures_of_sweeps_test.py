"""Figures of trained networks show the records of their sweeps."""

import numpy as np
import pytest
from matplotlib.text import Text

from eqprop_jax import records
from eqprop_jax.figures import style
from experiments.figures import (
    angles,
    correction,
    homeostasis,
    nudging,
    predictive_coding,
)

PATHS = ('test/error', 'eval/overall_angle', 'eval/symmetric_share')


def record(names, paths=PATHS):
    """A record with two seeds of each row; one broke off after the first epoch."""
    curve = {'epochs': [0.0, 1.0], 'values': [[0.9, 0.2], [0.7, None]]}
    row = {'seeds': [0, 1], 'last': [20.0, None], 'mean': 20.0, 'num_epochs': 1}
    row |= {'curves': dict.fromkeys(paths, curve)}
    return {'config': 'configs/some.py', 'rows': [{'name': n, **row} for n in names]}


def texts(legend):
    return [text.get_text() for text in legend.get_texts()]


def test_from_angles(tmp_path, figures):
    methods = ('recurrent backprop', 'plain true derivative')
    names = [f'{method}, {angle}°' for method in methods for angle in (0, 7.5, 90)]
    records.write_data(tmp_path, 'fig3_fmnist', record(names))
    path = angles.draw(tmp_path, tmp_path / 'out')
    assert path == tmp_path / 'out' / 'fig3.png'
    assert len(path.read_bytes()) > 10_000
    a, *panels = figures[0].axes
    b, c = panels[:2], panels[2:]  # a panel for each method
    exact, *_ = a.lines
    np.testing.assert_array_equal(exact.get_data(), [[0, 7.5, 90], [20, 20, 20]])
    methods, angles_of = (part.legends[0] for part in figures[0].subfigs)
    assert texts(methods) == ['recurrent backprop', 'plain, small nudges']
    assert texts(angles_of) == ['0°', '7.5°', '90°']
    assert [axis.get_title() for axis in b] == texts(methods)
    for axis in b:
        colours = [line.get_color() for line in axis.lines]
        assert colours == [style.angle(angle) for angle in (0, 7.5, 90)]
        assert len({line.get_marker() for line in axis.lines}) == 3
    np.testing.assert_allclose(b[0].lines[0].get_ydata(), [0.8, np.nan])
    assert not any(axis.lines for axis in c)  # was not recorded
    assert a.get_title().startswith('1 epoch, 2 seeds; ')


def test_homeostasis(tmp_path, figures):
    names = [
        f'{network}, {method}'
        for network in ('MLP', 'loop')
        for method in ('plain', 'homeostasis 1', 'corrected')
    ]
    records.write_data(tmp_path, 'fig4_fmnist', record(names))
    assert homeostasis.draw(tmp_path).name == 'fig4.png'
    error, _, share, _, cosine, _ = figures[0].axes
    assert error.get_title() == 'MLP\n1 epoch, 2 seeds\nλ = 1'
    np.testing.assert_allclose(error.lines[0].get_ydata(), [80, np.nan])
    np.testing.assert_allclose(share.lines[0].get_ydata(), [0.8, np.nan])
    colours = [line.get_color() for line in error.lines]
    assert colours == [style.BLUE, style.GREEN, style.ORANGE]
    (legend,) = figures[0].legends
    assert texts(legend) == ['corrected', 'homeostasis', 'plain']
    assert not cosine.lines

    conv = record(['conv net, plain', 'conv net, corrected'])
    records.write_data(tmp_path, 'fig4_cifar10', conv | {'config': 'configs/other.py'})
    homeostasis.draw(tmp_path)
    both = figures[1]
    assert len(both.axes) == 9
    titles = [axis.get_title().partition('\n')[0] for axis in both.axes[:3]]
    assert titles == ['MLP', 'loop', 'conv net']
    assert not any('.py' in text.get_text() for text in both.findobj(Text))


@pytest.mark.parametrize(
    ('module', 'name'), [(correction, 'correction'), (predictive_coding, 'fig5')]
)
def test_methods_on_one_network(module, name, tmp_path, figures):
    methods = ('corrected', 'recurrent backprop', 'feed-forward backprop')
    names = [f'four layers, {method}' for method in methods]
    records.write_data(tmp_path, f'{name}_fmnist', record(names))
    assert module.draw(tmp_path, tmp_path / 'out').name == f'{name}.png'
    error, cosine, share, angle = figures[0].axes
    (legend,) = figures[0].legends
    assert texts(legend) == list(reversed(methods))
    for axis in (error, share, angle):
        colours = [line.get_color() for line in axis.lines]
        assert colours == [style.GREY, style.BLACK, style.BLUE]
        assert len({line.get_marker() for line in axis.lines}) == 3
        orders = [line.get_zorder() for line in axis.lines]
        assert orders == sorted(orders, reverse=True)  # references above the others
    assert not cosine.lines
    assert angle.get_ylim() == (0, 95)


def test_nudging(tmp_path, figures):
    names = ['tied, one-sided', 'tied, random sign', 'tied, symmetric']
    names += ['from 90°, plain', 'from 90°, Kolen-Pollack']
    records.write_data(tmp_path, 'nudging_fmnist', record(names))
    assert nudging.draw(tmp_path).name == 'nudging.png'
    tied, free, *_ = figures[0].axes
    titles = [axis.get_title().partition('\n')[0] for axis in (tied, free)]
    assert titles == ['tied', 'from 90°']
    colours = [line.get_color() for line in tied.lines]
    assert colours == [style.RED, style.SKY, style.ORANGE]
    colours = [line.get_color() for line in free.lines]
    assert colours == [style.PURPLE, style.ORANGE]


@pytest.mark.parametrize(
    'module', [angles, homeostasis, correction, nudging, predictive_coding]
)
def test_no_record(tmp_path, module):
    with pytest.raises(records.WorkdirError, match=f'has no {module.RECORD}'):
        module.draw(tmp_path)
