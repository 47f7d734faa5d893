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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/eqprop-jax/eqprop_jax/blob/main/notebooks/where_does_the_bias_come_from.ipynb)

# %%
# On Colab: install the package, unless it is there.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec('eqprop_jax') is None and 'google.colab' in sys.modules:
    source = 'git+https://github.com/eqprop-jax/eqprop_jax'
    subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', source], check=True)

# %% [markdown]
# # Where does the bias come from?
#
# Equilibrium propagation measures how a settled network moves when its output is nudged
# ([quick start](quick_start.ipynb)). From that it reads the gradient off by the local
# rule, which is exact for the exact error vector $\delta$. What is measured is not quite
# $\delta$, for two reasons that have nothing to do with each other:
#
# * the nudge is **finite**, and the response to it is not a straight line;
# * the network is **asymmetric**: what $i$ does to $j$ is not what $j$ does to $i$.
#
# This notebook takes them apart. With $J = \partial D / \partial s$ the Jacobian of the
# drive at the free equilibrium, $\Lambda = \mathrm{diag}(1/\sigma')$ and
# $g = \partial C / \partial s$, an infinitely small nudge measures the first of these
# error vectors, and the exact gradient needs the second (Scellier and others 2018;
# Laborieux and Zenke 2024):
#
# $$(J - \Lambda)\, \delta_\text{EP} = g, \qquad
#   (J^\top - \Lambda)\, \delta = g .$$
#
# The asymmetry is the distance from $\delta_\text{EP}$ to $\delta$. A finite nudge
# measures $\hat\delta$, at some distance from $\delta_\text{EP}$. (Phases that are stopped
# before they have settled add a third one, below.)

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import eqprop_jax as ep
from eqprop_jax.figures import style

jax.config.update('jax_enable_x64', True)  # small errors need many digits

SMALL = bool(os.environ.get('EQPROP_SMALL'))  # a short version, for tests

# %% [markdown]
# The network has three layers that settle, and random weights. With *tied* feedback the
# way back is the transpose of the way forward, $J$ is symmetric, and only the nudge is
# left to err. With *free* feedback we choose the angle between the two. Both are looked
# at on a few handwritten digits. (The weights are a little smaller than usual: a tied
# network with large random weights is close to losing its equilibrium, and any nudge is
# a large one.)

# %%
NUM_IMAGES = 4 if SMALL else 16
SIZES = (64, 16, 16, 10) if SMALL else (64, 64, 32, 10)
data = ep.data.load('digits')
preprocess = ep.data.normalizer(data, 'standard')
batch = ep.data.take(
    ep.data.to_device(data.train), jnp.arange(NUM_IMAGES), preprocess, 10
)
batch = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), batch)

tied, free_feedback = (
    ep.systems.mlp(SIZES, feedback=feedback, cost='squared_error')
    for feedback in ('tied', 'free')
)
solve = ep.solvers.relaxation(tol=1e-13, max_steps=2000)
LAYERS = ('layer_1', 'layer_2', 'layer_3')


def initial(system, seed):
    """Returns random weights."""
    return ep.tree.scale(0.7, system.init(jax.random.key(seed), batch.x))


def settle(system, params):
    """Returns the free equilibrium, which every image has to reach."""
    free = jax.jit(lambda: ep.relax(system, params, batch.x, solve))()
    assert free.converged.all()
    return free


def exact_error(system, params, free):
    """Returns the exact error vector, by recurrent backprop."""
    exact = ep.estimators.recurrent_backprop(system, tol=1e-13, max_steps=2000)
    return jax.jit(exact)(params, batch, free, None).error


