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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/eqprop-jax/eqprop_jax/blob/main/notebooks/quick_start.ipynb)

# %%
# On Colab: install the package, unless it is there.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec('eqprop_jax') is None and 'google.colab' in sys.modules:
    source = 'git+https://github.com/eqprop-jax/eqprop_jax'
    subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', source], check=True)

# %% [markdown]
# # Quick start: a network that settles, and learns from a nudge
#
# Most networks are computed layer by layer, and learn by passing errors backwards
# through the same layers. A physical network, of neurons or of resistors, does neither.
# It is a set of units that push on each other until nothing moves any more.
#
# *Equilibrium propagation* (Scellier and Bengio 2017; Scellier and others 2018) trains
# such a network in three steps:
#
# 1. show it an image, and wait until it has **settled**;
# 2. **nudge** its output a little towards the right answer, and wait again;
# 3. look at how far every unit has **moved**, and change each weight by what its own two
#    ends have seen.
#
# There is no separate backward pass: what has to be known about the error travels through
# the network's own connections, by its own dynamics. This notebook goes through the steps
# one by one on real handwritten digits, checks the gradient that comes out, and trains
# with it. It takes a minute or two on a laptop.

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import eqprop_jax as ep
from eqprop_jax.figures import style

SMALL = bool(os.environ.get('EQPROP_SMALL'))  # a short version, for tests

EP, EXACT = style.ORANGE, style.BLACK  # colours of the two gradients

# %% [markdown]
# ## The images
#
# Scikit-learn brings 1,797 images of handwritten digits, of 8 x 8 pixels each. Nothing
# has to be downloaded. The package sets 300 of them apart for testing, and 150 to choose
# settings by.

# %%
data = ep.data.load('digits', num_train=200 if SMALL else None)
train, test = ep.data.to_device(data.train), ep.data.to_device(data.test)
preprocess = ep.data.normalizer(data, 'standard')  # mean 0, standard deviation 1


def examples(split, positions):
    """Returns a batch: images x, and targets y with a one at the right digit."""
    return ep.data.take(split, positions, preprocess, data.num_classes)


batch = examples(train, jnp.arange(50))
print('x', batch.x.shape, ' y', batch.y.shape)

figure, axes = plt.subplots(1, 10, figsize=(8, 1.1), layout='constrained')
for axis, image, label in zip(axes, *data.train, strict=False):
    axis.imshow(image[..., 0], cmap='Greys')
    axis.set_title(label, fontsize=10)
    axis.set_axis_off()

# %% [markdown]
# ## A network that settles
#
# Our network has 128 hidden units and 10 output units, one for each digit. Every unit
# has a *potential* $u$, and fires at a *rate* $s = \sigma(u)$ between 0 and 1, here
# $\sigma(u) = 1 / (1 + e^{-(4u - 2)})$: at rest, $u = 0$, it fires at 0.12. The pixels $x$
# are held fixed; the hidden and the output units listen to each other:
#
# $$\text{pixels}\;x \;\xrightarrow{\;W_1\;}\; \text{hidden}
# \;\underset{W_2^\top}{\overset{W_2}{\rightleftarrows}}\; \text{output}$$
#
# The hidden units hear the pixels *and* the output units. The way back takes the same
# weights $W_2$, transposed: they are *tied*. What a unit receives is its *drive* $D$:
#
# $$D_\text{hidden} = x W_1 + b_1 + s_\text{output} W_2^\top, \qquad
#   D_\text{output} = s_\text{hidden} W_2 + b_2.$$
#
# The potential of every unit moves towards its drive,
#
# $$\frac{du}{dt} = F(u) = D(\sigma(u)) - u,$$
#
# until $F(u) = 0$ and nothing moves any more. This state is called the *equilibrium*
# $u^*$, and the rates there are $s^*$. They are the network's answer: it believes in the
# digit whose output unit fires most.
#
# In the package this is a *system*. The squared error is the cost that we shall want to
# be small:
#
# $$C = \tfrac12 \, \lVert s_\text{output} - y \rVert^2 .$$

