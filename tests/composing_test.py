"""Equilibria and costs inside of other functions that JAX differentiates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
import tiers
import zoo
from flax import nnx
from jax.flatten_util import ravel_pytree

import eqprop_jax as ep

QUICK = ('free', 'drive', 'conv_max')
TIGHT = {'tol': 1e-12, 'max_steps': 5000}
AT_HALF = {'step_size': 0.5, 'tol': 1e-10, 'max_steps': 5000}


def exactly(system, animal):
    """Returns params, x ↦ free equilibrium, relaxed and differentiated to the end."""
    solve, step = zoo.solver(animal), zoo.ZOO[animal].step_size
    return lambda params, x: ep.relax(system, params, x, solve, step_size=step, **TIGHT)


def direction(like, seed=0):
    flat, unravel = ravel_pytree(like)
    return unravel(jax.random.normal(jax.random.key(seed), flat.shape, flat.dtype))


def dense(known, adjoint):
    """Returns (1 − J Σ)⁻¹, or its transpose, [B, n, n]."""
    matrix = np.eye(known.J.shape[1]) - known.J * known.slopes[:, None, :]
    return np.linalg.inv(matrix.swapaxes(1, 2) if adjoint else matrix)


@pytest.mark.parametrize('animal', tiers.quick(zoo.KINDS, QUICK))
class TestRelax:
    def test_forward_mode_is_the_dense_solve_in_every_layer(self, animal):
        known = oracle.of(animal)
        dot = direction(known.params)

        @jax.jit
        def along(params, dot):
            settled = exactly(known.system, animal)
            return jax.jvp(lambda p: settled(p, known.batch.x), (params,), (dot,))[1]

        found = along(known.params, dot)
        push = known.P @ np.asarray(ravel_pytree(dot)[0])
        change = np.einsum('bij,bj->bi', dense(known, adjoint=False), push)
        for of, wanted in (('state', change), ('rates', known.slopes * change)):
            _, unravel = ravel_pytree(jax.tree.map(lambda a: a[0], known.free.state))
            for name, layer in jax.vmap(unravel)(jnp.asarray(wanted)).items():
                np.testing.assert_allclose(
                    getattr(found, of)[name], layer, rtol=1e-7, atol=1e-9
                )

    def test_reverse_mode_is_the_dense_solve_of_the_transpose(self, animal):
        known = oracle.of(animal)
        sent = direction(known.free.rates)

        @jax.jit
        def gradient(params):
            def scalar(params):
                rates = exactly(known.system, animal)(params, known.batch.x).rates
                return ep.tree.vdot(sent, rates)

            return jax.grad(scalar)(params)

        push = known.slopes * oracle.flat(sent)
        error = np.einsum('bij,bj->bi', dense(known, adjoint=True), push)
        wanted = ravel_pytree(known.params)[1](
            jnp.asarray(np.einsum('bnp,bn->p', known.P, error))
        )
        for name, leaf in zip(
            ep.tree.names(wanted), jax.tree.leaves(gradient(known.params)), strict=True
        ):
            np.testing.assert_allclose(
                leaf, ep.tree.get(wanted, tuple(name.split('/'))), rtol=1e-6, atol=1e-8
            )

    def test_the_gradient_in_x_is_that_of_finite_differences(self, animal):
        known = oracle.of(animal)
        sent, dot = direction(known.free.rates), direction(known.batch.x, 1)

        @jax.jit
        def scalar(x):
            rates = exactly(known.system, animal)(known.params, x).rates
            return ep.tree.vdot(sent, rates)

        found = ep.tree.vdot(jax.jit(jax.grad(scalar))(known.batch.x), dot)
        step = 1e-5
        ahead, behind = (scalar(known.batch.x + h * dot) for h in (step, -step))
        assert float(found) == pytest.approx(
            float((ahead - behind) / (2 * step)), rel=1e-5
        )


def test_derivatives_of_derivatives():
    """The Hessian of the cost at equilibrium, against differences of gradients."""
    known = oracle.of('drive')

    def cost(params):
        free = exactly(known.system, 'drive')(params, known.batch.x)
        return jnp.mean(known.system.cost(params, free.rates, known.batch.y))

    gradient = jax.jit(jax.grad(cost))
    dot, step = direction(known.params), 1e-5
    for mode in (
        lambda p, d: jax.jvp(jax.grad(cost), (p,), (d,))[1],
        lambda p, d: jax.grad(lambda q: ep.tree.vdot(jax.grad(cost)(q), d))(p),
    ):
        found = jax.jit(mode)(known.params, dot)
        ahead, behind = (
            gradient(ep.tree.add(known.params, ep.tree.scale(h, dot)))
            for h in (step, -step)
        )
        wanted = ep.tree.scale(1 / (2 * step), ep.tree.sub(ahead, behind))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7),
            found,
            wanted,
        )


def clipped():
    """u = clip(J u + x) with one unit at its bound, and the other free."""
    system, params, _ = oracle.linear()
    solve = ep.solvers.relaxation(clip=(-1.0, 0.5), tol=1e-12, order='synchronous')
    return system, params, jnp.array([[2.0, -0.1]]), solve


def test_units_at_a_bound_do_not_move():
    system, params, x, solve = clipped()
    free = ep.relax(system, params, x, solve)
    second = (x[0, 1] + params['J'][1, 0] * 0.5) / (1 - params['J'][1, 1])
    np.testing.assert_allclose(free.state['u'], [[0.5, second]], rtol=1e-9)
    np.testing.assert_array_equal(free.held['u'], [[True, False]])

    def settled(x):
        return ep.relax(system, params, x, solve, **TIGHT).state['u'][0]

    wanted = [[0, 0], [0, 1 / (1 - params['J'][1, 1])]]
    for derivative in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(derivative(settled)(x)[:, 0], wanted, atol=1e-9)


def test_the_exact_gradient_knows_which_units_are_held():
    """Of an activation that has a slope at the bound, as the identity does."""
    system, params, x, solve = clipped()
    batch = ep.Batch(x, jnp.array([[0.0, 1.0]]))
    free = ep.relax(system, params, x, solve)
    found = ep.estimators.recurrent_backprop(system, **TIGHT)(params, batch, free, None)
    assert found.error['u'][0, 0] == 0
    slope = (free.state['u'][0, 1] - 1) / (1 - params['J'][1, 1])
    np.testing.assert_allclose(found.error['u'][0, 1], -slope, rtol=1e-9)


def estimators(system, solve):
    """Returns two estimators that are exact, and one that is not."""
    contour = ep.nudges.complex_step(1e-5)
    return {
        'exact': ep.estimators.recurrent_backprop(system, **TIGHT),
        'corrected': ep.estimators.contour(
            system, solve, contour=contour, correction='adjoint'
        ),
        'plain': ep.estimators.contour(system, solve, contour=contour),
    }


class TestLoss:
    @pytest.mark.parametrize('name', ['exact', 'corrected', 'plain'])
    def test_its_gradient_is_the_estimate(self, name):
        known, solve = oracle.of('free'), zoo.solver('free')
        estimate = estimators(known.system, solve)[name]
        loss = ep.loss(known.system, solve, estimate)
        value, grads = jax.jit(jax.value_and_grad(loss))(known.params, known.batch)
        wanted = jax.jit(estimate)(known.params, known.batch, known.free, None).grads
        costs = known.system.cost(known.params, known.free.rates, known.batch.y)
        assert float(value) == pytest.approx(float(jnp.mean(costs)), rel=1e-9)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-10),
            grads,
            wanted,
        )
        (same, aux), again = jax.jit(ep.value_and_grad(known.system, solve, estimate))(
            known.params, known.batch
        )
        assert float(same) == pytest.approx(float(value), rel=1e-12)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12),
            again,
            wanted,
        )
        assert aux.scores.shape == known.batch.y.shape
        assert aux.info.num_kept == zoo.BATCH

    @pytest.mark.parametrize('name', ['exact', 'corrected'])
    def test_what_stands_in_front_learns_too(self, name):
        """A stem, the network and its targets, against finite differences."""
        known, solve = oracle.of('free'), zoo.solver('free')
        loss = ep.loss(known.system, solve, estimators(known.system, solve)[name])

        @jax.jit
        def whole(stem, params, y):
            x = jnp.tanh(known.batch.x @ stem)
            return 3.0 * loss(params, ep.Batch(x, y)) + jnp.sum(stem**2)

        args = (direction(jnp.zeros((zoo.INPUTS, zoo.INPUTS)), 3), known.params)
        args = (*args, known.batch.y)
        found = jax.jit(jax.grad(whole, argnums=(0, 1, 2)))(*args)
        for place, (gradient, arg) in enumerate(zip(found, args, strict=True)):
            dot, step = direction(arg, place), 1e-5
            ends = []
            for h in (step, -step):
                moved = list(args)
                moved[place] = ep.tree.add(arg, ep.tree.scale(h, dot))
                ends.append(whole(*moved))
            wanted = (ends[0] - ends[1]) / (2 * step)
            along = float(ep.tree.vdot(gradient, dot))
            assert along == pytest.approx(float(wanted), rel=1e-5)

    def test_examples_that_are_left_out_send_nothing_back(self):
        """One input is not finite: the gradient is that of the others' mean."""
        known, solve = oracle.of('free'), zoo.solver('free', max_steps=200)
        estimate = ep.estimators.recurrent_backprop(known.system, **TIGHT)
        loss = ep.loss(known.system, solve, estimate)
        x, y = known.batch.x.at[1].set(jnp.nan), known.batch.y
        of_x, of_params = jax.jit(
            jax.grad(lambda x, params: loss(params, ep.Batch(x, y)), argnums=(0, 1))
        )(x, known.params)
        rest = np.array([0, 2, 3])
        wanted = jax.jit(
            jax.grad(
                lambda x, params: loss(params, ep.Batch(x, y[rest])), argnums=(0, 1)
            )
        )(x[rest], known.params)
        np.testing.assert_allclose(of_x[rest], wanted[0], rtol=1e-7, atol=1e-12)
        np.testing.assert_array_equal(of_x[1], 0)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-12),
            of_params,
            wanted[1],
        )

    def test_forward_mode_is_refused(self):
        known, solve = oracle.of('free'), zoo.solver('free')
        loss = ep.loss(known.system, solve, estimators(known.system, solve)['exact'])
        with pytest.raises(TypeError, match='jvp'):
            jax.jvp(lambda p: loss(p, known.batch), (known.params,), (known.params,))

    def test_an_estimator_without_an_error_vector_has_no_gradient_in_x(self):
        known, solve = oracle.of('free'), zoo.solver('free')
        exact = estimators(known.system, solve)['exact']
        loss = ep.loss(
            known.system, solve, lambda *args: exact(*args)._replace(error=None)
        )
        jax.grad(loss)(known.params, known.batch)
        with pytest.raises(TypeError, match='has no δ'):
            jax.grad(lambda x: loss(known.params, known.batch._replace(x=x)))(
                known.batch.x
            )


