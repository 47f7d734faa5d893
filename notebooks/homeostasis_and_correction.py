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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/eqprop-jax/eqprop_jax/blob/main/notebooks/homeostasis_and_correction.ipynb)

# %%
# On Colab: install the package, unless it is there.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec('eqprop_jax') is None and 'google.colab' in sys.modules:
    source = 'git+https://github.com/eqprop-jax/eqprop_jax'
    subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', source], check=True)

# %% [markdown]
# # Homeostasis and correction
#
# In a network whose feedback is not the transpose of its forward weights, equilibrium
# propagation measures the wrong error vector, however small the nudge ([where does the
# bias come from?](where_does_the_bias_come_from.ipynb)). With $J = \partial D/\partial s$,
# $\Lambda = \mathrm{diag}(1/\sigma')$ and $g = \partial C / \partial s$,
#
# $$\text{measured:}\;\; (J - \Lambda)\, \delta_\text{EP} = g, \qquad
#   \text{wanted:}\;\; (J^\top - \Lambda)\, \delta = g .$$
#
# There are two ways out, from opposite ends.
#
# **Homeostasis** (Laborieux and Zenke 2024, sections 3 and 4) makes the *network* symmetric. A
# penalty on the asymmetry of $J$ is added to the cost,
#
# $$\mathcal L = C + \lambda \, \mathcal L_\text{homeo}, \qquad
#   \mathcal L_\text{homeo} = \frac{\lVert J - J^\top \rVert_F^2}{2 n},$$
#
# for $n$ units. It is estimated by random probes $\varepsilon \sim \mathcal N(0, I)$:
# $\lVert J \varepsilon - J^\top \varepsilon \rVert^2 / 2n$ has the right mean.
#
# **The antisymmetric correction** (Scurria and others 2026) leaves the network as it is
# and changes the *nudged phase*. Its field becomes
#
# $$F(u) - (J - J^\top)(s - s^*),$$
#
# whose response to a nudge is that of $J^\top$.
#
# Here the two are trained side by side, with plain equilibrium propagation and recurrent
# backprop, from the same random weights, whose feedback stands at 90° to the transposes:
# three draws of them, one after the other in a compiled program.

# %%
import functools
import os
import time

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import eqprop_jax as ep
from eqprop_jax.figures import style

SMALL = bool(os.environ.get('EQPROP_SMALL'))  # a short version, for tests

NUM_EPOCHS, NUM_SEEDS = (2, 1) if SMALL else (20, 3)
WEIGHT = 0.3  # of the homeostatic penalty, λ
COLOURS = {
    'plain': style.ORANGE,
    'homeostasis': style.GREEN,
    'correction': style.BLUE,
    'recurrent backprop': style.BLACK,
}

# %%
data = ep.data.load('digits', num_train=100 if SMALL else None)
preprocess = ep.data.normalizer(data, 'standard')
train, test = ep.data.to_device(data.train), ep.data.to_device(data.test)


def examples(split, positions):
    """Returns images and one-hot targets."""
    return ep.data.take(split, positions, preprocess, data.num_classes)


sizes = (64, 16, 16, 10) if SMALL else (64, 128, 128, 10)
system = ep.systems.mlp(sizes, feedback='free', angle=90.0, cost='squared_error')
solve = ep.solvers.relaxation(tol=1e-3, max_steps=100, compact=False)
LAYERS = ('layer_1', 'layer_2', 'layer_3')


def nudged(correction):
    """Returns the estimator with one imaginary nudge, β = ir: δ is about Im s(ir)/r."""
    return ep.estimators.contour(
        system,
        solve,
        contour=ep.nudges.complex_step(1e-3),
        correction=correction,
        skip_unconverged=True,
    )


exact = ep.estimators.recurrent_backprop(system, skip_unconverged=True)
plain = nudged(None)
estimators = {
    'plain': plain,
    'homeostasis': plain,
    'correction': nudged('antisymmetric'),
    'recurrent backprop': exact,
}
penalty = ep.homeostasis.penalty(system, num_probes=5)
few = examples(train, jnp.arange(20))
seeds = jax.random.split(jax.random.key(0), NUM_SEEDS)
starts = jax.vmap(lambda seed: system.init(seed, few.x))(seeds)

# %% [markdown]
# Before we train, two checks at the random weights. The estimate of the penalty should
# agree with the dense Jacobian, and the correction should turn the error vector into that
# of recurrent backprop.

# %%
start = jax.tree.map(lambda leaf: leaf[0], starts)
free = jax.jit(lambda: ep.relax(system, start, few.x, solve))()
J = ep.jacobian.dense(system, start, few.x, free.rates)
dense = jnp.mean(jnp.sum((J - J.mT) ** 2, axis=(1, 2))) / (2 * J.shape[-1])
probes = jax.jit(ep.homeostasis.penalty(system, num_probes=50))
probed = probes(start, few, free, jax.random.key(0))
print(
    f'L_homeo: {float(dense):.3f} from the dense Jacobian, {float(probed):.3f} probed'
)
assert abs(probed / dense - 1) < 0.1

