"""How the error of corrected contours falls with the radius, in two precisions."""

from collections.abc import Sequence
from typing import Any

from eqprop_jax.analysis import convergence
from experiments.exhibits.network import Network, plain, single


def convergence_data(
    network: Network,
    *,
    radii: Sequence[float],
    num_points: Sequence[int] = (1, 2, 4, 6, 8),
) -> dict[str, Any]:
    """Returns the error of corrected contours over the radius, in two precisions.

    Args:
      network: in float64.
      radii: r, rising.
      num_points: N.
    """
    exact = network.exact()
    panels = {}
    for name, net in (('float32', single(network)), ('float64', network)):
        errors = convergence.by_radius(
            *net, reference=exact, radii=radii, num_points=num_points
        )
        orders = convergence.orders(errors, radii)
        panels[name] = {
            'errors': {curve: plain(values) for curve, values in errors.items()},
            'orders': {curve: round(order, 3) for curve, order in orders.items()},
        }
    return {'radii': plain(radii), 'panels': panels}