def chain(make):
    """Returns (params, x, y) ↦ cost of a feed-forward and two settling blocks in turn.

    A dense layer stands between the blocks, as in ff-EBM.
    """
    first = ep.systems.mlp((zoo.INPUTS, 6, 5), feedback='free', cost='squared_error')
    second = ep.systems.loop((5, 4, zoo.CLASSES), cost='squared_error')
    solve = ep.solvers.relaxation(tol=1e-12, max_steps=1000)

    def init(x):
        return {
            'first': first.init(jax.random.key(0), x),
            'between': direction(jnp.zeros((5, 5)), 5),
            'second': second.init(jax.random.key(1), jnp.zeros((1, 5))),
        }

    lower, upper = (ep.block(s, solve, make(solve)) for s in (first, second))

    def cost(params, x, y):
        seen = jnp.tanh(lower(params['first'], x) @ params['between'])
        return jnp.mean((upper(params['second'], seen) - y) ** 2)

    return init, cost


@pytest.mark.parametrize('radius', [None, 1e-4])
def test_blocks_of_a_chain_pass_their_errors_on(radius):
    """Exact, and by nudges of a size that means the same in both blocks."""

    def make(solve):
        if radius is None:
            return lambda s: ep.estimators.recurrent_backprop(s, **TIGHT)
        nudges = ep.nudges.complex_step(radius)
        return lambda s: ep.estimators.contour(
            s, solve, contour=nudges, correction='antisymmetric'
        )

    init, cost = chain(make)
    x = jax.random.uniform(jax.random.key(2), (3, zoo.INPUTS))
    y = jnp.eye(zoo.CLASSES)
    params = init(x)
    value = jax.jit(cost)
    gradient = jax.jit(jax.grad(cost, argnums=(0, 1)))(params, x, y)
    for name in ('first', 'between', 'second'):
        dot, step = direction(params[name], 7), 1e-5
        ahead, behind = (
            value(
                params | {name: ep.tree.add(params[name], ep.tree.scale(h, dot))}, x, y
            )
            for h in (step, -step)
        )
        along = float(ep.tree.vdot(gradient[0][name], dot))
        assert along == pytest.approx(float((ahead - behind) / (2 * step)), rel=1e-4)
    dot = direction(x, 8)
    ahead, behind = (value(params, x + h * dot, y) for h in (1e-5, -1e-5))
    along = float(ep.tree.vdot(gradient[1], dot))
    assert along == pytest.approx(float((ahead - behind) / 2e-5), rel=1e-4)


