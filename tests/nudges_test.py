"""Contours differentiate polynomials exactly, and only the upper half is kept."""

import numpy as np
import pytest

from eqprop_jax import nudges


def derivative(contour, function):
    """Σ_k Re[w_k (f(β_k) − f(0))] for a function that is real on the real axis."""
    shift = function(contour.points) - function(np.zeros(()))
    return np.sum(np.real(contour.weights * shift))


@pytest.mark.parametrize('num_points', range(1, 10))
@pytest.mark.parametrize('half_step', [False, True])
def test_circle_differentiates_polynomials_up_to_degree_n(num_points, half_step):
    """The N-point rule is exact for degree N and sees β^{N+1} as N+1 sees 1: r^N."""
    radius = 0.7
    contour = nudges.circle(radius, num_points, half_step=half_step)
    for degree in range(1, num_points + 1):
        slope = derivative(contour, lambda b, degree=degree: b**degree)
        assert slope == pytest.approx(float(degree == 1), abs=1e-12)
    alias = derivative(contour, lambda b: b ** (num_points + 1))
    assert alias == pytest.approx((-1 if half_step else 1) * radius**num_points)


def test_only_the_upper_half_plane_is_relaxed():
    for num_points in range(1, 10):
        for half_step in (False, True):
            points = nudges.circle(1.0, num_points, half_step=half_step).points
            assert (np.imag(points) >= 0).all()
            assert len(points) <= num_points // 2 + 1
    assert len(nudges.circle(1.0, 8, half_step=True).points) == 4
    assert nudges.complex_step(1e-3).points == 1e-3j


def test_real_points_stay_real():
    for contour in (
        nudges.one_sided(0.2),
        nudges.random_sign(0.2),
        nudges.symmetric(0.2),
        nudges.circle(0.2, 2),
    ):
        assert not contour.is_complex
    axis, off = nudges.circle(0.2, 4).parts()
    np.testing.assert_allclose(sorted(axis.points), [-0.2, 0.2])
    np.testing.assert_allclose(off.points, [0.2j])
    assert not axis.is_complex
    assert off.is_complex


def test_negative_one_sided_nudges_are_allowed():
    assert derivative(nudges.one_sided(-0.3), lambda b: 2 * b) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: nudges.circle(0.0, 4), 'radius has to be positive'),
        (lambda: nudges.circle(-1.0, 4), 'radius has to be positive'),
        (lambda: nudges.circle(float('nan'), 4), 'radius has to be positive'),
        (lambda: nudges.circle(1.0, 0), 'num_points has to be a positive'),
        (lambda: nudges.complex_step(0.0), 'radius has to be positive'),
        (lambda: nudges.symmetric(-0.1), 'beta has to be positive'),
        (lambda: nudges.random_sign(0.0), 'beta has to be positive'),
        (lambda: nudges.one_sided(0.0), 'not zero'),
        (lambda: nudges.one_sided(float('inf')), 'finite'),
    ],
)
def test_nudges_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
