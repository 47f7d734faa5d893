"""Whom to credit: factories that return estimate(params, batch, free, rng)."""

from eqprop_jax.estimators._bptt import bptt as bptt
from eqprop_jax.estimators._contour import contour as contour
from eqprop_jax.estimators._contrastive import contrastive as contrastive
from eqprop_jax.estimators._dropout import dropout as dropout
from eqprop_jax.estimators._implicit import recurrent_backprop as recurrent_backprop
from eqprop_jax.estimators._implicit import tangent as tangent
from eqprop_jax.estimators._local_rule import local_gradient as local_gradient
from eqprop_jax.estimators._oscillation import Oscillation as Oscillation
from eqprop_jax.estimators._oscillation import Stream as Stream
from eqprop_jax.estimators._oscillation import oscillation as oscillation