def test_a_block_without_symmetry_and_correction_is_biased():
    """Or else the test above would pass whatever the blocks did."""

    def plain(solve):
        nudges = ep.nudges.complex_step(1e-4)
        return lambda s: ep.estimators.contour(s, solve, contour=nudges)

    def exact(solve):
        del solve
        return lambda s: ep.estimators.recurrent_backprop(s, **TIGHT)

    x = jax.random.uniform(jax.random.key(2), (3, zoo.INPUTS))
    found = []
    for make in (plain, exact):
        init, cost = chain(make)
        found.append(jax.jit(jax.grad(cost))(init(x), x, jnp.eye(zoo.CLASSES)))
    assert ep.tree.cosine(*(grads['first'] for grads in found)) < 0.99


@pytest.mark.parametrize('name', ['one_sided', 'symmetric', 'circle', 'complex_step'])
def test_one_program_serves_all_radii_and_tolerances(name):
    known = oracle.of('free')
    more = {'num_points': 4} if name == 'circle' else {}

    def error(radius, tol):
        nudges = getattr(ep.nudges, name)(radius, **more)
        solve = ep.solvers.relaxation(tol=tol, max_steps=500)
        estimate = ep.estimators.contour(known.system, solve, contour=nudges)
        return estimate(known.params, known.batch, known.free, None).error

    radii, tols = jnp.array([0.05, 0.3]), jnp.array([1e-9, 1e-11])
    together = jax.jit(jax.vmap(error))(radii, tols)
    for index, (radius, tol) in enumerate(zip(radii, tols, strict=True)):
        alone = error(float(radius), float(tol))
        jax.tree.map(
            lambda a, b, i=index: np.testing.assert_allclose(a[i], b, rtol=1e-6),
            together,
            alone,
        )


