# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/eqprop-jax/eqprop_jax/blob/main/notebooks/learning_online.ipynb)

# %%
# On Colab: install the package, unless it is there.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec('eqprop_jax') is None and 'google.colab' in sys.modules:
    source = 'git+https://github.com/eqprop-jax/eqprop_jax'
    subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', source], check=True)

# %% [markdown]
# # Learning online
#
# Equilibrium propagation usually comes in phases: settle freely, remember where, settle
# again under a nudge, compare ([quick start](quick_start.ipynb)). Something has to tell
# the phases apart, and to remember. It also works without. Let the nudge *oscillate*
# while the network runs (Laborieux and Zenke 2022, section 3.3):
#
# $$\beta(t) = r\, e^{i \omega t} .$$
#
# The network follows. Where its equations are analytic, the rates of the nudged
# equilibrium are a power series in the nudge,
#
# $$s(\beta) = s^* + \delta\, \beta + \tfrac12 s''\, \beta^2 + \dots$$
#
# Over a whole turn every power of $\beta$ averages to zero, except the zeroth. So two
# running averages are enough, each over a turn:
#
# $$\langle s \rangle = s^*, \qquad
#   \left\langle \frac{s}{\beta} \right\rangle = \delta .$$
#
# The first is the free equilibrium, although the network is never free. The second is the
# error vector, exactly, although the nudge is not small. With $N$ steps a turn both have
# an error of $O(r^N)$; and if the nudge turns too fast to follow, one of lagging behind.
#
# In hardware the imaginary part would be the phase of an oscillation. Here it is the
# imaginary part of a complex number.

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import optax
from IPython.display import display
from matplotlib.animation import FuncAnimation

import eqprop_jax as ep
from eqprop_jax.figures import style

SMALL = bool(os.environ.get('EQPROP_SMALL'))  # a short version, for tests

ONLINE, EXACT = style.METHODS['online'], style.BLACK  # colours of the two ways to learn

# %% [markdown]
# One image, and a small network with random weights. Its feedback is the transpose of the
# forward weights, so that the error vector which is measured is the exact one.

# %%
data = ep.data.load('digits', num_train=200 if SMALL else None)
preprocess = ep.data.normalizer(data, 'standard')
train, test = ep.data.to_device(data.train), ep.data.to_device(data.test)


def examples(split, positions):
    """Returns images and one-hot targets."""
    return ep.data.take(split, positions, preprocess, data.num_classes)


system = ep.systems.mlp((64, 64, 10), feedback='tied', cost='squared_error')
image = examples(train, jnp.arange(1))
params = ep.tree.scale(0.8, system.init(jax.random.key(0), image.x))

solve = ep.solvers.relaxation(tol=1e-7, max_steps=200)
free = ep.relax(system, params, image.x, solve)
exact = ep.estimators.recurrent_backprop(system, tol=1e-7)
delta = exact(params, image, free, None).error

# %% [markdown]
# ## The nudge turns
#
# The network starts from rest and never stops. At every sweep the nudge is a step
# further on its circle, of radius $r = 0.4$: 40 steps a turn, three turns. We write down
# all rates.

# %%
RADIUS, NUM_POINTS, NUM_TURNS = 0.4, 40, 3
injection = system.inject(params, image.x)
field = ep.dynamics.free_field(system, params, injection)
pull = ep.dynamics.cost_gradient(system, params, image.y)
one_sweep = ep.solvers.unrolled(num_steps=1, order='alternating')


@jax.jit
def follow(state, betas):
    """Returns the rates after every sweep, while the nudge takes these values."""

    def sweep(state, beta):
        nudged = ep.dynamics.nudged_field(field, pull, beta)
        moved = one_sweep(nudged, state)
        return moved.state, moved.rates

    return jax.lax.scan(sweep, state, betas)[1]


steps = np.arange(NUM_TURNS * NUM_POINTS)
betas = RADIUS * np.exp(2j * np.pi * steps / NUM_POINTS)
rest = ep.tree.to_complex(system.rest(injection))
rates = follow(rest, jnp.asarray(betas, jnp.complex64))


def over_the_last_turn(values):
    """Returns the mean over the turn before each step, or over all that there was."""
    sums = np.cumsum(np.concatenate([[0], values]))
    start = np.maximum(0, steps + 1 - NUM_POINTS)
    return (sums[steps + 1] - sums[start]) / (steps + 1 - start)


