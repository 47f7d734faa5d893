"""Errors fall with the order they should, down to what rounding and noise leave."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqprop_jax as ep
from eqprop_jax.analysis import convergence
from experiments import exhibits

RADII = [10 ** (power / 3) for power in range(-24, 1)]


@pytest.fixture(scope='module')
def network():
    """An untied network that looks at real digits, in float64."""
    digits = ep.data.load('digits').train
    batch = ep.Batch(
        x=jnp.asarray(digits.images[:6] / 16),
        y=jax.nn.one_hot(digits.labels[:6], 10, dtype=float),
    )
    system = ep.systems.mlp((64, 20, 16, 12, 10), feedback='free', angle=90.0)
    net = exhibits.settle(system, system.init(jax.random.key(0), batch.x), batch)
    assert net.free.converged.all()
    return net


@pytest.fixture(scope='module')
def exact(network):
    return network(ep.estimators.recurrent_backprop(network.system, tol=1e-14))


@pytest.fixture(scope='module')
def errors(network, exact):
    return convergence.by_radius(
        *network, reference=exact, radii=RADII, num_points=(1, 2, 4, 6)
    )


@pytest.fixture(scope='module')
def single_errors(network, exact):
    return convergence.by_radius(
        *exhibits.single(network), reference=exact, radii=RADII, num_points=(1, 2)
    )


@pytest.fixture(scope='module')
def one_sided(network):
    nudges = ep.nudges.one_sided(0.3)
    return network(ep.estimators.contour(network.system, network.solve, contour=nudges))


def distance(a, b):
    return float(ep.tree.norm(ep.tree.sub(a, b)) / ep.tree.norm(b))


@pytest.mark.whole
class TestByRadius:
    def test_orders(self, errors):
        orders = convergence.orders(errors, RADII)
        assert list(orders) == [*(f'N = {n}' for n in (1, 2, 4, 6)), 'complex step']
        for name, order in orders.items():
            wanted = 2 if name == 'complex step' else int(name.removeprefix('N = '))
            assert order == pytest.approx(wanted, abs=0.15), name

    @pytest.mark.parametrize(
        ('name', 'nudges'),
        [
            ('N = 1', ep.nudges.one_sided(RADII[21])),
            ('N = 2', ep.nudges.symmetric(RADII[21])),
            ('N = 4', ep.nudges.circle(RADII[21], 4, half_step=True)),
            ('complex step', ep.nudges.complex_step(RADII[21])),
        ],
    )
    def test_is_what_the_estimator_leaves(self, network, exact, errors, name, nudges):
        estimate = ep.estimators.contour(
            network.system, network.solve, contour=nudges, correction='antisymmetric'
        )
        wanted = distance(network(estimate), exact)
        assert errors[name][21] == pytest.approx(wanted, rel=1e-6)

    def test_real_nudges_drown_in_rounding(self, errors, single_errors):
        radii = np.array(RADII)
        for curve, below in ((errors['N = 4'], 1e-4), (single_errors['N = 2'], 1e-3)):
            small = (radii < below) & (curve < 0.3)  # lost entirely beyond
            slope, _ = np.polyfit(np.log(radii[small]), np.log(curve[small]), 1)
            assert slope == pytest.approx(-1, abs=0.4)

    def test_the_complex_step_does_not(self, errors, single_errors):
        radii = np.array(RADII)
        assert errors['complex step'][radii < 1e-7].max() < 1e-13
        assert single_errors['complex step'][radii < 1.1e-3].max() < 2e-6
        assert single_errors['N = 2'][radii < 1.1e-3].min() > 1e-5

    def test_without_correction_the_limit_is_the_response(self, network):
        limit = network(ep.estimators.tangent(network.system, tol=1e-14))
        radii = [0.01, 0.02, 0.04]
        errors = convergence.by_radius(
            *network, reference=limit, radii=radii, num_points=(2,), correction=None
        )
        slopes = convergence.slopes(errors, radii)
        np.testing.assert_allclose(slopes['N = 2'], 2, atol=0.02)


class TestOrders:
    def test_rounding_is_left_out(self):
        radii = np.array(RADII)
        errors = {
            'four': 3 * radii**4 + 1e-14 / radii,
            'hidden': 1e-3 / radii,
            'run away': np.full(radii.shape, np.nan),
        }
        orders = convergence.orders(errors, RADII)
        assert orders['four'] == pytest.approx(4, abs=0.05)
        assert np.isnan([orders['hidden'], orders['run away']]).all()


@pytest.mark.whole
class TestByPatience:
    def test_the_online_estimate_tends_to_that_at_equilibrium(self, network):
        settled = network(
            ep.estimators.contour(
                network.system, network.solve, contour=ep.nudges.circle(0.2, 4)
            )
        )
        errors = convergence.by_patience(
            *network[:4],
            reference=settled,
            steps_per_point=[1, 5, 10, 60],
            radius=0.2,
            num_points=4,
        )
        assert errors[0] > 0.1
        assert np.all(errors[1:] < errors[:-1] / 5)
        assert errors[-1] < 1e-11


@pytest.mark.whole
class TestByPairs:
    def pairs(self, network, reference, **options):
        return convergence.by_pairs(
            *network[:4],
            reference=reference,
            beta=0.3,
            rng=jax.random.key(5),
            **options,
        )

    def test_without_noise_it_is_one_sided_nudging(self, network, exact, one_sided):
        errors = self.pairs(network, exact, noise=0.0, num_pairs=3, steps_per_phase=100)
        np.testing.assert_allclose(errors, distance(one_sided, exact), rtol=1e-9)

    def test_noise_averages_out(self, network, one_sided):
        options = {'num_pairs': 256, 'steps_per_phase': 12}
        errors = self.pairs(network, one_sided, noise=1e-3, **options)
        for count in (4, 16, 64, 256):
            assert errors[count - 1] == pytest.approx(
                errors[0] / np.sqrt(count), rel=0.35
            )
        less = self.pairs(network, one_sided, noise=1e-4, **options)
        assert less[0] == pytest.approx(errors[0] / 10, rel=0.02)


@pytest.mark.whole
def test_a_nudge_that_turns_slowly_gives_the_response_after_whole_turns(network):
    """In continuous time; the error falls with the duration of a turn, as 1/T²."""
    response = network(ep.estimators.tangent(network.system, tol=1e-14))
    data = exhibits.turning(network, radius=0.1, durations=(50.0, 200.0), num_turns=2)
    quick, slow = data['errors']
    assert quick['turns'][-1] == slow['turns'][-1] == 2
    assert slow['error'][-1] < 3e-3
    assert slow['error'][-1] == pytest.approx(quick['error'][-1] / 16, rel=0.5)
    assert max(slow['error']) > 0.5  # on the way
    for unit in data['units']:
        assert unit['exact'] == pytest.approx(
            float(response[unit['layer']][0, unit['unit']]), rel=1e-5
        )
        assert unit['estimate'][-1] == pytest.approx(unit['exact'], rel=0.02)