def test_memory_does_not_grow_with_the_sweeps():
    system, params, batch = zoo.setting('conv_free')

    def bytes_of(max_steps):
        solve = ep.solvers.relaxation(tol=1e-9, max_steps=max_steps)

        def cost(params):
            rates = ep.relax(system, params, batch.x, solve, max_steps=max_steps).rates
            return jnp.mean(system.cost(params, rates, batch.y))

        compiled = jax.jit(jax.grad(cost)).lower(params).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert bytes_of(2000) == bytes_of(20)


def test_a_trajectory_is_not_differentiated():
    system, params, batch = zoo.setting('free')
    solve = ep.solvers.unrolled(num_steps=5, keep_trajectory=True)
    free = ep.relax(system, params, batch.x, solve)
    assert free.trajectory is not None
    with pytest.raises(TypeError, match='call solvers.unrolled itself'):
        jax.grad(
            lambda p: jnp.sum(ep.relax(system, p, batch.x, solve).rates['layer_1'])
        )(params)


@pytest.mark.parametrize('mode', [jax.grad, jax.jacfwd])
def test_the_loop_itself_is_not_differentiated(mode):
    """`dynamics.relax` is what estimators start from: no silent zeros, nor less."""
    system, params, batch = zoo.setting('coding_tied')
    solve = zoo.solver('coding_tied')

    def total(params):
        return jnp.sum(
            ep.dynamics.relax(system, params, batch.x, solve).rates['value_1']
        )

    with pytest.raises(TypeError, match='relax has the derivatives'):
        mode(total)(params)