# Three units to watch: that of the right digit, and two that move much, too.
label = int(data.train.labels[0])
other = int(np.argmin(delta['layer_2'][0]))
hidden = int(np.argmax(delta['layer_1'][0]))
watched = [
    (f'output, digit {label} (right)', 'layer_2', label, style.BLUE),
    (f'output, digit {other}', 'layer_2', other, style.ORANGE),
    ('a hidden unit', 'layer_1', hidden, style.GREEN),
]
traces, targets = [], []
for _, layer, unit, _ in watched:
    trace = np.asarray(rates[layer][:, 0, unit]).astype(complex)
    mean = over_the_last_turn(trace).real
    response = over_the_last_turn(trace / betas).real
    traces.append((trace, mean, response))
    targets.append((float(free.rates[layer][0, unit]), float(delta[layer][0, unit])))

# %% [markdown]
# Press play; the last moment is also above the animation, as a picture. From left to
# right: the nudge; the rates of three units in the complex plane, with the last turn as
# a tail and a cross at the free equilibrium, which they go around; and the two averages
# over the turn that has just passed (over less, as long as there is less), with the exact
# values as dashed lines.

# %%
mpl.rcParams['animation.html'] = 'jshtml'
figure, axes = plt.subplots(1, 4, figsize=(11, 3), layout='constrained', dpi=75)
circle, plane, averages, responses = axes
turns = (steps + 1) / NUM_POINTS

angle = np.linspace(0, 2 * np.pi, 200)
circle.plot(RADIUS * np.cos(angle), RADIUS * np.sin(angle), color='0.8')
(hand,) = circle.plot([0, RADIUS], [0, 0], 'o-', color=ONLINE, markevery=[1])
circle.set_xlim(-0.7, 0.7)
circle.set_ylim(-0.7, 0.7)
circle.set_aspect('equal')
circle.set_title('nudge β', fontsize=10)
circle.set_xlabel('real part')
circle.set_ylabel('imaginary part')

tails, heads, lines = [], [], []
for (name, _, _, colour), target in zip(watched, targets, strict=True):
    tails += plane.plot([], [], color=colour, linewidth=1, label=name)
    heads += plane.plot([], [], 'o', color=colour, markersize=5)
    plane.plot(target[0], 0, 'x', color=colour)
    for axis, value in zip((averages, responses), target, strict=True):
        axis.axhline(value, color=colour, linestyle='--', linewidth=0.8)
        lines += axis.plot([], [], color=colour, linewidth=1.6)
