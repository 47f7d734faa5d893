"""Whom to credit: factories that return estimate(params, batch, free, rng)."""

from eqprop_jax.estimators.bptt import bptt as bptt
from eqprop_jax.estimators.contour import contour as contour
from eqprop_jax.estimators.contrastive import contrastive as contrastive
from eqprop_jax.estimators.dropout import dropout as dropout
from eqprop_jax.estimators.implicit import recurrent_backprop as recurrent_backprop
from eqprop_jax.estimators.implicit import tangent as tangent
from eqprop_jax.estimators.local_rule import local_gradient as local_gradient
from eqprop_jax.estimators.oscillation import Oscillation as Oscillation
from eqprop_jax.estimators.oscillation import Stream as Stream
from eqprop_jax.estimators.oscillation import oscillation as oscillation