def test_inside_of_a_flax_module():
    """A stem and a head by flax nnx, a settling core between them, trained by optax."""
    core = ep.systems.mlp((6, 5, 4), feedback='free', cost='squared_error')
    solve = ep.solvers.relaxation(tol=1e-9, max_steps=200)
    settle = ep.block(core, solve)

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.stem = nnx.Linear(zoo.INPUTS, 6, rngs=rngs)
            self.core = nnx.data(
                jax.tree.map(nnx.Param, core.init(rngs.params(), jnp.zeros((1, 6))))
            )
            self.head = nnx.Linear(4, zoo.CLASSES, rngs=rngs)

        def __call__(self, x):
            params = jax.tree.map(
                lambda p: p[...], self.core, is_leaf=lambda p: isinstance(p, nnx.Param)
            )
            return self.head(settle(params, jax.nn.relu(self.stem(x))))

    model = Model(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(0.03), wrt=nnx.Param)
    x = jax.random.normal(jax.random.key(0), (12, zoo.INPUTS))
    labels = jnp.arange(12) % zoo.CLASSES

    def cost(model):
        scores = model(x)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(scores, labels))

    @nnx.jit
    def step(model, optimizer):
        value, grads = nnx.value_and_grad(cost)(model)
        optimizer.update(model, grads)
        return value

    first = float(step(model, optimizer))
    for _ in range(150):
        last = float(step(model, optimizer))
    assert last < first / 10


class TestCheck:
    def test_it_names_the_layer_and_the_remedy(self):
        known = oracle.of('free')
        plain = ep.check(known.system, known.params, known.batch)
        assert plain.settled == 1
        radius = np.max(np.abs(np.linalg.eigvals(known.J * known.slopes[:, None, :])))
        assert plain.spectral_radius == pytest.approx(radius, rel=0.05)
        error = oracle.flat(
            ep.estimators.tangent(known.system, **TIGHT)(
                known.params, known.batch, known.free, None
            ).error
        )
        np.testing.assert_allclose(error, known.error(adjoint=False), rtol=1e-6)
        first = slice(0, 6) if plain.worst_layer == 'layer_1' else slice(6, None)
        wanted, exact = (
            known.error(adjoint=adjoint)[:, first] for adjoint in (False, True)
        )
        assert plain.error == pytest.approx(oracle.off(wanted, exact), rel=0.05)
        assert 'asymmetry' in plain.advice
        assert 'correction removes it' in plain.advice
        assert plain.advice.startswith('plain EP: ')
        corrected = ep.check(
            known.system, known.params, known.batch, correction='antisymmetric'
        )
        assert corrected.error < 1e-2 < plain.error
        assert corrected.advice.startswith('corrected EP: ')
        solve = ep.solvers.relaxation()
        nudges = ep.nudges.complex_step(1e-3)
        for correction, wanted in ((None, plain), ('antisymmetric', corrected)):
            estimate = ep.estimators.contour(
                known.system, solve, contour=nudges, correction=correction
            )
            own = ep.check(known.system, known.params, known.batch, solve, estimate)
            assert own.advice.startswith('this estimator: ')
            assert own.error == pytest.approx(wanted.error, rel=1e-6)
            assert ('asymmetry' in own.advice) == ('asymmetry' in wanted.advice)
        assert corrected.cosine > 0.999

    def test_it_refuses_what_no_sweep_would_mend(self):
        known = oracle.of('free')
        x, labels = known.batch.x, jnp.arange(zoo.BATCH) % zoo.CLASSES
        for batch, part in (
            (ep.Batch(x.at[1].set(jnp.nan), labels), 'inputs hold NaN'),
            (ep.Batch(x, labels.at[2].set(zoo.CLASSES)), 'cost of example 2'),
        ):
            with pytest.raises(ValueError, match=part):
                ep.check(known.system, known.params, batch)

    @pytest.mark.whole
    def test_it_says_that_nothing_settles(self):
        known = oracle.of('energy')
        solve = ep.solvers.relaxation(max_steps=2)
        found = ep.check(known.system, known.params, known.batch, solve)
        assert found.settled < 0.5
        assert 'free phases do not settle' in found.advice
        assert 'step_size' in found.advice