settled = np.concatenate([trace[NUM_POINTS // 2 :] for trace, _, _ in traces])
plane.set_xlim(settled.real.min() - 0.04, settled.real.max() + 0.04)
height = 1.25 * np.abs(settled.imag).max()
plane.set_ylim(-height, 1.9 * height)
plane.legend(frameon=False, fontsize=7, loc='upper left')
plane.set_title('rates s', fontsize=10)
plane.set_xlabel('real part')
plane.set_ylabel('imaginary part')
for axis, title, column in (
    (averages, 'average of s → s*', 1),
    (responses, 'average of s/β → δ', 2),
):
    seen = np.concatenate([trace[column][8:] for trace in traces])
    low, high = seen.min(), seen.max()
    axis.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
    axis.set_xlim(0, NUM_TURNS)
    axis.set_xticks(range(NUM_TURNS + 1))
    axis.set_title(title, fontsize=10)
    axis.set_xlabel('turns of the nudge')
for axis in axes:
    style.strip(axis)
figure.draw_without_rendering()  # lays the panels out, once for all frames
figure.set_layout_engine('none')


def draw(step):
    """Draws the moment after a sweep."""
    hand.set_data([0, betas[step].real], [0, betas[step].imag])
    since = max(0, step - NUM_POINTS + 1)
    for index, (trace, mean, response) in enumerate(traces):
        tail = trace[since : step + 1]
        tails[index].set_data(tail.real, tail.imag)
        heads[index].set_data([trace[step].real], [trace[step].imag])
        for line, curve in zip(lines[2 * index :], (mean, response), strict=False):
            line.set_data(turns[: step + 1], curve[: step + 1])


frames = steps[:: 40 if SMALL else 2]
draw(frames[-1])
display(figure)
animation = FuncAnimation(figure, draw, frames=frames, interval=120)
animation.to_jshtml()  # kept by the animation; the figure can be closed
plt.close(figure)
display(animation)

# %% [markdown]
# While the first turn lasts, the averages swing. With the last step of it, and once the
# memory of the start has left the window, everything cancels that goes around: both stand
# still, on the exact values, while the network never does.
#
# ## The estimator
#
# `ep.estimators.oscillation` is this in one object. `start` puts the network at rest, and
# `run` lets it go on from wherever it is, for `burn_in` turns that do not count and
# `periods` turns that do. What it returns is what we have just averaged.

# %%
oscillation = ep.estimators.oscillation(
    system,
    radius=RADIUS,
    num_points=NUM_POINTS,
    steps_per_point=1,
    burn_in=NUM_TURNS - 1,
    periods=1,
)
stream = oscillation.start(params, image.x)
(grads, error, info), stream = jax.jit(oscillation.run)(params, image, stream, None)

wanted = exact(params, image, free, None)
for (name, layer, unit, _), (_, mean, response) in zip(watched, traces, strict=True):
    by_hand, by_run = mean[-1], float(stream.free[layer][0, unit])
    assert abs(by_hand - by_run) < 1e-4
    assert abs(response[-1] - float(error[layer][0, unit])) < 1e-3
    print(
        f'{name:26s} s* {float(free.rates[layer][0, unit]):7.4f} {by_run:7.4f}'
        f'    δ {float(delta[layer][0, unit]):8.4f} {float(error[layer][0, unit]):8.4f}'
    )
print('(each exact, and online)')
print(f'cosine to the exact gradient: {float(ep.tree.cosine(grads, wanted.grads)):.5f}')
assert ep.tree.cosine(grads, wanted.grads) > 0.99

# %% [markdown]
# How patient does one have to be? Let the nudge stay for some sweeps at each of $N$
# points. The error of $\delta$ falls fast with the sweeps, until only the curvature over
# the circle is left, $O(r^N)$, or rounding.

# %%
patience = [1, 2, 4] if SMALL else [1, 2, 4, 8, 16]
figure, axis = plt.subplots(figsize=(5, 3.2), layout='constrained')
for index, (radius, count) in enumerate([(0.2, 4), (0.1, 4), (0.2, 8)]):
    errors = ep.analysis.convergence.by_patience(
        system,
        params,
        image,
        free,
        reference=delta,
        steps_per_point=patience,
        radius=radius,
        num_points=count,
    )
    axis.loglog(
        patience,
        errors,
        color=(style.RED, style.SKY, style.GREEN)[index],
        marker=style.MARKERS[index],
        markersize=4,
        label=f'r = {radius}, N = {count}',
    )
axis.set_xticks(patience, [str(count) for count in patience])
axis.minorticks_off()
axis.set_xlabel('sweeps at each point')
axis.set_ylabel('relative error of δ')
axis.legend(frameon=False, fontsize=9)
style.strip(axis)

# %% [markdown]
# ## A stream of digits
#
# Now let it learn. Ten images at a time come by. The network is never put back to rest: it
# goes over to the next images from where the last ones left it. No phase is ever free.
#
# Even the predictions are read off while the teacher pushes: from $\langle s \rangle$,
# which the nudge does not enter but for $O(r^N)$. Each is made *before* the weights
# change, so that in the first pass every image is new to the network.
#
# Beside it the same network learns by recurrent backprop, in separate phases, from the
# same stream; and once more online, with noise of 0.04 added to every potential after
# every sweep, as a physical network would have it. Averaging over more turns keeps the
# noise down.

# %%
BATCH_SIZE, NUM_PASSES = 10, (1 if SMALL else 6)
STEPS = train.size // BATCH_SIZE
EVERY = max(1, STEPS // 2)  # batches between tests
quick = ep.solvers.relaxation(tol=1e-4, max_steps=100)
optimizer = optax.adam(1e-3)
SETTING = {'radius': 0.3, 'num_points': 6, 'steps_per_point': 4}

order = np.concatenate(
    [
        ep.data.epoch_order(jax.random.key(3), number, train.size)[: STEPS * BATCH_SIZE]
        for number in range(NUM_PASSES)
    ]
).reshape(-1, BATCH_SIZE)


def online(noise, periods):
    """Returns how a network at work goes on to the next batch, and where it starts."""
    method = ep.estimators.oscillation(
        system, **SETTING, burn_in=1, periods=periods, noise=noise
    )

    def go_on(params, batch, stream, rng):
        (grads, _, _), stream = method.run(params, batch, stream, rng)
        return grads, stream.free, stream

    return go_on, method.start


def in_phases():
    """Returns the same for a network that settles freely for every batch."""

    def go_on(params, batch, stream, rng):
        free = ep.relax(system, params, batch.x, quick)
        return exact(params, batch, free, rng).grads, free.rates, stream

    return go_on, lambda params, x: None


def learn(go_on, start):
    """Returns the mistakes made on the stream, and the test error now and then."""

    def step(carry, numbered):
        params, memory, stream = carry
        number, positions = numbered
        batch = examples(train, positions)
        rng = jax.random.fold_in(jax.random.key(4), number)
        grads, rates, stream = go_on(params, batch, stream, rng)
        answers = jnp.argmax(system.predict(params, rates), axis=1)
        mistakes = jnp.mean(answers != jnp.argmax(batch.y, axis=1))
        updates, memory = optimizer.update(grads, memory, params)
        return (optax.apply_updates(params, updates), memory, stream), mistakes

    @jax.jit
    def some(carry, numbers):
        return jax.lax.scan(step, carry, (numbers, jnp.asarray(order)[numbers]))

    carry = params, optimizer.init(params), start(params, examples(train, order[0]).x)
    mistakes, tested = [], [test_error(params)]
    for first in range(0, len(order) - EVERY + 1, EVERY):
        carry, found = some(carry, jnp.arange(first, first + EVERY))
        mistakes.append(found)
        tested.append(test_error(carry[0]))
    return np.concatenate(mistakes), np.array(tested)


everything = examples(test, jnp.arange(test.size))


@jax.jit
def test_error(params):
    """Returns the fraction of the test images that it takes for another digit."""
    rates = ep.relax(system, params, everything.x, quick).rates
    answers = jnp.argmax(system.predict(params, rates), axis=1)
    return jnp.mean(answers != test.labels)


ways = {
    'online': (online(noise=0.0, periods=1), ONLINE, '-'),
    'online, in noise': (online(noise=0.04, periods=4), ONLINE, ':'),
    'recurrent backprop, in phases': (in_phases(), EXACT, '--'),
}
learned = {name: learn(*way) for name, (way, _, _) in ways.items()}
for name, (_, tested) in learned.items():
    print(f'{name:30s}{100 * tested[-1]:5.1f} % of the test images wrong')

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout='constrained')
window = 5 if SMALL else 40  # batches
for name, (mistakes, tested) in learned.items():
    _, colour, line = ways[name]
    smooth = np.convolve(mistakes, np.ones(window) / window, mode='valid')
    seen = BATCH_SIZE * (window + np.arange(len(smooth)))
    left.plot(seen, 100 * smooth, line, color=colour, label=name)
    tests = BATCH_SIZE * EVERY * np.arange(len(tested))
    right.plot(tests, 100 * tested, line, color=colour, marker='.', label=name)
left.axvline(STEPS * BATCH_SIZE, color='0.85', zorder=0)
left.annotate(
    'second pass',
    (STEPS * BATCH_SIZE, 1),
    xycoords=('data', 'axes fraction'),
    xytext=(4, -10),
    textcoords='offset points',
    fontsize=8,
    color='0.4',
)
left.set_ylabel(f'mistakes on the last {window * BATCH_SIZE} images (%)')
right.set_ylabel('test error (%)')
right.legend(frameon=False, fontsize=9)
for axis in (left, right):
    axis.set_yscale('log')
    ticks = (1, 2, 5, 10, 20, 50, 100)
    axis.set_yticks(ticks, [str(tick) for tick in ticks])
    axis.set_ylim(0.8, 110)
    axis.minorticks_off()
    axis.set_xlabel('images seen')
    style.strip(axis)

# %% [markdown]
# The network learns while it works, from two running averages at every unit, and keeps up
# with the exact gradient. Without symmetric weights the same estimator takes
# `correction='antisymmetric'`, with the average of an uncorrected turn in the place of the
# free equilibrium ([homeostasis and correction](homeostasis_and_correction.ipynb)).
#
# **Sources.** A. Laborieux and F. Zenke 2022, [Holomorphic equilibrium propagation
# computes exact gradients through finite size
# oscillations](https://arxiv.org/abs/2209.00530), section 3.3. Scurria and others 2026,
# [antisymmetric correction](https://arxiv.org/abs/2602.03670).
