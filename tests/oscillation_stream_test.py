"""The online estimator sweep by sweep, against a loop in numpy; streams and noise."""

import jax
import numpy as np
import oracle
import pytest
import zoo
from oracle import estimate, flat, off

import eqprop_jax as ep

RNG = jax.random.key(8)


def sigma(z):
    return 1 / (1 + np.exp(-(4 * z - 2)))


class Numpy:
    """An untied chain with a softmax readout, and its nudged sweeps, in plain numpy."""

    def __init__(self, params, batch):
        layers = [params[name] for name in ('layer_1', 'layer_2')]
        self.W1, self.W2 = (np.asarray(layer['kernel']) for layer in layers)
        self.b1, self.b2 = (np.asarray(layer['bias']) for layer in layers)
        self.B = np.asarray(layers[0]['feedback'])
        self.V, self.c = (np.asarray(params['readout'][k]) for k in ('kernel', 'bias'))
        self.x, self.y = np.asarray(batch.x), np.asarray(batch.y)
        self.center = None

    def drives(self, s1, s2):
        """D of both layers, or D(s*) + Jᵀ(s − s*) once `center` is set."""
        into1 = self.x @ self.W1 + self.b1
        if self.center is None:
            return into1 + s2 @ self.B, s1 @ self.W2 + self.b2
        c1, c2 = self.center
        return (
            into1 + c2 @ self.B + (s2 - c2) @ self.W2.T,
            c1 @ self.W2 + self.b2 + (s1 - c1) @ self.B.T,
        )

    def sweep(self, u, beta, step_size):
        u1, u2 = u
        drive, _ = self.drives(sigma(u1), sigma(u2))
        u1 = u1 + step_size * (drive - u1)
        s2 = sigma(u2)
        _, drive = self.drives(sigma(u1), s2)
        u2 = u2 + step_size * (drive - beta * self.cost_gradient(s2) - u2)
        return u1, u2

    def cost_gradient(self, s2):
        z = np.exp(s2 @ self.V + self.c)
        return (z / z.sum(axis=1, keepdims=True) - self.y) @ self.V.T

    def turns(self, u, radius, num_points, steps, burn_in, periods, step_size):
        """The end, and the means of Re s and of Re s/β over the last turns."""
        points = radius * np.exp(2j * np.pi * np.arange(num_points) / num_points)
        rates, responses = [], []
        for turn in range(burn_in + periods):
            for beta in points:
                for _ in range(steps):
                    u = self.sweep(u, beta, step_size)
                s = [sigma(part) for part in u]
                if turn >= burn_in:
                    rates.append([part.real for part in s])
                    responses.append([(part / beta).real for part in s])
        means = (
            [np.mean(np.array(parts), axis=0) for parts in zip(*visits, strict=True)]
            for visits in (rates, responses)
        )
        return (u, *means)


def both(layers):
    return np.concatenate(layers, axis=1)


def complex_state(tree):
    return [np.asarray(tree[name]) + 0j for name in ('layer_1', 'layer_2')]


SHORT = {'radius': 0.4, 'steps_per_point': 3}


@pytest.mark.parametrize(
    ('num_points', 'burn_in', 'periods', 'step_size', 'correction'),
    [
        (2, 1, 1, 1.0, None),
        (4, 0, 2, 1.0, None),
        (5, 2, 3, 0.5, None),
        (2, 1, 1, 1.0, 'antisymmetric'),
        (5, 2, 3, 0.5, 'antisymmetric'),
    ],
)
def test_every_sweep_is_that_of_a_loop_in_numpy(
    num_points, burn_in, periods, step_size, correction
):
    """Far from settled: order of points and blocks, what is averaged, all to rounding.

    Two inputs in a row; the second starts where the first ended.
    """
    system, params, batch = zoo.setting('free')
    online = ep.estimators.oscillation(
        system,
        num_points=num_points,
        burn_in=burn_in,
        periods=periods,
        step_size=step_size,
        correction=correction,
        **SHORT,
    )
    run = jax.jit(online.run)
    stream = online.start(params, batch.x)
    u = complex_state(stream.state)
    np.testing.assert_array_equal(both(u), 0)
    center = [sigma(part.real) for part in u]
    for inputs in (batch, ep.Batch(batch.x[::-1], batch.y)):
        plain = Numpy(params, inputs)
        options = (SHORT['radius'], num_points, SHORT['steps_per_point'])
        if correction:
            if burn_in:
                u, center, _ = plain.turns(u, *options, burn_in - 1, 1, step_size)
            plain.center = center
        u, free, error = plain.turns(u, *options, burn_in, periods, step_size)
        center = free
        found, stream = run(params, inputs, stream, None)
        assert off(flat(stream.state), both(u)) < 1e-12
        assert off(flat(stream.free), both(free)) < 1e-12
        assert off(flat(found.error), both(error)) < 1e-12
        turns = periods + burn_in * (2 if correction else 1)
        assert found.info.num_steps.tolist() == (
            [[turns * SHORT['steps_per_point']] * zoo.BATCH] * num_points
        )
        # a dense synapse learns by post-synaptic error times pre-synaptic rate
        kernel = -free[0].T @ error[1] / zoo.BATCH
        assert off(found.grads['layer_2']['kernel'], kernel) < 1e-12
        feedback = -free[1].T @ error[0] / zoo.BATCH
        assert off(found.grads['layer_1']['feedback'], feedback) < 1e-12