class TestNothingIsSilentlyWrong:
    """Found by users: derivatives that were finite, plausible, and wrong."""

    def test_a_network_that_plain_sweeps_do_not_solve(self):
        """Predictive coding starts at its solution; its adjoint swings."""
        system = ep.systems.predictive_coding((7, 5, 4, 3))
        x = jax.random.normal(jax.random.key(0), (4, 7))
        params = system.init(jax.random.key(1), x)
        solve = ep.solvers.relaxation(tol=1e-9)
        dot = direction(params)

        def cost(settle):
            return lambda p: jnp.sum(settle(p) ** 2)

        for settle in (
            lambda p: ep.relax(system, p, x, solve).rates['value_2'],
            lambda p: ep.block(system, solve)(p, x),
        ):
            value = jax.jit(cost(settle))
            along = float(ep.tree.vdot(jax.jit(jax.grad(cost(settle)))(params), dot))
            ahead, behind = (
                value(ep.tree.add(params, ep.tree.scale(h, dot))) for h in (1e-5, -1e-5)
            )
            assert along == pytest.approx(float((ahead - behind) / 2e-5), rel=1e-3)

    def test_a_solve_that_does_not_settle(self):
        known = oracle.of('drive')
        solve = zoo.solver('drive')

        def cost(params):
            free = ep.relax(known.system, params, known.batch.x, solve, max_steps=1)
            return jnp.mean(known.system.cost(params, free.rates, known.batch.y))

        grads = jax.jit(jax.grad(cost))(known.params)
        assert all(np.isnan(leaf).any() for leaf in jax.tree.leaves(grads))

    def test_second_derivatives_of_what_an_estimator_finds(self):
        known, solve = oracle.of('free'), zoo.solver('free')
        loss = ep.loss(known.system, solve, estimators(known.system, solve)['exact'])
        block = ep.block(known.system, solve)
        for fn in (
            lambda p: loss(p, known.batch),
            lambda p: jnp.sum(block(p, known.batch.x) ** 2),
        ):
            with pytest.raises(TypeError, match='first derivatives in reverse mode'):
                jax.jvp(jax.grad(fn), (known.params,), (known.params,))

    def test_a_second_derivative_in_what_stands_behind_a_block(self):
        known, solve = oracle.of('free'), zoo.solver('free')
        block = ep.block(known.system, solve)

        def cost(params, head):
            return jnp.sum((block(params, known.batch.x) * head[None]) ** 2)

        with pytest.raises(TypeError, match='first derivatives in reverse mode'):
            jax.jacfwd(jax.grad(cost), argnums=1)(known.params, jnp.ones(5))

    def test_an_example_that_a_block_leaves_out_may_hold_anything(self):
        known, solve = oracle.of('free'), zoo.solver('free', max_steps=200)
        block = ep.block(known.system, solve)
        x, mask = known.batch.x.at[1].set(jnp.nan), jnp.arange(zoo.BATCH) != 1

        def cost(params, x, mask):
            rates = block(params, x)
            return jnp.sum(jnp.where(mask[:, None], rates, 0) ** 2)

        found = jax.jit(jax.grad(cost))(known.params, x, mask)
        rest = np.array([0, 2, 3])
        wanted = jax.jit(jax.grad(cost))(known.params, x[rest], mask[rest])
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-10),
            found,
            wanted,
        )

    def test_a_step_size_that_is_at_fault(self):
        """Nudged phases of predictive coding swing: no smaller nudge mends that."""
        system = ep.systems.predictive_coding((7, 5, 4, 3))
        x = jax.random.normal(jax.random.key(0), (4, 7))
        params = system.init(jax.random.key(1), x)
        found = ep.check(system, params, ep.Batch(x, jnp.arange(4) % 3))
        assert found.settled == 1
        assert 'nudged phases do not settle' in found.advice
        assert 'step_size' in found.advice

    def test_a_network_that_runs_away(self):
        system, params, batch = zoo.setting('energy')
        params = jax.tree.map(lambda w: 20 * w, params)
        found = ep.check(system, params, batch, ep.solvers.relaxation(max_steps=30))
        assert found.settled < 1
        assert 'free phases do not settle' in found.advice

    def test_several_radii_are_not_one(self):
        with pytest.raises(ValueError, match='one number'):
            jax.jit(lambda r: ep.nudges.circle(r, 4).points)(jnp.array([0.1, 0.2, 0.3]))

    def test_a_radius_that_is_an_array_of_one_number(self):
        np.testing.assert_array_equal(
            ep.nudges.circle(jnp.float64(0.5), 4).points,
            ep.nudges.circle(0.5, 4).points,
        )

    def test_damage_behind_a_block_is_passed_on(self):
        known, solve = oracle.of('free'), zoo.solver('free')
        block = ep.block(known.system, solve)
        grads = jax.grad(lambda p: jnp.sum(block(p, known.batch.x) * jnp.nan))(
            known.params
        )
        assert np.isnan(grads['layer_1']['kernel']).all()


