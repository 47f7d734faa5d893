"""Theorem 1 of Scellier et al. 2018, and costs that depend on θ, by dense solves.

The response of the dynamics is the negative gradient exactly where J is symmetric on
what the error vector sees; elsewhere the two differ by what a dense solve says.
"""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import zoo
from jax.flatten_util import ravel_pytree
from oracle import estimate, off

import eqprop_jax as ep

SYMMETRIC = ['tied', 'primitive', 'energy']
ASYMMETRIC = ['free', 'loop', 'drive', 'predictive']
RNG = jax.random.key(5)


def responses(known):
    """Gradient and error vector of tangent and of recurrent backprop."""
    options = {'tol': oracle.TOL, 'max_steps': 5000}
    return (
        estimate(ep.estimators.tangent(known.system, **options), known),
        estimate(ep.estimators.recurrent_backprop(known.system, **options), known),
    )


def check_dense_solves(known, found):
    for (grads, error), adjoint in zip(found, (False, True), strict=True):
        exact = known.error(adjoint=adjoint)
        assert off(error, exact) < 1e-10
        assert off(grads, known.gradient(exact)) < 1e-10


@pytest.mark.parametrize('animal', SYMMETRIC)
def test_theorem_1_at_symmetry(animal):
    known = oracle.of(animal)
    assert off(known.J, known.J.swapaxes(1, 2)) < 1e-13
    (ep_grads, ep_error), (grads, error) = found = responses(known)
    check_dense_solves(known, found)
    assert off(ep_grads, grads) < 1e-10
    assert off(ep_error, error) < 1e-10


@pytest.mark.parametrize('animal', ASYMMETRIC)
def test_theorem_1_without_symmetry(animal):
    """δ_EP − δ_RBP = −(J − Λ)⁻¹ (J − Jᵀ) δ_RBP, to all orders in the asymmetry."""
    known = oracle.of(animal)
    (ep_grads, ep_error), (grads, error) = found = responses(known)
    check_dense_solves(known, found)
    skew = known.J - known.J.swapaxes(1, 2)
    diagonal = np.stack([np.diag(1 / slope) for slope in known.slopes])
    seen = np.einsum('bij,bj->bi', skew, error)
    difference = -np.linalg.solve(known.J - diagonal, seen[..., None])[..., 0]
    assert off(ep_error - error, difference) < 1e-9
    assert off(ep_grads - grads, -known.pull(difference)) < 1e-9
    assert off(ep_error, error) > 0.05
    assert off(ep_grads, grads) > 0.02


def test_theorem_1_of_untied_weights_at_angle_zero():
    system, params, batch = zoo.setting('free_deep')
    params = ep.alignment.rotate_feedback(system, params, RNG, 0.0)
    (ep_grads, ep_error), (grads, error) = responses(
        oracle.settle(system, params, batch)
    )
    assert off(ep_grads, grads) < 1e-10
    assert off(ep_error, error) < 1e-10


def with_bystanders(leak):
    """A tied network and two units that chase each other, fed by it or not."""

    def drive(params, injection, rates):
        hidden, output, lone = (rates[name] for name in ('hidden', 'output', 'lone'))
        return {
            'hidden': injection + output @ params['up'].T,
            'output': hidden @ params['up'],
            'lone': lone @ params['chase'] + leak * hidden @ params['listen'],
        }

    def init(rng, x):
        keys = jax.random.split(rng, 4)
        return {
            'in': 0.4 * jax.random.normal(keys[0], (zoo.INPUTS, 4), x.dtype),
            'up': 0.4 * jax.random.normal(keys[1], (4, zoo.CLASSES), x.dtype),
            'listen': 0.5 * jax.random.normal(keys[2], (4, 2), x.dtype),
            'chase': jnp.array([[0.1, 0.8], [-0.7, 0.2]]),
        }

    return ep.systems.from_drive(
        drive,
        init=init,
        inject=lambda params, x: x @ params['in'],
        rest=lambda injection: {
            name: jnp.zeros((injection.shape[0], size), injection.dtype)
            for name, size in (('hidden', 4), ('output', zoo.CLASSES), ('lone', 2))
        },
        predict=lambda params, rates: rates['output'],
        activation='tanh',
    )


@pytest.mark.parametrize('leak', [0.0, 1.0])
def test_theorem_1_asks_for_symmetry_of_the_relevant_units_only(leak):
    """Units that the cost does not depend on may be as asymmetric as they like.

    If the others feed them, their own response is not zero as it should be, and the
    gradient of their synapses is wrong; that of the others is still right.
    """
    system = with_bystanders(leak)
    batch = oracle.of('tied').batch
    known = oracle.settle(system, system.init(RNG, batch.x), batch)
    assert off(known.J, known.J.swapaxes(1, 2)) > 0.1
    (ep_grads, ep_error), (grads, error) = responses(known)
    unravel = ravel_pytree(known.params)[1]
    ep_grads, grads = unravel(ep_grads), unravel(grads)
    for name in ('in', 'up'):
        assert off(ep_grads[name], grads[name]) < 1e-9
    assert not np.any(grads['chase'])
    assert not np.any(grads['listen'])
    if leak:
        assert np.linalg.norm(ep_grads['chase']) > 1e-3
        assert np.linalg.norm(ep_grads['listen']) > 1e-3
    else:
        assert off(ep_error, error) < 1e-9
        assert not np.any(ep_grads['chase'])


