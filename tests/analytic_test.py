"""The guard of analyticity: what it refuses by name, and what it lets pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import eqprop_jax as ep
from eqprop_jax.systems import _analytic as analytic

W = jnp.ones((2, 3)) / 2
NOT_ANALYTIC = {
    'sign': jnp.sign,
    'gt': lambda s: jnp.where(s > 0, s, 0),
    'max': lambda s: jnp.maximum(s, 0),
    'abs': lambda s: lax.cond(s.real[0, 0] > 0, jnp.abs, jnp.real, s),
    'conj': lambda s: lax.switch(1, (jnp.sin, jnp.cos, jnp.conj), s),
    'lt': lambda s: lax.while_loop(lambda s: s[0, 0] < 3, lambda s: s + 1, s),
    'le': lambda s: lax.while_loop(lambda s: s[0, 0] <= 3, lambda s: s + 1, s),
    'sort': lambda s: lax.while_loop(
        lambda s: s[0, 0].real < 3, lambda s: jnp.sort(s) + 1, s
    ),
    'cummax': lambda s: lax.scan(lambda c, _: (lax.cummax(c), None), s, None, 2)[0],
    'argmax': lambda s: jax.checkpoint(lambda s: s * jnp.argmax(s))(s),
    'reduce_window_max': lambda s: jax.vmap(
        lambda row: lax.reduce_window(row, -jnp.inf + 0j, lax.max, (2,), (1,), 'SAME')
    )(s),
    'ge': jax.jit(lambda s: jnp.where(s >= W[:1, :2], s, 0)),
}
FIXED = jnp.array([[True, False]])
ARE_ANALYTIC = {
    'powers': lambda s: s**3 + jnp.sqrt(s) + s**1.5 + 1 / s + 2.0**s + jnp.prod(s),
    'elementary': lambda s: jnp.exp(s) + jnp.log(s) * jnp.tanh(s) + jnp.arctan(s),
    'structure': lambda s: jnp.tile(jnp.roll(jnp.pad(s, 1)[1:-1, 1:-1].T, 1, 0), 2).T[
        :1
    ],
    'indices': lambda s: (
        s.at[:, 0].add(s[:, 1]).at[0].multiply(2) + s[:, jnp.array([1, 0])]
    ),
    'where': lambda s: jnp.where(FIXED, s, s**2) + jnp.sinc(s),
    'products': lambda s: jnp.einsum('bi,ij,bj->b', s, W @ W.T, s)[:, None] + s,
    'weights': lambda s: (
        ep.linear.dense(s, W) @ W.T + jnp.convolve(s[0], W[0, :2])[1:, None].T
    ),
    'loops': lambda s: lax.fori_loop(0, 3, lambda i, s: s * s, s) + jnp.cumsum(s, 1),
    'branches': lambda s: lax.cond(FIXED[0, 0], jnp.sin, jnp.cos, s),
    'while': lambda s: lax.while_loop(
        lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * s), (0, s)
    )[1],
    'scan': lambda s: lax.scan(lambda c, x: (c * x, None), s, jnp.stack([s, 2 + s]))[0],
    'softmax': lambda s: jax.nn.softmax(s) + jax.nn.log_softmax(s),
    'logsumexp': lambda s: s * jax.nn.logsumexp(s, axis=1, keepdims=True),
    'logistic': lambda s: jax.nn.sigmoid(s) + jax.nn.silu(s) + jax.nn.gelu(s),
    'checkpoint': jax.checkpoint(jnp.sin),
    'solve': lambda s: jnp.linalg.solve(jnp.diag(s[0]) + W[:, :2], s.T).T,
    'fourier': lambda s: jnp.fft.ifft(jnp.fft.fft(s) * W[:1, :2]),
    'printed': lambda s: (jax.debug.callback(lambda s: None, s), s**2)[1],
}


@pytest.mark.parametrize('operation', NOT_ANALYTIC)
def test_what_is_not_analytic_is_told_by_its_name(operation):
    """Also inside of branches, loops and calls; what is real passes."""
    guarded = analytic.guard(NOT_ANALYTIC[operation], 'drive')
    with pytest.raises(TypeError, match=f'drive takes "{operation}"'):
        guarded(jnp.array([[0.3 + 0.1j, 0.7]]))
    if operation != 'conj':
        guarded(jnp.array([[0.3, 0.7]]))


@pytest.mark.parametrize('name', ARE_ANALYTIC)
def test_what_is_analytic_passes(name):
    """And is: the complex step has the slope of finite differences."""
    guarded = analytic.guard(ARE_ANALYTIC[name], 'drive')
    s, move, h = jnp.array([[0.3, 0.7]]), jnp.array([[1.0, -0.5]]), 1e-5
    along = (guarded(s + h * move) - guarded(s - h * move)) / (2 * h)
    across = guarded(s + 1j * h * move) - guarded(s - 1j * h * move)
    np.testing.assert_allclose(across / (2j * h), along, atol=1e-8)


def test_an_activation_that_is_not_analytic_is_caught():
    wrong = ep.systems.Activation('soft sign', lambda z: z / (1 + jnp.abs(z)), True)
    for system in (
        ep.systems.mlp((3, 2), activation=wrong, cost='squared_error'),
        ep.systems.from_drive(
            lambda params, x, rates: rates,
            init=lambda rng, x: {},
            rest=lambda x: {'u': x},
            activation=wrong,
        ),
    ):
        params = system.init(jax.random.key(0), jnp.ones((2, 3)))
        state = system.rest(system.inject(params, jnp.ones((2, 3))))
        state = jax.tree.map(lambda u: u + 1j, state)
        with pytest.raises(TypeError, match='soft sign takes "abs"'):
            system.rates(state)
