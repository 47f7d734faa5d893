"""The settings of the figures: on which networks, at which values each is measured.

All networks look at scikit-learn's digits, so that nothing has to be downloaded.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from eqprop_jax import data
from experiments import exhibits, scaling
from experiments.benchmark import digits

ANGLE = 90.0  # degrees between free feedback and the transposes
ANGLES = [0.0, 30.0, 60.0, 90.0]
MANY = 16  # batches, for densities
DEPTHS = [2, 4, 8, 16]
WIDTH = 64
SMALL = (64, 20, 16, 12, 10)  # whose Jacobian can be looked at
RADII = [10 ** (power / 3) for power in range(-27, 1)]
SWEEPS = [2**power for power in range(8)]  # at each point
PERIODS = [2**power for power in range(9)]
GROWTH = {
    'width': [32, 64, 128, 256, 512],
    'depth': [2, 3, 4, 5, 6],
    'batch_size': [4, 16, 64, 256, 1024],
    'num_points': [2, 4, 6, 8],
    'tol': [1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 1e-4],
}


class NetworkError(ValueError):
    """There is no network of these sizes, or it does not settle."""


class Setting(NamedTuple):
    """What the networks are, and how many values they are measured at."""

    sizes: tuple[int, ...] = (64, 64, 64, 32, 10)
    """From inputs to classes."""
    num_images: int = 16
    """B."""
    seed: int = 0
    """Of the weights and of the noise."""
    num_points: tuple[int, ...] = (1, 2, 4, 6, 8)
    """N, of the circles of `convergence`."""
    points: int = 0
    """Values on a horizontal axis, at most; 0: all."""

    def network(
        self,
        feedback: str = 'free',
        angle: float = ANGLE,
        sizes: Sequence[int] = (),
        batches: int = 1,
    ) -> exhibits.Network:
        """Returns a network at its free equilibrium.

        Args:
          feedback: as in `systems.mlp`.
          angle: of free feedback to the transposes, in degrees.
          sizes: (): those of the setting.
          batches: of `num_images` each.

        Raises:
          NetworkError: if there is none.
        """
        try:
            return digits.network(
                sizes or self.sizes,
                feedback=feedback,
                angle=angle if feedback == 'free' else None,
                num_images=batches * self.num_images,
                seed=self.seed,
            )
        except ValueError as error:
            raise NetworkError(str(error)) from error

    def thinned(self, values: list) -> list:
        """Returns as many of the values as `points` lets pass, the ends among them."""
        count = min(self.points or len(values), len(values))
        places = np.linspace(0, len(values) - 1, count).round().astype(int)
        return [values[place] for place in places]

    def title(self) -> dict[str, Any]:
        """Returns what the network is, for the titles of figures."""
        return {
            'sizes': list(self.sizes),
            'angle': ANGLE,
            'num_images': self.num_images,
            'seed': self.seed,
        }


def fig1(setting: Setting) -> dict[str, Any]:
    """Measures three Jacobians, and the error vectors that come of them."""
    kinds = {'tied': 'tied', f'untied, {ANGLE:g}°': 'free', 'feed-forward': 'none'}
    networks = {
        name: setting.network(feedback=kind, sizes=SMALL)
        for name, kind in kinds.items()
    }
    return {
        'network': setting.title() | {'sizes': list(SMALL)},
        **exhibits.jacobians_data(networks),
    }


def fig2(setting: Setting) -> dict[str, Any]:
    """Measures both biases, and the estimate of a nudge that turns."""
    return exhibits.two_biases_data(
        setting.network(feedback='tied'),
        setting.network(),
        {
            angle: setting.network(angle=angle, batches=MANY)
            for angle in setting.thinned(ANGLES)
        },
        radii=setting.thinned(RADII[-13:]),
    )


def convergence(setting: Setting) -> dict[str, Any]:
    """Measures the error of contours over the radius."""
    return exhibits.convergence_data(
        setting.network(), radii=setting.thinned(RADII), num_points=setting.num_points
    )


def order(setting: Setting) -> dict[str, Any]:
    """Measures the worst layer's error from sweep to sweep, by depth and order."""
    networks = {
        f'{depth} layers': setting.network(sizes=(64, *[WIDTH] * depth, 10))
        for depth in setting.thinned(DEPTHS)
    }
    return {
        'network': setting.title() | {'width': WIDTH},
        **exhibits.order_data(networks),
    }


def oscillation(setting: Setting) -> dict[str, Any]:
    """Measures the online estimator over its patience, and in noise."""
    return exhibits.oscillation_data(
        setting.network(),
        sweeps=setting.thinned(SWEEPS),
        periods=setting.thinned(PERIODS),
        rng=jax.random.key(setting.seed + 1),
    )


def processes(setting: Setting) -> dict[str, Any]:
    """Measures the updates of EP and of BPTT, tied and untied."""
    networks = {'tied': setting.network(feedback='tied'), 'untied': setting.network()}
    return exhibits.processes_data(networks)


def growth(setting: Setting) -> dict[str, Any]:
    """Measures the cost of a gradient as networks, batches and demands grow."""
    found = data.load('digits')
    with jax.enable_x64(False):
        axes = scaling.scaling_data(
            jnp.asarray(found.train.images / found.scale, 'float32'),
            jax.nn.one_hot(found.train.labels, found.num_outputs, dtype='float32'),
            jax.random.key(setting.seed),
            {name: setting.thinned(values) for name, values in GROWTH.items()},
        )
    return {'network': scaling.DEFAULT._asdict(), 'axes': axes}