# %% [markdown]
# ## First cause: the finite nudge
#
# How good a slope is depends on how one takes it. All the usual ways are weighted sums
# over nudges $\beta_k$ on a circle of radius $r = |\beta|$ (Laborieux and Zenke 2022):
#
# $$\hat\delta = \frac1N \sum_{k=0}^{N-1} \frac{s(r \omega_k)}{r \omega_k},
#   \qquad \omega_k = e^{2 \pi i k / N}, \qquad
#   \hat\delta - \delta_\text{EP} = O(r^N) .$$
#
# $N = 1$ is the *one-sided* nudge (with $s^*$ taken off) and $N = 2$ the *symmetric* one,
# $\pm r$. More points are complex. The network then settles in complex numbers, which
# works as long as its equations are analytic; this is *holomorphic* equilibrium
# propagation. The sum is Cauchy's integral for the derivative, by the trapezoidal rule.
#
# Here is the error of $\hat\delta$ against recurrent backprop, over the radius. The tied
# network first; then one whose feedback stands at 90° to the transposes; then the same
# with the *antisymmetric correction*, of which more below.

# %%
radii = [10 ** (power / 3) for power in range(-9, 1, 3 if SMALL else 1)]
POINTS = (1, 2, 4, 6)

params = initial(tied, 0)
turned = ep.alignment.rotate_feedback(
    free_feedback, initial(free_feedback, 0), jax.random.key(1), 90.0
)
cases = {
    'tied: J symmetric': (tied, params, None),
    'feedback at 90°': (free_feedback, turned, None),
    'feedback at 90°, corrected': (free_feedback, turned, 'antisymmetric'),
}
panels = {}
for title, (system, weights, correction) in cases.items():
    free = settle(system, weights)
    panels[title] = ep.analysis.convergence.by_radius(
        system,
        weights,
        batch,
        free,
        solve,
        reference=exact_error(system, weights, free),
        radii=radii,
        num_points=POINTS,
        correction=correction,
    )

# %%
LABELS = {1: 'one-sided, N = 1', 2: 'symmetric, N = 2', 4: 'holomorphic, N = 4'}
LABELS[6] = 'holomorphic, N = 6'
COLOURS = style.NUDGES
MARKERS = dict(zip(POINTS, style.MARKERS, strict=False))

figure, axes = plt.subplots(
    1, 3, figsize=(10, 3.6), sharex=True, sharey=True, layout='constrained'
)
for axis, (title, errors) in zip(axes, panels.items(), strict=True):
    for count in POINTS:
        axis.loglog(
            radii,
            errors[f'N = {count}'],
            color=COLOURS[count],
            marker=MARKERS[count],
            markersize=4,
            label=LABELS[count],
        )
    axis.set_title(title, fontsize=10)
    axis.set_xlabel('size of the nudge |β|')
    axis.grid(color='0.93')
axes[0].set_ylabel('relative error of δ')
axes[0].set_ylim(1e-13, 30)
axes[2].legend(frameon=False, fontsize=8, loc='lower right')
for axis in axes:
    style.strip(axis)

# %% [markdown]
# **Left.** Each way has the slope that it should have, until it meets the tolerance of
# the solver. A large circle with many points is as good as a tiny nudge, and easier to
# measure. Near $|\beta| = 1$ nothing is: the series in $\beta$ no longer converges.
#
# **Middle.** All curves end on the same shelf. Making the nudge smaller or taking more
# points does nothing, because the limit itself is wrong: $J$ is not $J^\top$.
#
# **Right.** With the correction the shelf is gone, and the slopes are back.
#
# The cell below measures the slopes.

# %%
print(f'{"":28s}' + ''.join(f'{f"N = {count}":>9s}' for count in POINTS))
for title in ('tied: J symmetric', 'feedback at 90°, corrected'):
    orders = ep.analysis.convergence.orders(panels[title], radii, largest=0.2)
    values = [orders[f'N = {count}'] for count in POINTS]
    print(f'{title:28s}' + ''.join(f'{value:9.2f}' for value in values))
    if not SMALL:
        assert all(abs(v - n) < 0.3 for v, n in zip(values, POINTS, strict=True))
shelf = [panels['feedback at 90°'][f'N = {count}'][0] for count in POINTS]
print('the shelf:', ', '.join(f'{value:.3f}' for value in shelf))

# %% [markdown]
# ## Second cause: the asymmetry
#
# Let us turn the feedback away from the transposes, degree by degree, and look at the
# cosine between the estimated and the exact gradient. The nudges are $\pm 0.05$, small
# enough not to matter. The line is the mean over several random networks, the band goes
# from the least to the largest.
#
# The *antisymmetric correction* (Scurria and others 2026) replaces the field of the
# nudged phases by
#
# $$F(u) - (J - J^\top)(s - s^*) ,$$
#
# with $J$ taken at the free equilibrium. Nothing changes at $s^*$. But the response to a
# nudge is now that of $J - (J - J^\top) = J^\top$: the exact one.

