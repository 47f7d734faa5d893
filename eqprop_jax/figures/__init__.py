"""Figures: from records to pictures; nothing here trains."""

from eqprop_jax.figures import bias as bias
from eqprop_jax.figures import convergence as convergence
from eqprop_jax.figures import curves as curves
from eqprop_jax.figures import oscillation as oscillation
from eqprop_jax.figures import processes as processes