wanted = jax.jit(exact)(start, few, free, None).error
for name in ('plain', 'correction'):
    found = jax.jit(estimators[name])(start, few, free, None).error
    cosines = [float(ep.tree.cosine(found[a], wanted[a])) for a in LAYERS]
    text = ', '.join(f'{value:.3f}' for value in cosines)
    print(f'{name:10s} cosine of δ, from the lowest layer to the output: {text}')
assert min(cosines) > 0.99

# %% [markdown]
# ## Training
#
# After every epoch we note the test error, and on a hundred training images: the cosine
# of the gradient, and of each layer's $\delta$, to recurrent backprop; the angle between
# feedback and transposes; and the symmetric share of $J$,
# $\lVert S \rVert / (\lVert S \rVert + \lVert A \rVert)$ with $S, A = (J \pm J^\top)/2$,
# which is 1 at symmetry.

# %%
BATCH_SIZE = 50
STEPS = train.size // BATCH_SIZE
optimizer = optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.adam(optax.cosine_decay_schedule(1e-3, NUM_EPOCHS * STEPS)),
)


def trainer(name):
    """Returns a method's epoch, compiled, for all draws of the weights together."""
    estimate = estimators[name]

    def step(carry, positions):
        params, memory, rng = carry
        rng, own = jax.random.split(rng)
        batch = examples(train, positions)
        free = ep.relax(system, params, batch.x, solve)
        grads = estimate(params, batch, free, None).grads
        if name == 'homeostasis':
            slope = jax.grad(penalty)(params, batch, free, own)
            grads = ep.tree.add(grads, ep.tree.scale(WEIGHT, slope))
        updates, memory = optimizer.update(grads, memory, params)
        return (optax.apply_updates(params, updates), memory, rng), None

    def epoch(params, memory, number):
        order = ep.data.epoch_order(jax.random.key(1), number, train.size)
        batches = order[: STEPS * BATCH_SIZE].reshape(STEPS, BATCH_SIZE)
        rng = jax.random.fold_in(jax.random.key(2), number)
        (params, memory, _), _ = jax.lax.scan(step, (params, memory, rng), batches)
        return params, memory

    def of_all(params, memory, number):
        return jax.lax.map(lambda one: epoch(*one, number), (params, memory))

    return jax.jit(of_all)


tests, hundred = examples(test, jnp.arange(test.size)), examples(train, jnp.arange(100))


@functools.cache
def measurer(estimate):
    """Returns what is measured after an epoch, compiled likewise."""

    def measure(params):
        rates = ep.relax(system, params, tests.x, solve).rates
        answers = jnp.argmax(system.predict(params, rates), axis=1)
        free = ep.relax(system, params, hundred.x, solve)
        found = estimate(params, hundred, free, None)
        wanted = exact(params, hundred, free, None)
        return {
            'error': jnp.mean(answers != test.labels),
            'cosine': ep.tree.cosine(found.grads, wanted.grads),
            'angle': ep.alignment.overall_angle(system, params),
            'share': ep.jacobian.symmetric_share(
                system, params, hundred.x, free.rates, jax.random.key(0), num_probes=4
            ),
            **{
                layer: ep.tree.cosine(found.error[layer], wanted.error[layer])
                for layer in LAYERS
            },
        }

    return jax.jit(lambda params: jax.lax.map(measure, params))


# %%
curves, trained, seconds = {}, {}, {}
for name in estimators:
    epoch, measure = trainer(name), measurer(estimators[name])
    params, memory = starts, jax.vmap(optimizer.init)(starts)
    rows, times = [measure(params)], []
    for number in range(NUM_EPOCHS):
        begin = time.perf_counter()
        params, memory = jax.block_until_ready(epoch(params, memory, number))
        times.append(time.perf_counter() - begin)
        rows.append(measure(params))
    curves[name] = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    trained[name], seconds[name] = params, float(np.median(times))

print(
    'after the last epoch; mean, and for the error the standard deviation, of the draws'
)
header = f'{"":20s}{"test error, %":>16s}{"cosine":>9s}{"angle":>8s}{"share of S":>12s}'
print(header + f'{"ms an epoch":>13s}')
for name, curve in curves.items():
    last = {key: values[-1].mean() for key, values in curve.items()}
    print(
        f'{name:20s}{100 * last["error"]:9.2f} ± {100 * curve["error"][-1].std():4.2f}'
        f'{last["cosine"]:9.3f}{last["angle"]:7.1f}°{last["share"]:12.3f}'
        f'{1e3 * seconds[name] / NUM_SEEDS:13.0f}'
    )

# %%
PANELS = {
    'error': 'test error (%)',
    'cosine': 'cosine of the gradient',
    'angle': 'angle of feedback to transposes (°)',
    'share': 'symmetric share of J',
}
LINES = dict(zip(curves, ('-', '-', '-', '--'), strict=True))