# %%
system = ep.systems.mlp(
    sizes=(64, 128, 10), feedback='tied', activation='sigmoid', cost='squared_error'
)
params = system.init(jax.random.key(0), batch.x)  # random weights
print(jax.tree.map(jnp.shape, params))

# %% [markdown]
# Let it settle, and watch. A *sweep* lets every layer once take the potential that it is
# driven to, one layer after the other. After each sweep we measure the *residual*: how
# fast the network would still move, relative to where it is,
#
# $$\text{residual} = \frac{\lVert F(u) \rVert}{\lVert u \rVert}.$$

# %%
injection = system.inject(params, batch.x)  # what comes from the pixels: x W + b
field = ep.dynamics.free_field(system, params, injection)  # F
sweep = ep.solvers.unrolled(num_steps=1, order='alternating')
step = jax.jit(lambda state: sweep(field, state))

state = system.rest(injection)
residuals, outputs = [], [system.rates(state)['layer_2']]
for _ in range(16):
    now = step(state)
    state = now.state
    residuals.append(now.residual)
    outputs.append(now.rates['layer_2'])
residuals, outputs = np.array(residuals), np.array(outputs)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout='constrained')
sweeps = np.arange(1, len(residuals) + 1)
left.semilogy(sweeps, residuals, color='0.8', linewidth=0.7)
left.semilogy(sweeps, residuals.max(axis=1), color=style.BLACK, label='slowest image')
left.semilogy([], [], color='0.8', label='each of 50 images')
left.set_xticks(range(0, 17, 4))
left.set_ylim(bottom=1e-8)
left.set_ylabel('residual |F(u)| / |u|')
left.legend(frameon=False, fontsize=8)
label = int(data.train.labels[0])  # of the first image
colours = [style.BLUE if digit == label else '0.75' for digit in range(10)]
for digit in range(10):
    right.plot(outputs[:11, 0, digit], '.-', color=colours[digit], linewidth=1)
right.plot([], [], color=style.BLUE, label=f'of the right digit, {label}')
right.plot([], [], color='0.75', label='of the others')
right.set_ylabel('rates of the output units')
right.set_ylim(top=0.55)
right.legend(frameon=False, fontsize=8)
for axis in (left, right):
    axis.set_xlabel('sweeps')
    style.strip(axis)

# %% [markdown]
# Left: each sweep takes away about the same fraction of what is left, down to where
# 32-bit numbers end. Right: the ten output units for the first image, a 1. They start from
# rest and soon stand still, on the wrong answer: the weights are random.
#
# In daily use a *solver* stops every image by itself, once its residual is small enough.
# This is the **free phase**: no one has told the network the answer yet.

# %%
solve = ep.solvers.relaxation(tol=1e-6, max_steps=100)
free = ep.relax(system, params, batch.x, solve)
print('settled:', f'{float(jnp.mean(free.converged)):.0%}', 'of the images')
print('sweeps:', int(free.num_steps.min()), 'to', int(free.num_steps.max()))

# %% [markdown]
# ## The nudge
#
# Now we tell it the answer, gently. The cost pushes on the output units with a strength
# $\beta$:
#
# $$F^\beta(u) = F(u) - \beta \, \frac{\partial C}{\partial s} .$$
#
# For the squared error, $-\partial C / \partial s_\text{output} = y - s_\text{output}$: a
# spring that pulls each output unit to where it should be. The network settles again, to
# a slightly different equilibrium $s(\beta)$. A negative $\beta$ pushes away from the
# answer.
#
# The hidden units do not feel the cost themselves. They move because the output units
# have moved. **This is how the error travels back.**

# %%
pull = ep.dynamics.cost_gradient(system, params, batch.y)  # s -> dC/ds


@jax.jit
def nudged(beta):
    """Returns the rates at which the network settles under a nudge."""
    return solve(ep.dynamics.nudged_field(field, pull, beta), free.state).rates