class TestWhatDoesNotBelongTogether:
    def test_an_estimator_of_another_system(self):
        system, other = zoo.ZOO['free'].make(), zoo.ZOO['free'].make()
        solve = zoo.solver('free')
        for estimate in (
            ep.estimators.recurrent_backprop(other),
            ep.estimators.bptt(other),
            ep.estimators.contour(other, solve, contour=ep.nudges.symmetric(0.1)),
            ep.estimators.oscillation(other, radius=0.1, num_points=2),
        ):
            assert estimate.system is other
            for build in (ep.loss, ep.value_and_grad):
                with pytest.raises(ValueError, match='another system'):
                    build(system, solve, estimate)

    def test_an_estimator_of_ones_own_says_nothing_of_its_system(self):
        system, params, batch = zoo.setting('free')
        own = ep.estimators.recurrent_backprop(system)
        step = ep.value_and_grad(system, zoo.solver('free'), lambda *at: own(*at))
        assert step(params, batch)[0][0] > 0

    def test_a_block_refuses_at_once(self):
        system = zoo.ZOO['free_hard_sigmoid'].make()
        solve = zoo.solver('free_hard_sigmoid')
        circle = ep.nudges.circle(0.1, 4)
        with pytest.raises(ValueError, match='holomorphic'):
            ep.block(
                system,
                solve,
                lambda s: ep.estimators.contour(s, solve, contour=circle),
            )

    def test_a_block_lists_its_layers(self):
        system, params, batch = zoo.setting('free')
        run = ep.block(system, zoo.solver('free'), layer='layer_7')
        with pytest.raises(KeyError, match="'layer_7'; choose from layer_1, layer_2"):
            run(params, batch.x)


