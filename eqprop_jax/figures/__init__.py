"""Figures: from records to pictures; nothing here trains."""

from eqprop_jax.figures import bias as bias
from eqprop_jax.figures import curves as curves
