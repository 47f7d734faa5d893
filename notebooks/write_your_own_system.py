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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/eqprop-jax/eqprop_jax/blob/main/notebooks/write_your_own_system.ipynb)

# %%
# On Colab: install the package, unless it is there.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec('eqprop_jax') is None and 'google.colab' in sys.modules:
    source = 'git+https://github.com/eqprop-jax/eqprop_jax'
    subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', source], check=True)

# %% [markdown]
# # Write your own system
#
# Anything that settles can be trained. A system of your own is one function, in one of
# three forms, and gets every solver and every estimator of the package:
#
# | you have | factory | what moves |
# |---|---|---|
# | a drive $D(\theta, x, s)$: any vector field | `from_drive` | $\dot u = D(\sigma(u)) - u$ |
# | an energy $E(\theta, x, u)$ | `from_energy` | $\dot u = -\partial E / \partial u$ |
# | a scalar $\Phi(\theta, x, s)$, a *primitive* | `from_primitive` | $\dot u = \partial \Phi / \partial s - u$ |
#
# This notebook writes one of each, holds its gradient against finite differences and a
# dense linear solve, and trains it for a few epochs. The functions are written for a
# batch, in plain `jax.numpy`. If you are new to equilibrium propagation, begin with the
# [quick start](quick_start.ipynb).

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

import eqprop_jax as ep
from eqprop_jax.figures import style

jax.config.update('jax_enable_x64', True)  # finite differences need many digits

SMALL = bool(os.environ.get('EQPROP_SMALL'))  # a short version, for tests
NUM_HIDDEN = 8 if SMALL else 60

PLAIN, CORRECTED = style.ORANGE, style.BLUE  # colours of the two estimates

# %% [markdown]
# One helper for all three: random matrices by name.


# %%
def random_weights(shapes):
    """Returns an init function (rng, x) -> params, of variance 1 / fan in."""

    def init(rng, x):
        keys = jax.random.split(rng, len(shapes))
        return {
            name: jax.random.normal(key, shape, x.dtype) / np.sqrt(shape[0])
            for key, (name, shape) in zip(keys, shapes.items(), strict=True)
        }

    return init


def pixels(x):
    """Returns images as rows."""
    return x.reshape(len(x), -1)


def zeros(x, **sizes):
    """Returns a state at rest, of these layers."""
    return {name: jnp.zeros((len(x), size), x.dtype) for name, size in sizes.items()}


# %% [markdown]
# ## 1. A drive: lateral inhibition
#
# Hidden units compete. Each holds down all others, by weights $L_{ij}^2 \ge 0$ that need
# not be the same in both directions, and hears the output through weights of its own:
#
# $$D_\text{hidden} = x A - s_\text{hidden} (L \odot L) + s_\text{output} B,
#   \qquad D_\text{output} = s_\text{hidden} W .$$
#
# `inject` is the part of the drive that the input alone decides; it is computed once for
# a batch. `rest` is where the network starts from.


# %%
def compete(params, injection, rates):
    """Returns the drive of both layers."""
    hidden, output = rates['hidden'], rates['output']
    others = 1 - jnp.eye(NUM_HIDDEN)
    return {
        'hidden': injection
        - hidden @ (params['lateral'] ** 2 * others)
        + output @ params['back'],
        'output': hidden @ params['forward'],
    }


inhibition = ep.systems.from_drive(
    compete,
    init=random_weights(
        {
            'in': (64, NUM_HIDDEN),
            'lateral': (NUM_HIDDEN, NUM_HIDDEN),
            'forward': (NUM_HIDDEN, 10),
            'back': (10, NUM_HIDDEN),
        }
    ),
    inject=lambda params, x: pixels(x) @ params['in'],
    rest=lambda h: zeros(h, hidden=NUM_HIDDEN, output=10),
    activation='sigmoid',
)

# %% [markdown]
# ## 2. An energy: a Hopfield network
#
# One population of units, all connected to all. Ten of them are read as the output.
# Hopfield's energy of graded neurons (1984), with $\rho$ a sigmoid and $W$ made symmetric:
#
# $$E(u) = \tfrac12 \lVert u \rVert^2 - \tfrac12 \, \rho(u)^\top W \rho(u)
#          - (x A) \cdot \rho(u) .$$
#
# The state is $u$ itself, so that `predict` has to say what the output is. This is the
# kind of network that equilibrium propagation was first written for (Scellier and Bengio
# 2017).

