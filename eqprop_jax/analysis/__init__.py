"""What biases a gradient: by cause, by order of convergence, and step by step."""

from eqprop_jax.analysis import convergence as convergence
from eqprop_jax.analysis import disc as disc
from eqprop_jax.analysis import layers as layers
from eqprop_jax.analysis import methods as methods
from eqprop_jax.analysis import stability as stability
from eqprop_jax.analysis._bias import bias as bias
from eqprop_jax.analysis._check import Check as Check
from eqprop_jax.analysis._check import check as check
from eqprop_jax.analysis._processes import Processes as Processes
from eqprop_jax.analysis._processes import distances as distances
from eqprop_jax.analysis._processes import processes as processes
from eqprop_jax.analysis._report import Bias as Bias
from eqprop_jax.analysis._report import Report as Report
from eqprop_jax.analysis._report import as_dict as as_dict
from eqprop_jax.analysis.methods import Method as Method
from eqprop_jax.analysis.methods import default_methods as default_methods