# %%
ANGLES = np.arange(0, 181, 90 if SMALL else 15)
SEEDS = range(1 if SMALL else 5)
quick = ep.solvers.relaxation(tol=1e-9, max_steps=1000)
estimators = {
    name: ep.estimators.contour(
        free_feedback,
        quick,
        contour=ep.nudges.symmetric(0.05),
        correction=correction,
    )
    for name, correction in (('plain', None), ('corrected', 'antisymmetric'))
}
exact = ep.estimators.recurrent_backprop(free_feedback, tol=1e-9, max_steps=1000)


@jax.jit
def cosines(params):
    """Returns the cosines to the exact gradient and, layer by layer, of δ."""
    free = ep.relax(free_feedback, params, batch.x, quick)
    wanted = exact(params, batch, free, None)
    whole, parts = {}, {}
    for name, estimate in estimators.items():
        found = estimate(params, batch, free, None)
        whole[name] = ep.tree.cosine(found.grads, wanted.grads)
        parts[name] = [
            ep.tree.cosine(found.error[layer], wanted.error[layer]) for layer in LAYERS
        ]
    return whole, parts, free.converged.all()


measured = []
for seed in SEEDS:
    start = initial(free_feedback, seed)
    for angle in ANGLES:
        weights = ep.alignment.rotate_feedback(
            free_feedback, start, jax.random.key(100 + seed), float(angle)
        )
        whole, parts, converged = jax.device_get(cosines(weights))
        assert converged
        measured.append((whole, parts))


def table(values):
    """Returns the values as an array with an axis for seeds and one for angles."""
    values = np.array(values)
    return values.reshape(len(SEEDS), len(ANGLES), *values.shape[1:])


# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout='constrained')


def band(axis, values, colour, label, marker):
    """Draws the mean over seeds, and the range."""
    axis.fill_between(ANGLES, values.min(0), values.max(0), color=colour, alpha=0.2)
    axis.plot(
        ANGLES, values.mean(0), color=colour, label=label, marker=marker, markersize=4
    )


METHODS = {'plain': style.ORANGE, 'corrected': style.BLUE}
for (name, colour), marker in zip(METHODS.items(), style.MARKERS, strict=False):
    band(left, table([whole[name] for whole, _ in measured]), colour, name, marker)
left.set_ylabel('cosine of the gradient')
left.set_title('the whole gradient', fontsize=10)
by_layer = table([parts['plain'] for _, parts in measured])
shades = (style.PURPLE, style.GREEN, style.SKY)
for index, layer in enumerate(LAYERS):
    label = layer.replace('_', ' ')
    band(right, by_layer[..., index], shades[index], label, style.MARKERS[index])
right.set_ylabel('cosine of the error vector δ')
right.set_title('plain, layer by layer', fontsize=10)
for axis in (left, right):
    axis.axhline(0, color='0.8', linewidth=0.7, zorder=0)
    axis.set_xticks(np.arange(0, 181, 45))
    axis.set_xlabel('angle between feedback and transposes (degrees)')
    axis.set_ylim(-1.05, 1.05)
    axis.legend(frameon=False, fontsize=8, loc='lower left')
    style.strip(axis)

# %% [markdown]
# Plain equilibrium propagation is exact at 0° and gets worse as the feedback turns away.
# The error comes in at the top, where its direction is right at any angle, and goes down
# through the feedback. At 90° the two lower layers hear next to nothing of use. At 180°
# every synapse that it passes turns its sign around: once on the way to the second layer,
# twice on the way to the first. The correction does not mind the angle.
#
# Laborieux and Zenke 2024 (Fig. 3) train networks that start from such angles.