# %%
rho = ep.systems.ACTIVATIONS['sigmoid'].fn


def hopfield_energy(params, x, state):
    """Returns the energy of every example."""
    s = rho(state['units'])
    symmetric = (params['all'] + params['all'].T) / 2
    own = jnp.sum(state['units'] ** 2, axis=1) / 2
    mutual = jnp.sum(s * (s @ symmetric), axis=1) / 2
    return own - mutual - jnp.sum(s * (pixels(x) @ params['in']), axis=1)


NUM_UNITS = NUM_HIDDEN + 10
hopfield = ep.systems.from_energy(
    hopfield_energy,
    init=random_weights({'in': (64, NUM_UNITS), 'all': (NUM_UNITS, NUM_UNITS)}),
    rest=lambda x: zeros(x, units=NUM_UNITS),
    predict=lambda params, state: rho(state['units'][:, -10:]),
)

# %% [markdown]
# ## 3. A scalar: units that multiply
#
# Something less usual. Two populations see the image, and reach the output only through
# their *product*: each pair is a gate.
#
# $$\Phi = s_\text{left} \cdot (x A) + s_\text{right} \cdot (x B)
#        + s_\text{output} \cdot \big( (s_\text{left} \odot s_\text{right}) \, W \big) .$$
#
# The drives follow by differentiation, which the package does: a left unit hears the
# output's message multiplied by the rate of its right partner. The Jacobian is symmetric,
# as that of every $\Phi$, but it changes with the state.


# %%
def gates(params, x, rates):
    """Returns the primitive of every example."""
    left, right = rates['left'], rates['right']
    gated = (left * right) @ params['forward']
    return (
        jnp.sum(left * (pixels(x) @ params['in_left']), axis=1)
        + jnp.sum(right * (pixels(x) @ params['in_right']), axis=1)
        + jnp.sum(rates['read'] * gated, axis=1)
    )


gated = ep.systems.from_primitive(
    gates,
    init=random_weights(
        {
            'in_left': (64, NUM_HIDDEN),
            'in_right': (64, NUM_HIDDEN),
            'forward': (NUM_HIDDEN, 10),
        }
    ),
    rest=lambda x: zeros(x, left=NUM_HIDDEN, right=NUM_HIDDEN, read=10),
    activation='sigmoid',
    predict=lambda params, rates: rates['read'],
)

SYSTEMS = {
    'lateral inhibition': inhibition,
    'Hopfield energy': hopfield,
    'gates': gated,
}

# %% [markdown]
# ## Do the gradients come out right?
#
# Three independent checks at random weights.
#
# 1. **A dense solve.** Write the Jacobian $J = \partial D/\partial s$ down as a matrix and
#    solve $(J^\top - \Lambda)\, \delta = g$ for the error vector with numpy, where
#    $\Lambda = \mathrm{diag}(1/\sigma')$ and $g = \partial C/\partial s$.
# 2. **Finite differences.** Move all weights a little along a random direction $v$, let
#    the network settle again, and look at the cost:
#    $\big(C(\theta + \epsilon v) - C(\theta - \epsilon v)\big) / 2 \epsilon$ has to be
#    $v \cdot \nabla C$.
# 3. **Symmetry.** Without correction, nudging is right where $J$ is symmetric, and only
#    there (Scellier and others 2018, Theorem 1). The correction takes
#    $(J - J^\top)(s - s^*)$ from the nudged dynamics, which then respond as those of
#    $J^\top$ do ([where does the bias come from?](where_does_the_bias_come_from.ipynb)).
#
# Nudges are imaginary here, $\beta = ir$: one phase, and $\delta \approx
# \mathrm{Im}\, s(ir) / r$ with nothing subtracted.

# %%
data = ep.data.load('digits', num_train=100 if SMALL else None)
preprocess = ep.data.normalizer(data, 'standard')
train, test = ep.data.to_device(data.train), ep.data.to_device(data.test)


def examples(split, positions):
    """Returns images and one-hot targets, in double precision."""
    batch = ep.data.take(split, positions, preprocess, data.num_classes)
    return ep.Batch(batch.x.astype(float), batch.y.astype(float))


few = examples(train, jnp.arange(4))
solve = ep.solvers.relaxation(step_size=0.25, tol=1e-12, max_steps=5000)
each = jax.vmap(lambda tree: ravel_pytree(tree)[0])  # one row for each example