class TestIntegersInParams:
    """They have no gradient, as in JAX with allow_int, and change none."""

    def setting(self):
        base, params, batch = zoo.setting('energy')
        mask = jnp.ones_like(params['couple'], bool).at[0].set(False)
        held = params | {'couple': jnp.where(mask, params['couple'], 0)}
        own = params | {'mask': mask, 'step': jnp.int32(3)}

        def energy(params, x, state):
            couple = jnp.where(params['mask'], params['couple'], 0)
            return zoo.quartic_energy(params | {'couple': couple}, x, state)

        system = ep.systems.from_energy(
            energy, init=base.init, rest=lambda x: base.rest(x)
        )
        return (base, held), (system, own), mask, batch

    @pytest.mark.parametrize('name', ['contour', 'contrastive', 'bptt', 'implicit'])
    def test_an_estimate(self, name):
        one, other, mask, batch = self.setting()
        solve = zoo.solver('energy')
        step_size, circle = 0.5, ep.nudges.circle(0.1, 4)

        def run(system, params):
            estimate = {
                'contour': lambda: ep.estimators.contour(system, solve, contour=circle),
                'contrastive': lambda: ep.estimators.contrastive(
                    system, solve, contour=circle
                ),
                'bptt': lambda: ep.estimators.bptt(system, step_size=step_size),
                'implicit': lambda: ep.estimators.recurrent_backprop(
                    system, step_size=step_size
                ),
            }[name]()
            step = jax.jit(ep.value_and_grad(system, solve, estimate))
            cost = jax.grad(ep.loss(system, solve, estimate), allow_int=True)
            return step(params, batch)[1], cost(params, batch)

        wanted, _ = run(*one)
        for found in run(*other):
            assert found['mask'].dtype == found['step'].dtype == jax.dtypes.float0
            np.testing.assert_allclose(found['in'], wanted['in'], atol=1e-10)
            np.testing.assert_allclose(
                found['couple'], jnp.where(mask, wanted['couple'], 0), atol=1e-10
            )

    def test_what_is_behind_an_equilibrium(self):
        one, other, _, batch = self.setting()
        solve = zoo.solver('energy')

        def through(make, system):
            run = make(system)
            return jax.grad(lambda p: jnp.sum(run(p, batch.x) ** 2), allow_int=True)

        def relaxed(system):
            return lambda p, x: ep.relax(system, p, x, solve, **AT_HALF).rates['output']

        def block(system):
            return ep.block(
                system,
                solve,
                lambda s: ep.estimators.recurrent_backprop(s, **AT_HALF),
                layer='output',
            )

        for make in (relaxed, block):
            wanted = through(make, one[0])(one[1])
            found = through(make, other[0])(other[1])
            assert found['mask'].dtype == jax.dtypes.float0
            np.testing.assert_allclose(found['in'], wanted['in'], atol=1e-7)


@pytest.mark.parametrize('name', ['relax', 'loss', 'block', 'value_and_grad'])
def test_a_batch_of_no_examples(name):
    system, params, batch = zoo.setting('free')
    solve = zoo.solver('free')
    estimate = ep.estimators.recurrent_backprop(system)
    empty = ep.Batch(batch.x[:0], batch.y[:0])
    with pytest.raises(ValueError, match='at least one example'):
        {
            'relax': lambda: ep.relax(system, params, empty.x, solve),
            'loss': lambda: ep.loss(system, solve, estimate)(params, empty),
            'block': lambda: ep.block(system, solve)(params, empty.x),
            'value_and_grad': lambda: ep.value_and_grad(system, solve, estimate)(
                params, empty
            ),
        }[name]()


@pytest.mark.parametrize('make', [lambda a: a, lambda a: (a,), lambda a: [a]])
def test_a_state_without_names(make):
    system = ep.systems.from_drive(
        lambda params, x, rates: rates,
        init=lambda rng, x: {},
        rest=lambda x: make(jnp.zeros((len(x), 3))),
    )
    with pytest.raises(TypeError, match='give the state a name'):
        ep.relax(system, {}, jnp.ones((4, 2)), ep.solvers.relaxation())


def test_the_precision_of_parameters_is_kept():
    system, params, batch = zoo.setting('free', jnp.float32)
    solve = ep.solvers.relaxation()
    cost = ep.loss(system, solve, ep.estimators.recurrent_backprop(system))
    double = jax.tree.map(lambda w: w.astype(jnp.float64), params)
    for own, x in ((params, batch.x.astype(jnp.bfloat16)), (double, batch.x)):
        found, of_x = jax.grad(lambda p, x: cost(p, ep.Batch(x, batch.y)), (0, 1))(
            own, x
        )
        assert of_x.dtype == x.dtype
        jax.tree.map(lambda g, w: np.testing.assert_equal(g.dtype, w.dtype), found, own)
    with pytest.raises(TypeError, match='convert the input'):
        cost(params, batch._replace(x=batch.x.astype(jnp.float64)))