@pytest.mark.parametrize('relevant', [True, False])
def test_theorem_1_depends_on_where_the_error_points(relevant):
    """J = S + [a]ₓ turns everything but a: targets for which δ ∥ a see it symmetric.

    A linear network of three units, s* = (I − J)⁻¹ x and g = s* − y, with y chosen such
    that the response is a; and any other y.
    """
    a = np.array([0.3, -0.4, 0.25])
    turn = np.array([[0, -a[2], a[1]], [a[2], 0, -a[0]], [-a[1], a[0], 0]])
    S = np.array([[0.1, 0.2, -0.1], [0.2, -0.2, 0.15], [-0.1, 0.15, 0.3]])
    J = S + turn
    x = np.array([[0.5, -0.2, 0.9], [0.1, 0.4, -0.6]])
    s = np.linalg.solve(np.eye(3) - J, x.T).T
    scale = np.array([[0.7], [-1.3]])
    y = s - scale * ((J - np.eye(3)) @ a)[None] if relevant else np.eye(3)[:2]
    system = ep.systems.from_drive(
        lambda params, injection, rates: {'u': injection + rates['u'] @ params['J'].T},
        init=lambda rng, x: {'J': jnp.asarray(J)},
        rest=lambda injection: {'u': jnp.zeros_like(injection)},
        activation='identity',
    )
    batch = ep.Batch(jnp.asarray(x), jnp.asarray(y))
    known = oracle.settle(system, {'J': jnp.asarray(J)}, batch, step_size=0.5)
    (ep_grads, ep_error), (grads, error) = responses(known)
    # C = ½ |(I − J)⁻¹ x − y|², so dC/dJ = (I − Jᵀ)⁻¹ (s − y) sᵀ, mean over the batch
    adjoint = np.linalg.solve(np.eye(3) - J.T, (s - y).T).T
    assert off(grads, np.ravel(adjoint.T @ s / len(s))) < 1e-10
    if relevant:
        assert off(ep_error, scale * a[None]) < 1e-10
        assert off(ep_grads, grads) < 1e-10
        assert off(ep_error, error) < 1e-10
    else:
        assert off(ep_grads, grads) > 0.1


def paying_for_weights(params, rates, y):
    """A readout and a weight decay inside the cost: both make ∂C/∂θ what it is."""
    gap = rates['output'] @ params['readout'] - y
    decay = 0.05 * jnp.sum(params['up'] ** 2) + 0.1 * jnp.sum(params['in'] ** 4)
    return 0.5 * jnp.sum(gap**2, axis=1) + decay


def costly():
    """The zoo's primitive under that cost."""
    plain, params, batch = zoo.setting('primitive')
    readout = jax.random.normal(RNG, (zoo.CLASSES, zoo.CLASSES))
    system = ep.systems.from_primitive(
        zoo.cubic_primitive,
        init=plain.init,
        rest=plain.rest,
        activation='tanh',
        cost=paying_for_weights,
    )
    return oracle.settle(system, {**params, 'readout': readout}, batch)


@pytest.fixture(scope='module')
def cost_of_theta():
    return costly()


def test_a_cost_that_depends_on_theta_by_differences(cost_of_theta):
    """Fourth-order central differences of the mean cost, relaxed anew each time."""
    known = cost_of_theta
    system, batch = known.system, known.batch
    solve = ep.solvers.relaxation(tol=1e-14, max_steps=2000)

    @jax.jit
    def cost(t, direction):
        moved = jax.tree.map(lambda w, d: w + t * d, known.params, direction)
        free = ep.relax(system, moved, batch.x, solve)
        return jnp.mean(system.cost(moved, free.rates, batch.y))

    exact = known.gradient(known.error(adjoint=True))
    assert np.linalg.norm(known.direct) > 0.1 * np.linalg.norm(exact)
    for name in known.params:
        direction = ep.tree.zeros_like(known.params)
        direction[name] = jax.random.normal(RNG, known.params[name].shape)
        h = 1e-3
        one = cost(h, direction) - cost(-h, direction)
        two = cost(2 * h, direction) - cost(-2 * h, direction)
        slope = np.vdot(ravel_pytree(direction)[0], exact)
        assert (8 * one - two) / (12 * h) == pytest.approx(slope, rel=1e-8)


ALL = {
    'tangent': lambda system, solve: ep.estimators.tangent(
        system, tol=oracle.TOL, max_steps=5000
    ),
    'recurrent_backprop': lambda system, solve: ep.estimators.recurrent_backprop(
        system, tol=oracle.TOL, max_steps=5000
    ),
    'bptt': lambda system, solve: ep.estimators.bptt(
        system, num_steps=2000, step_size=0.5
    ),
    'contour': lambda system, solve: ep.estimators.contour(
        system, solve, contour=ep.nudges.circle(0.01, 8)
    ),
    'contrastive': lambda system, solve: ep.estimators.contrastive(
        system, solve, contour=ep.nudges.circle(0.01, 8)
    ),
    'oscillation': lambda system, solve: ep.estimators.oscillation(
        system, radius=0.01, num_points=8, steps_per_point=500, step_size=0.5
    ),
}


@pytest.mark.parametrize('name', ALL)
def test_a_cost_that_depends_on_theta_in_every_estimator(cost_of_theta, name):
    known = cost_of_theta
    solve = ep.solvers.relaxation(tol=oracle.TOL, max_steps=2000)
    grads, _ = estimate(ALL[name](known.system, solve), known)
    exact = known.gradient(known.error(adjoint=True))
    assert off(grads, exact) < (1e-9 if name in list(ALL)[:3] else 1e-8)
    assert off(grads, exact - known.direct) > 0.1