def check(system, params):
    """Returns J of an image, slopes by both ways, and distances to the dense solve."""
    free = jax.jit(lambda: ep.relax(system, params, few.x, solve))()
    assert free.converged.all()

    @jax.jit
    def cost(params):
        rates = ep.relax(system, params, few.x, solve).rates
        return jnp.mean(system.cost(params, rates, few.y))

    keys = jax.random.split(jax.random.key(1), 4 if SMALL else 12)
    ways = [ep.tree.random_normal(key, params) for key in keys]
    ways = [ep.tree.scale(1 / ep.tree.norm(way), way) for way in ways]
    shift = 1e-4
    differences = [
        (
            cost(ep.tree.add(params, ep.tree.scale(shift, way)))
            - cost(ep.tree.sub(params, ep.tree.scale(shift, way)))
        )
        / (2 * shift)
        for way in ways
    ]
    slopes, errors = {}, {}
    for correction in (None, 'antisymmetric'):
        estimate = ep.estimators.contour(
            system, solve, contour=ep.nudges.complex_step(1e-5), correction=correction
        )
        found = jax.jit(estimate)(params, few, free, None)
        slopes[correction] = [float(ep.tree.vdot(way, found.grads)) for way in ways]
        errors[correction] = np.asarray(each(found.error))

    J = np.asarray(ep.jacobian.dense(system, params, few.x, free.rates))
    diagonal = 1 / np.asarray(each(ep.dynamics.slopes(system, free.state)))
    g = np.asarray(each(ep.dynamics.cost_gradient(system, params, few.y)(free.rates)))
    matrices = J.swapaxes(1, 2) - diagonal[:, None] * np.eye(J.shape[1])
    solved = np.linalg.solve(matrices, g[..., None])[..., 0]
    distances = [
        float(np.linalg.norm(error - solved) / np.linalg.norm(solved))
        for error in errors.values()
    ]
    return J[0], np.array(differences), slopes, distances


# %%
start, checked = {}, {}
print(f'{"":22s}{"symmetric":>12s}{"error of δ against the dense solve":>38s}')
print(f'{"":22s}{"share of J":>12s}{"plain":>19s}{"corrected":>19s}')
for name, system in SYSTEMS.items():
    start[name] = system.init(jax.random.key(0), few.x)
    J, differences, slopes, (plain, corrected) = check(system, start[name])
    checked[name] = J, differences, slopes
    share = float(ep.jacobian.share(J))
    print(f'{name:22s}{share:12.3f}{plain:19.1e}{corrected:19.1e}')
    assert corrected < 1e-6
    assert np.allclose(slopes['antisymmetric'], differences, rtol=1e-4, atol=1e-8)

# %%
figure, axes = plt.subplots(2, 3, figsize=(9, 6), layout='constrained')
for column, (name, (J, differences, slopes)) in enumerate(checked.items()):
    above, below = axes[:, column]
    most = np.quantile(np.abs(J[~np.eye(len(J), dtype=bool)]), 0.98)
    picture = above.imshow(J, cmap='PuOr', vmin=-most, vmax=most)
    above.set_title(f'{name}: J', fontsize=10)
    above.set_xlabel('from unit')
    figure.colorbar(picture, ax=above, shrink=0.7, extend='both')
    limits = 1e3 * np.array([differences.min(), differences.max()])
    below.plot(limits, limits, color='0.7', linewidth=0.8, zorder=0)
    for correction, label, mark, colour in (
        (None, 'plain', 's', PLAIN),
        ('antisymmetric', 'corrected', '.', CORRECTED),
    ):
        found = 1e3 * np.array(slopes[correction])
        below.plot(1e3 * differences, found, mark, color=colour, label=label)
    below.set_xlabel('slope by finite differences (10⁻³)')
axes[0, 0].set_ylabel('to unit')
axes[1, 0].set_ylabel('slope by nudging (10⁻³)')
axes[1, 0].legend(frameon=False, fontsize=8)
for axis in axes[1]:
    style.strip(axis)

# %% [markdown]
# Above: how much the drive of one unit changes with the rate of another, for one image,
# units numbered layer by layer in the order of their names. (The largest entries are off
# the scale.) Below: each mark is a random direction in the space of all weights. The
# energy and the scalar have a Jacobian that is its own mirror image, and both estimates
# lie on the line. That of lateral inhibition is not, and only the corrected estimate is
# the gradient.
#
# ## Training them
#
# The same loop for all three. The correction is switched on where there is something to
# correct; for the others it would cost time and change nothing.

