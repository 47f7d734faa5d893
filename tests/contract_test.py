"""What says `converged` is right to its tolerance in every layer, against dense solves.

    |δ_l − δ_l*| <= 10 tol |δ_l*|        of every example and layer

δ* by `numpy.linalg.solve` in float64 at the free equilibrium that was found, however
well that is settled.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import zoo
from jax.flatten_util import ravel_pytree
from tiers import quick

import eqprop_jax as ep

TOLERANCES = (1e-1, 1e-2, 1e-3)
SCALES = (
    1.0,
    1 / 2,
    1 / 4,
    1 / 8,
)  # of all weights: credit shrinks from layer to layer


def conv(**options):
    return lambda: ep.systems.conv(
        (8, 8, 2),
        (3, 4, 4, 3),
        kernels=(3, 3, 2, 2),
        pooling=('softmax', 'softmax', None, None),
        classes=3,
        **options,
    )


DEEP = {
    'conv of four': zoo.Animal(
        conv(feedback='free', angle=90.0), symmetric=False, inputs=(8, 8, 2)
    ),
    'tied conv of four': zoo.Animal(conv(), symmetric=True, inputs=(8, 8, 2)),
    'mlp of eight': zoo.Animal(
        lambda: ep.systems.mlp((7, *[6] * 8, 3), feedback='free', angle=60.0),
        symmetric=False,
    ),
    'coding of four': zoo.Animal(
        lambda: zoo._damped(ep.systems.predictive_coding((7, 5, 5, 4, 4, 3))),
        symmetric=True,
        step_size=0.5,
        contraction=False,
    ),
    'loop of four': zoo.Animal(
        lambda: ep.systems.loop((7, 6, 5, 5, 4, 3)), symmetric=False
    ),
}
ANIMALS = zoo.ZOO | DEEP

relaxation, anderson = ep.solvers.relaxation, ep.solvers.anderson
aitken = ep.solvers.aitken
recurrent_backprop = ep.estimators.recurrent_backprop


def contour(nudge, solver=relaxation, correction=None, **fixed):
    def make(system, tol, step_size):
        options = {'tol': tol, 'step_size': step_size, 'max_steps': 1000, **fixed}
        return ep.estimators.contour(
            system, solver(**options), contour=nudge, correction=correction
        )

    return make


def linear(make, **options):
    return lambda system, tol, step_size: make(
        system, tol=tol, step_size=step_size, max_steps=1000, **options
    )


COMPLEX_STEP = ep.nudges.complex_step(1e-6)
METHODS = {  # how to make it, whether it finds the adjoint's δ, whether it is complex
    'recurrent backprop': (linear(recurrent_backprop), True, False),
    'by Aitken': (linear(recurrent_backprop, method='aitken'), True, False),
    'by mixing': (linear(recurrent_backprop, method='anderson'), True, False),
    'by Krylov': (linear(recurrent_backprop, method='krylov'), True, False),
    'by Neumann': (linear(recurrent_backprop, method='neumann'), True, False),
    'tangent': (linear(ep.estimators.tangent), False, False),
    'symmetric': (contour(ep.nudges.symmetric(1e-3)), False, False),
    'symmetric, mixed': (contour(ep.nudges.symmetric(1e-4), anderson), False, False),
    'one-sided': (contour(ep.nudges.one_sided(1e-6)), False, False),
    'circle': (contour(ep.nudges.circle(1e-3, 4)), False, True),
    'corrected': (contour(COMPLEX_STEP, correction='antisymmetric'), True, True),
    'adjoint': (contour(COMPLEX_STEP, correction='adjoint'), True, True),
    'adjoint, by Aitken': (contour(COMPLEX_STEP, aitken, 'adjoint'), True, True),
    'symmetric, by Aitken': (contour(ep.nudges.symmetric(1e-4), aitken), False, False),
    'all at once': (
        contour(COMPLEX_STEP, correction='adjoint', order='synchronous', step_size=0.5),
        True,
        True,
    ),
}
OF_ALL = ('recurrent backprop', 'symmetric', 'adjoint')  # of the systems of the zoo
ALL = [(name, method) for name in zoo.ZOO for method in OF_ALL]
IN_TURNS = [  # systems of all kinds by one of them, without a complex nudge of a kink
    (name, OF_ALL[index % 3 if zoo.ZOO[name].make().holomorphic else 0])
    for index, name in enumerate(zoo.KINDS)
]


@functools.cache
def scaled(name, scale, free_tol=1e-13):
    """Returns system, params with weights scaled, batch, free point and exact δ."""
    animal = ANIMALS[name]
    system = animal.make()
    zoo_setting = zoo.setting(name) if name in zoo.ZOO else None
    if zoo_setting is None:
        x = jax.random.uniform(jax.random.key(7), (zoo.BATCH, *animal.inputs))
        batch = ep.Batch(x, jnp.eye(zoo.CLASSES)[jnp.arange(zoo.BATCH) % 3])
        params = system.init(jax.random.key(8), x)
    else:
        system, params, batch = zoo_setting
    params = jax.tree.map(lambda w: scale * w, params)
    solve = relaxation(step_size=animal.step_size, tol=free_tol, max_steps=5000)
    free = jax.jit(lambda p, x: ep.relax(system, p, x, solve))(params, batch.x)
    assert free.converged.all()
    found = oracle.at(system, params, batch, free, of_params=False)
    unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], free.rates))[1]

    def exact(adjoint):
        J = found.J.swapaxes(1, 2) if adjoint else found.J
        matrix = np.eye(J.shape[-1]) - J * found.slopes[:, None, :]
        v = -np.linalg.solve(matrix, found.g[..., None])[..., 0]
        return jax.vmap(unravel)(jnp.asarray(found.slopes * v))

    return system, params, batch, free, (exact(False), exact(True))


def worst(error, exact):
    """Returns max_l |δ_l − δ_l*| / |δ_l*| of every example; 0/0 counts as 0."""
    ratios = []
    for name, wanted in exact.items():
        gap, size = (
            np.linalg.norm(
                np.asarray(part, np.float64).reshape(len(wanted), -1), axis=1
            )
            for part in (error[name] - wanted, wanted)
        )
        with np.errstate(divide='ignore', invalid='ignore'):
            ratios.append(np.where(gap > 1e-300, gap / size, 0))
    return np.max(ratios, axis=0)


def check(name, method, tol, scales):
    """Asserts the contract; returns which fraction of the examples it was about."""
    make, adjoint, is_complex = METHODS[method]
    system = scaled(name, 1.0)[0]
    if is_complex and not system.holomorphic:
        pytest.skip('not holomorphic')
    if method == 'by Neumann' and not ANIMALS[name].contraction:
        pytest.skip('the series diverges')
    estimate = jax.jit(make(system, tol, ANIMALS[name].step_size))
    settled = []
    for scale in scales:
        _, params, batch, free, exact = scaled(name, scale)
        found = estimate(params, batch, free, None)
        wanted = exact[adjoint]
        if not adjoint:
            wanted = ep.dynamics.signed(system, wanted)
        converged = np.all(found.info.residual <= tol, axis=0)
        off = np.where(converged, worst(found.error, wanted), 0)
        assert off.max() <= 10 * tol, (name, method, tol, scale, off)
        settled.append(converged.mean())
    return np.array(settled)


@pytest.mark.parametrize('tol', quick(TOLERANCES, [1e-2]))
@pytest.mark.parametrize('method', OF_ALL)
@pytest.mark.parametrize('name', quick(DEEP, ['conv of four', 'mlp of eight']))
def test_of_deep_systems(name, method, tol):
    settled = check(name, method, tol, SCALES)
    if method == 'symmetric':  # of small weights it is lost in rounding, layers down
        settled = settled[:3]
    assert (settled == 1).all()


@pytest.mark.parametrize('method', [name for name in METHODS if name not in OF_ALL])
@pytest.mark.parametrize(
    'name', quick(['mlp of eight', 'coding of four'], ['mlp of eight'])
)
def test_of_every_method(name, method):
    assert (check(name, method, 1e-2, (1 / 2,)) == 1).all()


@pytest.mark.parametrize(('name', 'method'), quick(ALL, IN_TURNS))
def test_of_every_system(name, method):
    smooth = zoo.ZOO[name].make().holomorphic  # a kink is nothing that a nudge resolves
    scales = (1.0, 1 / 8) if smooth else (1.0,)
    assert (check(name, method, 1e-2, scales) == 1).all()


def in_single_precision(name, estimate):
    """Returns error, `converged` and steps in float32, and the exact δ of float64."""
    system, params, batch, free, exact = scaled(name, 1 / 2)
    single = functools.partial(
        jax.tree.map,
        lambda a: a.astype(jnp.float32) if a.dtype == jnp.float64 else a,
    )
    found = jax.jit(estimate(system))(*map(single, (params, batch, free)), None)
    return found, exact


@pytest.mark.parametrize('radius', [1e-1, 1e-2, 1e-3])
@pytest.mark.parametrize(
    'name', quick(['mlp of eight', 'tied conv of four'], ['mlp of eight'])
)
def test_rounding_is_told(name, radius):
    """Real nudges in float32: nothing that is lost in rounding says `converged`.

    The nudge's own error is that of O(β²), below a tenth of 10 tol. Phases that cannot
    settle end at the floor of rounding, and not after `max_steps`.
    """
    tol, max_steps = 1e-2, 400
    solve = relaxation(tol=tol, max_steps=max_steps)
    found, exact = in_single_precision(
        name,
        lambda s: ep.estimators.contour(s, solve, contour=ep.nudges.symmetric(radius)),
    )
    converged = np.all(found.info.residual <= tol, axis=0)
    off = worst(found.error, exact[False])
    assert np.where(converged, off, 0).max() <= 10 * tol
    assert found.info.num_steps.max() < max_steps
    if radius == 1e-3:
        assert not converged.any()
        assert off.max() > 10 * tol  # there is something to be told


def test_a_complex_step_has_no_floor():
    """Its response stands alone in the imaginary part, rounded relative to itself."""
    solve = relaxation(tol=1e-4, max_steps=400)
    found, exact = in_single_precision(
        'mlp of eight',
        lambda s: ep.estimators.contour(
            s, solve, contour=COMPLEX_STEP, correction='adjoint'
        ),
    )
    assert (found.info.residual <= 1e-4).all()
    assert worst(found.error, exact[True]).max() <= 1e-3


@pytest.mark.parametrize(
    'correction', quick([None, 'antisymmetric', 'adjoint'], ['adjoint'])
)
def test_what_the_free_phase_left_is_no_response(correction):
    """δ at a free phase stopped at 10 %, by one nudge of 1e-6, is still exact.

    Without the anchor what is left, divided by β, would be all there is.
    """
    system, params, batch, free, exact = scaled('mlp of eight', 1.0, free_tol=0.1)
    field = ep.dynamics.free_field(system, params, system.inject(params, batch.x))
    assert ep.tree.norm(field(free.state)) > 1e-3
    estimate = ep.estimators.contour(
        system,
        relaxation(tol=1e-3, max_steps=500),
        contour=ep.nudges.one_sided(1e-6),
        correction=correction,
    )
    found = jax.jit(estimate)(params, batch, free, None)
    assert found.info.converged == 1
    assert worst(found.error, exact[correction is not None]).max() <= 1e-2


@pytest.mark.parametrize('depth', [4, 8])
def test_one_sweep_reaches_every_layer(depth):
    """Under weak feedback two sweeps do, where odd and even layers take L/2 more."""
    system = ep.systems.mlp((7, *[6] * depth, 3), feedback='free', angle=90.0)
    x = jax.random.uniform(jax.random.key(7), (4, 7))
    batch = ep.Batch(x, jnp.eye(3)[jnp.arange(4) % 3])
    params = jax.tree.map(lambda w: w / 4, system.init(jax.random.key(8), x))
    free = ep.relax(system, params, x, relaxation(tol=1e-13))
    found = oracle.at(system, params, batch, free, of_params=False)
    exact = found.error(adjoint=True)
    estimate = recurrent_backprop(system, tol=1e-15, max_steps=2)
    unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], free.rates))[1]
    wanted = jax.vmap(unravel)(jnp.asarray(exact))
    assert worst(estimate(params, batch, free, None).error, wanted).max() < 1e-2


def test_a_layer_that_is_not_reached_rightly_does_not_move():
    """Weights of zero pass nothing on; to be lost in rounding is another thing."""
    system, params, batch, _, _ = scaled('mlp of eight', 1.0)
    params = params | {'layer_3': params['layer_3'] | {'feedback': jnp.zeros((6, 6))}}
    free = ep.relax(system, params, batch.x, relaxation(tol=1e-12, max_steps=2000))
    solve = relaxation(tol=1e-2, max_steps=500)
    estimate = ep.estimators.contour(
        system, solve, contour=ep.nudges.symmetric(1e-4), correction=None
    )
    found = jax.jit(estimate)(params, batch, free, None)
    assert found.info.converged == 1
    assert not found.error['layer_1'].any()
    assert found.error['layer_4'].any()