betas = np.linspace(-0.5, 0.5, 11)
curves = [nudged(beta) for beta in jnp.asarray(betas, jnp.float32)]
outputs = np.array([rates['layer_2'][0] for rates in curves])  # of the first image
hidden = np.array([rates['layer_1'][0] - free.rates['layer_1'][0] for rates in curves])

# %% [markdown]
# These are the rates over $\beta$. What matters is the *slope* of such a curve at
# $\beta = 0$, for every unit. With tied weights it is what the gradient needs, and has a
# name, the **error vector**:
#
# $$\delta = \left. \frac{d s(\beta)}{d \beta} \right|_{\beta = 0}
# \;\approx\; \frac{s(\beta) - s(-\beta)}{2 \beta} .$$
#
# Two nudges are enough to measure it: one towards the answer, and one away from it
# (Laborieux and others 2021).

# %%
beta = 0.1
delta = jax.tree.map(
    lambda plus, minus: (plus - minus) / (2 * beta),
    *(nudged(jnp.float32(nudge)) for nudge in (beta, -beta)),
)

figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout='constrained')
for digit in range(10):
    left.plot(betas, outputs[:, digit], '.-', color=colours[digit], linewidth=1)
left.plot([], [], color=style.BLUE, label=f'of the right digit, {label}')
left.plot([], [], color='0.75', label='of the others')
left.set_ylabel('rates of the output units')
left.legend(frameon=False, fontsize=8)
most = np.argsort(-np.abs(np.asarray(delta['layer_1'][0])))[:5]
for index, unit in enumerate(most):
    colour = style.colour(index)
    right.plot(betas, 1e3 * hidden[:, unit], '.', color=colour)
    slope = float(delta['layer_1'][0, unit])
    right.plot(betas, 1e3 * betas * slope, color=colour, linewidth=0.8)
right.plot([], [], '.', color=style.GREY, label='five hidden units')
right.plot([], [], color=style.GREY, linewidth=0.8, label='lines of slope δ')
right.set_ylabel('change of the rates (10⁻³)')
right.legend(frameon=False, fontsize=8)
for axis in (left, right):
    axis.set_xlabel('nudge β')
    axis.axvline(0, color='0.9', zorder=0)
    style.strip(axis)

# %% [markdown]
# Left: towards the answer, $\beta > 0$, the right output unit fires more and the others
# less. Right: the five hidden units that move most. At $|\beta| = 0.5$ some are far off
# their lines of slope $\delta$, at 0.1 hardly any: this is why we measure at 0.1.
#
# ## Reading the gradient off
#
# The slopes are all that is needed. The gradient of the cost follows from them by the
# **local rule**,
#
# $$\frac{dC}{d\theta} = -\left(\frac{\partial D}{\partial \theta}\right)^{\!\top} \delta ,$$
#
# where $\theta$ stands for all weights and biases. For a weight from a pixel to a hidden
# unit this says: minus the activity at the one end, times the slope at the other. The
# weights $W_2$ are used in both directions, so that they get such a product from either
# direction:
#
# $$\frac{dC}{dW_1} = - x^\top \delta_\text{hidden}, \qquad
#   \frac{dC}{dW_2} = - s_\text{hidden}^\top \, \delta_\text{output}
#                     - \delta_\text{hidden}^\top \, s_\text{output} .$$
#
# This is for one image; of a batch we take the mean. Nothing enters but the rates at the
# two ends of a weight, and how they move under the nudge. The package does the nudged
# phases and the rule in one call: an *estimator*, which is told which nudges to use, its
# *contour*, here $\pm\beta$. (`None` stands where an estimator that draws random numbers
# takes a key.) Let us see that it is what we have just done by hand.

# %%
estimate = ep.estimators.contour(system, solve, contour=ep.nudges.symmetric(beta))
grads, error, info = jax.jit(estimate)(params, batch, free, None)