def draw(axis, name, values):
    """Draws the mean over the draws, and each of them faintly."""
    axis.plot(values, LINES[name], color=COLOURS[name], alpha=0.3, linewidth=0.6)
    mean = values.mean(axis=1)
    axis.plot(mean, LINES[name], color=COLOURS[name], linewidth=1.8, label=name)


figure, axes = plt.subplots(2, 2, figsize=(9, 6), layout='constrained')
for axis, (key, label) in zip(axes.flat, PANELS.items(), strict=True):
    for name, curve in curves.items():
        draw(axis, name, 100 * curve[key] if key == 'error' else curve[key])
    axis.set_xlabel('epochs')
    axis.set_xticks(range(0, NUM_EPOCHS + 1, 5))
    axis.set_ylabel(label)
axes[0, 0].set_yscale('log')
axes[0, 0].set_yticks([2, 5, 10, 20, 50, 100], ['2', '5', '10', '20', '50', '100'])
axes[0, 0].minorticks_off()
axes[0, 0].legend(frameon=False, fontsize=9)
axes[0, 1].set_ylim(top=1.04)
axes[1, 0].set_yticks([0, 30, 60, 90])
for axis in axes.flat:
    style.strip(axis)

# %% [markdown]
# Two very different networks come out.
#
# * **Homeostasis** pulls the feedback towards the transposes. The symmetric share of $J$
#   rises, and with it the cosine of a gradient that is still measured by plain nudging.
# * **The correction** has the exact gradient from the first step, and the feedback stays
#   about where it was. It learns as recurrent backprop does.
# * **Plain** nudging follows a gradient that is off throughout, and learns the slowest. At
#   the end it differs from homeostasis by less than such short runs can tell.
#
# Layer by layer: the error enters at the top, and what the feedback weights do to it on
# the way down is seen in the layers below.

# %%
figure, axes = plt.subplots(1, 3, figsize=(9, 2.9), sharey=True, layout='constrained')
for axis, layer in zip(axes, LAYERS, strict=True):
    for name in ('plain', 'homeostasis', 'correction'):
        draw(axis, name, curves[name][layer])
    axis.set_title(layer.replace('_', ' '), fontsize=10)
    axis.set_xlabel('epochs')
    axis.axhline(0, color='0.8', linewidth=0.7, zorder=0)
axes[0].set_ylabel('cosine of δ to recurrent backprop')
axes[0].set_ylim(-0.3, 1.05)
axes[2].legend(frameon=False, fontsize=9, loc='lower right')
for axis in axes:
    style.strip(axis)

# %% [markdown]
# And this is what the weights below the output look like at the end, for the first draw:
# each dot is a pair of synapses, the forward weight across and its feedback partner up.
# On the diagonal the two are equal. Training turns this pair a little towards each other
# by any method; homeostasis turns every pair of layers, and more closely.

# %%
forward_path, feedback_path, _ = system.pairs[-1]
figure, axes = plt.subplots(
    1, 4, figsize=(10, 2.9), sharex=True, sharey=True, layout='constrained'
)
for axis, (name, params) in zip(axes, trained.items(), strict=True):
    forward = np.asarray(ep.tree.get(params, forward_path))[0].T
    feedback = np.asarray(ep.tree.get(params, feedback_path))[0]
    angle = float(ep.alignment.angle(forward, feedback))
    axis.plot(forward.ravel(), feedback.ravel(), '.', color=COLOURS[name], markersize=2)
    axis.axline((0, 0), slope=1, color='0.6', linewidth=0.7, zorder=0)
    axis.set_title(f'{name}, {angle:.0f}°', fontsize=10)
    axis.set_xlabel('forward weight')
axes[0].set_ylabel('its feedback partner')
for axis in axes:
    style.strip(axis)

# %% [markdown]
# ## Which one to take
#
# The correction needs products with $J^\top$ in the nudged phase: fine in a computer, and
# in hardware that can run its synapses backwards. Homeostasis asks that only of the
# learning rule, and the nudged phase stays plain physics; but it costs an extra gradient
# at every step, and the network is drawn away from what the cost alone would make of it.
# A third way, Kolen–Pollack updates (`ep.alignment.kolen_pollack`), gives both weights of
# a pair the same change and lets what they differ by decay.
#
# These are three short runs each, with 300 test images, on which a difference of one per
# cent may mean nothing. `README.md` in the repository has more, and Fashion-MNIST.
#
# **Sources.** A. Laborieux and F. Zenke 2024, [Improving equilibrium propagation without
# weight symmetry through Jacobian homeostasis](https://arxiv.org/abs/2309.02214),
# sections 3 and 4, Fig. 4. Scurria and others 2026, [antisymmetric
# correction](https://arxiv.org/abs/2602.03670). A. Laborieux and others 2021,
# [Kolen–Pollack updates for equilibrium propagation](https://arxiv.org/abs/2006.03824).