# %% [markdown]
# ## A report on any network
#
# `ep.analysis.bias` does this for a network of yours. Each estimate is compared with
# recurrent backprop, and the way between them is cut where the theory cuts it:
#
# $$\hat\delta - \delta =
#   \underbrace{(\hat\delta - \hat\delta_\text{settled})}_{\text{settling}} +
#   \underbrace{(\hat\delta_\text{settled} - \delta_\text{limit})}_{\text{finite nudge}} +
#   \underbrace{(\delta_\text{limit} - \delta)}_{\text{asymmetry}} .$$
#
# *Settling* is what the solver's tolerance leaves. Here is a network at 60°, with nudges
# of 0.3 and a tolerance as one might train with.

# %%
weights = ep.alignment.rotate_feedback(free_feedback, turned, jax.random.key(2), 60.0)
loose = ep.solvers.relaxation(tol=1e-4, max_steps=1000)
one_sided, symmetric, circle = (
    ep.nudges.one_sided(0.3),
    ep.nudges.symmetric(0.3),
    ep.nudges.circle(0.3, 4),
)
methods = {
    name: ep.analysis.methods.contour_method(
        free_feedback, loose, solve, contour=contour, correction=correction
    )
    for name, contour, correction in (
        ('one-sided', one_sided, None),
        ('symmetric', symmetric, None),
        ('circle N = 4', circle, None),
        ('one-sided, corrected', one_sided, 'antisymmetric'),
        ('circle N = 4, corrected', circle, 'antisymmetric'),
    )
}
report = ep.analysis.bias(
    free_feedback,
    weights,
    batch,
    loose,
    settled=solve,
    methods=methods,
)
print(f'symmetric share of J    {report.symmetric_share:.3f}')
print(f'spectral radius         {report.spectral_radius:.3f}')
print(f'angle of the feedback   {report.angles["overall"]:.1f}°\n')
for method in report.methods.values():
    print(method.sentence)

# %% [markdown]
# The symmetric share is $\lVert S \rVert / (\lVert S \rVert + \lVert A \rVert)$ of the
# symmetric and the antisymmetric part of $J$, 1 for a symmetric one. Below a spectral
# radius of 1, that of $J \Lambda^{-1}$, the network settles by plain sweeps.

# %%
CAUSES = {
    'settling': (style.SKY, 'o'),
    'nudge': (style.ORANGE, '^'),
    'asymmetry': (style.RED, 's'),
}
figure, axis = plt.subplots(figsize=(7.5, 2.8), layout='constrained')
names = list(report.methods)
rows = np.arange(len(names))
total = [100 * method.error['total'] for method in report.methods.values()]
axis.plot(total, rows, 'k|', markersize=20, label='whole error', zorder=1)
for cause, (colour, marker) in CAUSES.items():
    parts = [100 * getattr(m, cause)['total'] for m in report.methods.values()]
    axis.plot(parts, rows, marker, color=colour, label=cause)
axis.set_xscale('log')
axis.set_yticks(rows, names)
axis.set_ylim(len(names) - 0.5, -0.5)
axis.grid(axis='y', color='0.93')
axis.set_xlabel('relative to |δ| (%)')
axis.legend(frameon=False, fontsize=8, loc='upper left', bbox_to_anchor=(1, 1))
style.strip(axis)

# %% [markdown]
# A row without a red square has no error by asymmetry. The parts are lengths of vectors,
# which is why they do not simply add up to the whole. For a run in a folder,
# `launch/diagnose.py --workdir=...` makes the same report, and draws it.
#
# How to *train* without symmetric weights is the subject of [homeostasis and
# correction](homeostasis_and_correction.ipynb).
#
# **Sources.** B. Scellier and others 2018, [Generalization of equilibrium propagation to
# vector field dynamics](https://arxiv.org/abs/1808.04873), Theorem 1. A. Laborieux and
# others 2021, [symmetric nudges](https://arxiv.org/abs/2006.03824). A. Laborieux and F.
# Zenke 2022, [Holomorphic equilibrium propagation](https://arxiv.org/abs/2209.00530). A.
# Laborieux and F. Zenke 2024, [Improving equilibrium propagation without weight symmetry
# through Jacobian homeostasis](https://arxiv.org/abs/2309.02214). Scurria and others
# 2026, [antisymmetric correction](https://arxiv.org/abs/2602.03670).