# %%
NUM_EPOCHS, BATCH_SIZE = (1 if SMALL else 8), 50
STEPS = train.size // BATCH_SIZE
quick = ep.solvers.relaxation(step_size=0.25, tol=1e-4, max_steps=200)
everything = examples(test, jnp.arange(test.size))
optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(3e-3))


def train_it(system, params, correction):
    """Returns the test error after every epoch."""
    estimate = ep.estimators.contour(
        system,
        quick,
        contour=ep.nudges.complex_step(1e-3),
        correction=correction,
        skip_unconverged=True,
    )

    def step(carry, positions):
        params, memory = carry
        batch = examples(train, positions)
        free = ep.relax(system, params, batch.x, quick)
        grads = estimate(params, batch, free, None).grads
        updates, memory = optimizer.update(grads, memory, params)
        return (optax.apply_updates(params, updates), memory), None

    @jax.jit
    def epoch(params, memory, number):
        order = ep.data.epoch_order(jax.random.key(2), number, train.size)
        batches = order[: STEPS * BATCH_SIZE].reshape(STEPS, BATCH_SIZE)
        return jax.lax.scan(step, (params, memory), batches)[0]

    @jax.jit
    def error(params):
        rates = ep.relax(system, params, everything.x, quick).rates
        answers = jnp.argmax(system.predict(params, rates), axis=1)
        return jnp.mean(answers != test.labels)

    memory, errors = optimizer.init(params), [float(error(params))]
    for number in range(NUM_EPOCHS):
        params, memory = epoch(params, memory, number)
        errors.append(float(error(params)))
    return errors


errors = {
    name: train_it(system, start[name], None if system.primitive else 'antisymmetric')
    for name, system in SYSTEMS.items()
}

# %%
figure, axis = plt.subplots(figsize=(5, 3), layout='constrained')
for index, (name, curve) in enumerate(errors.items()):
    axis.semilogy(
        100 * np.array(curve),
        marker=style.MARKERS[index],
        markersize=4,
        color=(style.PURPLE, style.GREEN, style.RED)[index],
        label=name,
    )
axis.set_yticks([2, 5, 10, 20, 50, 100], ['2', '5', '10', '20', '50', '100'])
axis.minorticks_off()
axis.set_xlabel('epochs')
axis.set_ylabel('test error (%)')
axis.legend(frameon=False, fontsize=9)
style.strip(axis)
for name, curve in errors.items():
    print(f'{name:20s}{100 * curve[-1]:5.1f} % of the test images wrong')

# %% [markdown]
# ## When it does not fit
#
# What cannot work is refused by name. Two mistakes that are easily made: a modulus has no
# place in a system that complex nudges are to move, and a cost or an energy is one number
# for *each* example, not for the batch.

# %%
crooked = ep.systems.from_drive(
    lambda params, injection, rates: {'output': injection - jnp.abs(rates['output'])},
    init=random_weights({'in': (64, 10)}),
    inject=lambda params, x: pixels(x) @ params['in'],
    rest=lambda h: zeros(h, output=10),
)
summed = ep.systems.from_energy(
    lambda params, x, state: jnp.sum(state['units'] ** 2),
    init=random_weights({'in': (64, 10)}),
    rest=lambda x: zeros(x, units=10),
)
for system in (crooked, summed):
    params = system.init(jax.random.key(0), few.x)
    try:
        free = ep.relax(system, params, few.x, quick)
        contour = ep.nudges.complex_step(1e-3)
        ep.estimators.contour(system, quick, contour=contour)(params, few, free, None)
    except (TypeError, ValueError) as mistake:
        print(f'{type(mistake).__name__}: {mistake}\n')

# %% [markdown]
# What helps when a system of your own does not settle: a smaller `step_size` of the
# solver, weights that start smaller, or `ep.solvers.anderson`. `free.residual` and
# `info.converged` say where it stands, and `skip_unconverged=True` leaves examples out
# that do not settle.
#
# **Sources.** J. Hopfield 1984, [Neurons with graded response have collective
# computational properties like those of two-state
# neurons](https://doi.org/10.1073/pnas.81.10.3088). B. Scellier and Y. Bengio 2017,
# [Equilibrium propagation](https://arxiv.org/abs/1602.05179). B. Scellier and others
# 2018, [Generalization of equilibrium propagation to vector field
# dynamics](https://arxiv.org/abs/1808.04873). Scurria and others 2026, [antisymmetric
# correction](https://arxiv.org/abs/2602.03670).
