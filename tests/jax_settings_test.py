"""How a user has set JAX up changes no result: no `jit`, no promotion, a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import eqprop_jax as ep

SOLVERS = {
    'relaxation': ep.solvers.relaxation(max_steps=3),
    'aitken': ep.solvers.aitken(max_steps=3),
    'anderson': ep.solvers.anderson(max_steps=3),
    'unrolled': ep.solvers.unrolled(num_steps=3),
}


def assert_close(found, wanted):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11),
        found,
        wanted,
    )


class TestWithoutJit:
    @pytest.mark.parametrize('animal', ['free', 'conv_free'])
    def test_the_drive_is_the_same(self, animal):
        system, params, batch = zoo.setting(animal)
        injection = system.inject(params, batch.x)
        rates = system.rates(system.rest(injection))
        wanted = system.drive(params, injection, rates)
        with jax.disable_jit():
            assert_close(
                system.drive(params, system.inject(params, batch.x), rates), wanted
            )

    @pytest.mark.whole
    @pytest.mark.parametrize('name', SOLVERS)
    def test_a_step_is_the_same(self, name):
        system, params, batch = zoo.setting('free')
        solve = SOLVERS[name]
        estimate = ep.estimators.recurrent_backprop(system, max_steps=3)
        step = ep.value_and_grad(system, solve, estimate)
        wanted = jax.jit(step)(params, batch)
        with jax.disable_jit():
            found = step(params, batch)
        assert_close((found[0][0], found[1]), (wanted[0][0], wanted[1]))


@pytest.mark.whole
@pytest.mark.parametrize('animal', ['free', 'energy'])
def test_types_that_are_not_promoted(animal):
    system, params, batch = zoo.setting(animal, jnp.float32)
    solve = ep.solvers.relaxation(step_size=0.5)
    estimate = ep.estimators.contour(
        system, solve, contour=ep.nudges.circle(0.5, 4), correction='antisymmetric'
    )
    step = ep.value_and_grad(system, solve, estimate)
    run = ep.block(system, solve)

    def through(params):
        return jnp.sum(run(params, batch.x) ** 2)

    wanted = step(params, batch)[1], jax.grad(through)(params)
    with jax.numpy_dtype_promotion('strict'):
        assert_close((step(params, batch)[1], jax.grad(through)(params)), wanted)
        assert 0 <= ep.check(system, params, batch, solve).settled <= 1


def divided(values, axes):
    mesh = jax.make_mesh(
        (2,), ('data',), (AxisType.Explicit,), devices=jax.devices()[:2]
    )
    return mesh, jax.device_put(values, NamedSharding(mesh, PartitionSpec(*axes)))


@pytest.mark.whole
class TestExplicitAxes:
    @pytest.mark.parametrize('jitted', [True, False])
    @pytest.mark.parametrize('name', ['relaxation', 'anderson'])
    def test_a_free_phase_is_that_of_one_device(self, name, jitted):
        system, params, batch = zoo.setting('free')
        solve = SOLVERS[name]
        wanted = ep.relax(system, params, batch.x, solve)
        mesh, x = divided(batch.x, ('data',))

        def relax(params, x):
            return ep.relax(system, params, x, solve)

        with jax.set_mesh(mesh):
            found = (jax.jit(relax) if jitted else relax)(params, x)
        assert found.residual.sharding.spec == PartitionSpec('data')
        assert_close(found.state, wanted.state)

    @pytest.mark.parametrize('name', ['contour', 'recurrent_backprop'])
    def test_gradients_are_those_of_one_device(self, name):
        system, params, batch = zoo.setting('free')
        solve = ep.solvers.relaxation()
        estimate = {
            'contour': ep.estimators.contour(
                system,
                solve,
                contour=ep.nudges.circle(0.5, 4),
                correction='antisymmetric',
                batched=True,
            ),
            'recurrent_backprop': ep.estimators.recurrent_backprop(system),
        }[name]
        mesh, divided_batch = divided(batch, ('data',))
        params = divided(params, ())[1]
        step = ep.value_and_grad(system, solve, estimate)
        cost = jax.grad(ep.loss(system, solve, estimate))
        free = ep.relax(system, params, batch.x, solve)
        (wanted, aux), grads = step(jax.device_get(params), batch)
        with jax.set_mesh(mesh):
            free = ep.relax(system, params, divided_batch.x, solve)
            alone = estimate(params, divided_batch, free, None)
            (value, found), same = step(params, divided_batch, rng=None)
            assert_close((value, found.error, same), (wanted, aux.error, grads))
            assert_close((alone.error, alone.grads), (aux.error, grads))
            assert_close(cost(params, divided_batch), grads)

    def test_a_block_passes_on_what_it_does_on_one_device(self):
        system, params, batch = zoo.setting('free')
        run = ep.block(system, ep.solvers.relaxation())

        def total(params, x):
            return jnp.sum(run(params, x) ** 2)

        wanted = jax.grad(total, (0, 1))(params, batch.x)
        mesh, x = divided(batch.x, ('data',))
        with jax.set_mesh(mesh):
            assert_close(jax.grad(total, (0, 1))(params, x), wanted)