s = free.rates
by_hand = -(s['layer_1'].T @ delta['layer_2'] + delta['layer_1'].T @ s['layer_2']) / 50
difference = jnp.linalg.norm(by_hand - grads['layer_2']['kernel'])
difference /= jnp.linalg.norm(by_hand)
print(f'difference from the rule by hand: {float(difference):.1e}')
assert difference < 1e-3

# %% [markdown]
# ## Is it the gradient?
#
# The plainest check there is: move one weight by a little, let the network settle again,
# and see what the cost does. We do it for the five weights in $W_2$ with the largest
# gradients.


# %%
@jax.jit
def cost_at(kernel):
    """Returns the mean cost of the settled network with other weights W2."""
    changed = ep.tree.replace(params, ('layer_2', 'kernel'), kernel)
    settled = ep.relax(system, changed, batch.x, solve)
    return jnp.mean(system.cost(changed, settled.rates, batch.y))


kernel, by_nudging = params['layer_2']['kernel'], grads['layer_2']['kernel']
print('weight        by nudging    by moving it')
for place in np.argsort(-np.abs(np.asarray(by_nudging)), axis=None)[:5]:
    row, column = np.unravel_index(place, kernel.shape)
    up, down = (kernel.at[row, column].add(shift) for shift in (0.02, -0.02))
    moved = float(cost_at(up) - cost_at(down)) / 0.04
    found = float(by_nudging[row, column])
    print(f'{row:3d} to {column}  {found:14.5f}  {moved:14.5f}')
    assert abs(moved - found) < 0.03 * abs(found)

# %% [markdown]
# The two columns differ a little, since a nudge of 0.1 is not infinitely small: the
# curves above are not quite straight.
#
# For all weights at once there is a better reference. *Recurrent backprop* (Almeida 1987;
# Pineda 1987) differentiates through the equilibrium and solves a linear system for the
# exact error vector. A computer can do that; a physical network cannot. The *cosine*
# between the two gradients is 1 if they point in the same direction.

# %%
exact = ep.estimators.recurrent_backprop(system, tol=1e-6)
reference = jax.jit(exact)(params, batch, free, None).grads
print(f'cosine to the exact gradient: {float(ep.tree.cosine(grads, reference)):.6f}')
assert ep.tree.cosine(grads, reference) > 0.999

figure, axis = plt.subplots(figsize=(3.6, 3.4), layout='constrained')
for name, colour, size in (('layer_2', style.BLUE, 6), ('layer_1', style.SKY, 2)):
    across, up = reference[name]['kernel'].ravel(), grads[name]['kernel'].ravel()
    marks = axis.plot(1e3 * across, 1e3 * up, '.', color=colour, markersize=size)
    marks[0].set_label({'layer_1': 'weights W₁', 'layer_2': 'weights W₂'}[name])
axis.axline((0, 0), slope=1, color='0.6', linewidth=0.7, zorder=0)
axis.set_xlabel('exact gradient (10⁻³)')
axis.set_ylabel('gradient by nudging (10⁻³)')
axis.legend(frameon=False, fontsize=8, markerscale=3)
style.strip(axis)

# %% [markdown]
# ## Training
#
# What remains is the usual loop: take a batch, relax, nudge, read the gradient off, and
# take a step with an optimizer (here Adam, from optax). Beside it we train the same
# network with the exact gradient.

# %%
NUM_EPOCHS, BATCH_SIZE = (2 if SMALL else 12), 50
quick = ep.solvers.relaxation(tol=1e-4, max_steps=100)
optimizer = optax.adam(1e-3)


