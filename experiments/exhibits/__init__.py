"""What the figures of the analysis show, measured on one network.

Each `*_data` function returns plain values, as JSON has them, for the figure of the
same name in `experiments.figures`. References are in float64, which has to be enabled.
"""

from experiments.exhibits.convergence import convergence_data as convergence_data
from experiments.exhibits.jacobians import jacobians_data as jacobians_data
from experiments.exhibits.network import Network as Network
from experiments.exhibits.network import settle as settle
from experiments.exhibits.network import single as single
from experiments.exhibits.order import order_data as order_data
from experiments.exhibits.oscillation import oscillation_data as oscillation_data
from experiments.exhibits.processes import processes_data as processes_data
from experiments.exhibits.two_biases import turning as turning
from experiments.exhibits.two_biases import two_biases_data as two_biases_data