def test_residuals_are_those_of_the_last_turn():
    """What is left after each visit, of what it moved, as s/β reads both; the worst."""
    system, params, batch = zoo.setting('free')
    online = ep.estimators.oscillation(system, num_points=4, tol=1e-2, **SHORT)
    found, _ = jax.jit(online.run)(params, batch, online.start(params, batch.x), None)
    plain = Numpy(params, batch)
    u, rows = complex_state(system.rest(system.inject(params, batch.x))), []
    for visit, beta in enumerate(SHORT['radius'] * np.array([1, 1j, -1, -1j] * 2)):
        begin = both(u)
        for _ in range(SHORT['steps_per_point']):
            u = plain.sweep(u, beta, 1.0)
        if visit < 4:  # the burn-in
            continue
        s = [sigma(part) for part in u]
        first, second = plain.drives(*s)
        drive = both([first, second - beta * plain.cost_gradient(s[1])])
        left, moved = (
            (part / beta).real for part in (drive - both(u), both(u) - begin)
        )
        cut = u[0].shape[1]
        rows.append(
            np.max(
                [
                    np.linalg.norm(left[:, span], axis=1)
                    / np.linalg.norm(moved[:, span], axis=1)
                    for span in (slice(cut), slice(cut, None))
                ],
                axis=0,
            )
        )
    np.testing.assert_allclose(found.info.residual, rows, rtol=1e-9)
    settled = np.all(np.array(rows) <= 1e-2, axis=0)
    assert found.info.converged == settled.mean()


def online(system, **options):
    return ep.estimators.oscillation(
        system, **{'radius': 0.3, 'num_points': 4, **options}
    )


def test_a_corrected_stream_needs_a_burn_in():
    """Without, the correction would refer to the input before."""
    known = oracle.of('free')
    options = {'burn_in': 0, 'correction': 'antisymmetric'}
    estimate = online(known.system, **options)
    stream = estimate.start(known.params, known.batch.x)
    with pytest.raises(ValueError, match='burn_in to 1 or more'):
        estimate.run(known.params, known.batch, stream, None)
    with pytest.raises(ValueError, match='burn_in to 1 or more'):
        online(known.system, from_rest=True, **options)


@pytest.mark.parametrize('num_points', [2, 4])
@pytest.mark.parametrize('correction', [None])
def test_two_runs_of_a_stream_average_to_one(num_points, correction):
    """Twice two turns are four turns."""
    known = oracle.of('free')
    short, long = (
        online(
            known.system,
            num_points=num_points,
            steps_per_point=2,
            burn_in=0,
            periods=periods,
            correction=correction,
        )
        for periods in (2, 4)
    )
    run = jax.jit(short.run)
    start = short.start(known.params, known.batch.x, known.free.state)
    first, middle = run(known.params, known.batch, start, None)
    if correction:
        middle = middle._replace(free=start.free)
    second, end = run(known.params, known.batch, middle, None)
    whole, last = jax.jit(long.run)(known.params, known.batch, start, None)
    mean = (flat(first.error) + flat(second.error)) / 2
    assert off(first.error['layer_1'], second.error['layer_1']) > 1e-6
    assert off(mean, flat(whole.error)) < 1e-12
    assert off(flat(end.state), flat(last.state)) < 1e-12
    if not correction:
        free = (flat(middle.free) + flat(end.free)) / 2
        assert off(free, flat(last.free)) < 1e-12


@pytest.mark.whole
@pytest.mark.parametrize('num_points', [2, 4])
def test_noise_averages_out_over_turns(num_points):
    """Its spread falls like 1/√periods, and its mean is the estimate without it."""
    known = oracle.of('free')
    still = estimate(
        online(known.system, num_points=num_points, steps_per_point=12), known
    )[1]
    spreads = []
    for periods in (1, 4, 16):
        noisy = online(
            known.system,
            num_points=num_points,
            steps_per_point=12,
            periods=periods,
            noise=1e-3,
        )
        draw = jax.jit(jax.vmap(noisy, (None, None, None, 0)))
        keys = jax.random.split(RNG, 64)
        found = draw(known.params, known.batch, known.free, keys).error
        draws = np.stack(
            [flat(jax.tree.map(lambda e, i=i: e[i], found)) for i in range(64)]
        )
        spread = draws.std(axis=0, ddof=1)
        assert (spread > 0).all()
        # the mean of 64 draws, within its own noise, over 44 entries
        pull = (draws.mean(axis=0) - still) / (spread / 8)
        assert np.sqrt(np.mean(pull**2)) < 1.6
        spreads.append(np.sqrt(np.mean(spread**2)))
    ratios = np.array(spreads[1:]) / np.array(spreads[:-1])
    np.testing.assert_allclose(ratios, 0.5, rtol=0.15)


def test_noise_has_its_size():
    """Of one sweep at one point from rest: Var[u] = noise², of both parts alike.

    With N points the last one's is all there is in the state; D does not see it.
    """
    known = oracle.of('feedforward')
    system, noise, count = known.system, 0.05, 400
    one = online(system, num_points=4, steps_per_point=1, burn_in=0, noise=noise)

    def last(key):
        start = one.start(known.params, known.batch.x, known.free.state)
        return one.run(known.params, known.batch, start, key)[1].state['layer_1']

    ends = np.asarray(jax.jit(jax.vmap(last))(jax.random.split(RNG, count)))
    away = ends - np.asarray(known.free.state['layer_1'])
    for part in (away.real, away.imag):
        assert part.std() == pytest.approx(noise, rel=0.03)
        assert abs(part.mean()) < 4 * noise / np.sqrt(part.size)
    assert abs(np.mean(away.real * away.imag)) < 4 * noise**2 / np.sqrt(away.size)


def test_noise_needs_a_key():
    known = oracle.of('free')
    noisy = online(known.system, noise=0.1)
    with pytest.raises(ValueError, match='noise needs a key'):
        noisy(known.params, known.batch, known.free, None)
