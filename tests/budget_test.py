"""Budgets on many chips against what is written on paper."""

import itertools

import pytest

import eqprop_jax as ep
from experiments import budget

SIZE = budget.Size(inject=100, drive=1000, rule=300, params=50, units=20)
CIRCLE = budget.Schedule(free=10, nudged=5, phases=3)
CHIP = budget.Chip(rate=1e6, memory=1e9, traffic=1e4, half_rate=1.0)


def test_sizes_are_those_of_the_layers():
    system = ep.systems.mlp((784, 256, 128, 10), feedback='free')
    found = budget.size(system, (28, 28, 1), 10)
    first, second, readout = 784 * 256, 256 * 128, 128 * 10
    assert found.inject == 2 * first
    assert found.drive == 2 * 2 * second
    assert found.units == 256 + 128
    assert found.params == first + 2 * second + readout + 256 + 128 + 10


def test_a_large_network_is_sized_without_memory():
    """2 x 3 x 3 operations a channel, position and channel, as sums over the layers."""
    channels = (3, 64, 128, 256, 512, 512)
    system = ep.systems.conv(
        (224, 224, 3),
        channels[1:],
        paddings=('SAME',) * 5,
        classes=1000,
        feedback='free',
    )
    found = budget.size(system, (224, 224, 3), 1000)
    up = [
        18 * (224 >> index) ** 2 * below * above
        for index, (below, above) in enumerate(itertools.pairwise(channels))
    ]
    assert found.inject == up[0]
    # up and down; for the way down, the place in each window is found once more
    assert 2 * sum(up[1:]) <= found.drive <= 3 * sum(up[1:])


def test_a_chip_alone_does_everything():
    found = budget.step(SIZE, CIRCLE, CHIP, batch_size=8, groups=1, sharing=1)
    assert found.operations == 8 * (100 + (10 + 3 * 2 * 5) * 1000 + 300)
    assert found.compute_seconds == pytest.approx(found.operations / (1e6 * 8 / 9))
    assert found.gradient_seconds == found.error_seconds == 0
    assert found.memory == 4 * (3 * 50 + 6 * 2 * 20 * 8)


def test_what_goes_between_chips():
    found = budget.step(SIZE, CIRCLE, CHIP, batch_size=8, groups=4, sharing=2)
    assert found.operations == 2 * (100 + (10 + 2 * 2 * 5) * 1000 + 300)
    assert found.gradient_seconds == pytest.approx(2 * 3 / 4 * 4 * 50 / 1e4)
    assert found.error_seconds == pytest.approx(2 * 1 / 2 * 4 * 20 * 2 / 1e4)


def test_contours_are_shared_once_examples_run_out():
    """Eight examples for eight chips; behind them only phases are left to divide."""
    plenty = CHIP._replace(traffic=1e12, half_rate=0.0)
    for chips in (2, 4, 8):
        found = budget.best(SIZE, CIRCLE, plenty, 8, chips)
        assert (found.groups, found.sharing) == (chips, 1)
    assert budget.best(SIZE, CIRCLE, plenty, 8, 24).sharing == 3
    assert budget.turning_point(SIZE, CIRCLE, plenty, 8) == 16
    early = plenty._replace(half_rate=64.0)  # small batches waste a chip
    assert budget.turning_point(SIZE, CIRCLE, early, 8) < 16
    one = CIRCLE._replace(phases=1)
    assert budget.turning_point(SIZE, one, plenty, 8) is None


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match='8 examples cannot be divided among 9'):
        budget.step(SIZE, CIRCLE, CHIP, 8, 9, 1)
    with pytest.raises(ValueError, match='3 phases cannot be divided among 4'):
        budget.step(SIZE, CIRCLE, CHIP, 8, 1, 4)
    with pytest.raises(ValueError, match='a chip needs 2.52e.03 bytes and has 100'):
        budget.best(SIZE, CIRCLE, CHIP._replace(memory=100.0), 8, 4)
