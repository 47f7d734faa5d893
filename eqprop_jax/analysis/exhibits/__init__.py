"""What the figures of the analysis show, measured on one network.

Each `*_data` function returns plain values, as JSON has them, for the figure of the
same name in `eqprop_jax.figures`. References are in float64, which has to be enabled.
"""

from eqprop_jax.analysis.exhibits.convergence import (
    convergence_data as convergence_data,
)
from eqprop_jax.analysis.exhibits.jacobians import jacobians_data as jacobians_data
from eqprop_jax.analysis.exhibits.network import Network as Network
from eqprop_jax.analysis.exhibits.network import settle as settle
from eqprop_jax.analysis.exhibits.network import single as single
from eqprop_jax.analysis.exhibits.order import order_data as order_data
from eqprop_jax.analysis.exhibits.oscillation import (
    oscillation_data as oscillation_data,
)
from eqprop_jax.analysis.exhibits.processes import processes_data as processes_data
from eqprop_jax.analysis.exhibits.two_biases import turning as turning
from eqprop_jax.analysis.exhibits.two_biases import two_biases_data as two_biases_data