def trainer(estimate):
    """Returns a function that trains for one epoch with an estimator's gradients."""

    def step(carry, positions):
        params, memory = carry
        batch = examples(train, positions)
        free = ep.relax(system, params, batch.x, quick)
        grads = estimate(params, batch, free, None).grads
        updates, memory = optimizer.update(grads, memory, params)
        return (optax.apply_updates(params, updates), memory), None

    @jax.jit
    def epoch(params, memory, number):
        order = ep.data.epoch_order(jax.random.key(1), number, train.size)
        batches = order[: train.size // BATCH_SIZE * BATCH_SIZE]
        batches = batches.reshape(-1, BATCH_SIZE)
        return jax.lax.scan(step, (params, memory), batches)[0]

    return epoch


@jax.jit
def answers(params, x):
    """Returns the digit that the network settles for."""
    rates = ep.relax(system, params, x, quick).rates
    return jnp.argmax(system.predict(params, rates), axis=1)


everything = examples(test, jnp.arange(test.size))


def test_error(params):
    """Returns the fraction of the test images that it takes for another digit."""
    return float(jnp.mean(answers(params, everything.x) != test.labels))


# %%
methods = {
    'equilibrium propagation': ep.estimators.contour(
        system, quick, contour=ep.nudges.symmetric(beta)
    ),
    'exact gradient': ep.estimators.recurrent_backprop(system),
}
errors, trained = {}, {}
for name, method in methods.items():
    epoch = trainer(method)
    weights, memory = params, optimizer.init(params)
    errors[name] = [test_error(weights)]
    for number in range(NUM_EPOCHS):
        weights, memory = epoch(weights, memory, number)
        errors[name].append(test_error(weights))
    trained[name] = weights
    print(f'{name}: {100 * errors[name][-1]:.1f} % of the test images wrong')

# %%
figure, axis = plt.subplots(figsize=(4.6, 3), layout='constrained')
for (name, curve), colour, line in zip(
    errors.items(), (EP, EXACT), ('o-', '--'), strict=True
):
    percent = 100 * np.array(curve)
    axis.semilogy(percent, line, color=colour, markersize=4, label=name)
axis.set_yticks([2, 5, 10, 20, 50, 100], ['2', '5', '10', '20', '50', '100'])
axis.minorticks_off()
axis.set_xlabel('epochs')
axis.set_ylabel('test error (%)')
axis.legend(frameon=False, fontsize=8)
style.strip(axis)

# %% [markdown]
# The two curves all but coincide, as they should: the gradients are the same. Here are
# test images that the trained network still gets wrong, with its answer.

# %%
found = np.asarray(answers(trained['equilibrium propagation'], everything.x))
wrong = np.flatnonzero(found != np.asarray(test.labels))[:8]
figure, axes = plt.subplots(1, 8, figsize=(8, 1.5), layout='constrained')
for axis in axes:
    axis.set_axis_off()
for axis, index in zip(axes, wrong, strict=False):
    axis.imshow(data.test.images[index, ..., 0], cmap='Greys')
    axis.set_title(f'{data.test.labels[index]}, says {found[index]}', fontsize=9)

# %% [markdown]
# ## Where to go on
#
# Two things were kind to us here. The nudge was small, and the weights $W_2$ were the
# same in both directions. Neither is true of a brain or a chip.
#
# * [Where does the bias come from?](where_does_the_bias_come_from.ipynb) A larger nudge,
#   and feedback that is not the transpose, and what each does to the gradient.
# * [Homeostasis and correction](homeostasis_and_correction.ipynb): two ways to train all
#   the same, side by side.
# * [Write your own system](write_your_own_system.ipynb): an energy, a scalar or any
#   vector field, in ten lines.
# * [Learning online](learning_online.ipynb): no separate phases at all; the nudge turns
#   in the complex plane while the network runs.
#
# **Sources.** B. Scellier and Y. Bengio 2017, [Equilibrium
# propagation](https://arxiv.org/abs/1602.05179). B. Scellier, A. Goyal, J. Binas, T.
# Mesnard and Y. Bengio 2018, [Generalization of equilibrium propagation to vector field
# dynamics](https://arxiv.org/abs/1808.04873): the local rule and the vector field. A.
# Laborieux and others 2021, [Scaling equilibrium propagation to deep
# ConvNets](https://arxiv.org/abs/2006.03824): nudges of either sign. L. Almeida 1987 and
# F. Pineda 1987, [recurrent backprop](https://doi.org/10.1103/PhysRevLett.59.2229).
