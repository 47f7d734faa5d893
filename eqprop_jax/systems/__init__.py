"""What moves: factories that return a `System` of pure functions."""

from eqprop_jax.systems._activations import ACTIVATIONS as ACTIVATIONS
from eqprop_jax.systems._activations import Activation as Activation
from eqprop_jax.systems._conv import conv as conv
from eqprop_jax.systems._energy import from_drive as from_drive
from eqprop_jax.systems._energy import from_energy as from_energy
from eqprop_jax.systems._energy import from_primitive as from_primitive
from eqprop_jax.systems._layered import feedforward as feedforward
from eqprop_jax.systems._layered import loop as loop
from eqprop_jax.systems._layered import mlp as mlp
from eqprop_jax.systems._leaky import leaky as leaky
from eqprop_jax.systems._predictive_coding import (
    predictive_coding as predictive_coding,
)
from eqprop_jax.systems._rounded import rounded as rounded
