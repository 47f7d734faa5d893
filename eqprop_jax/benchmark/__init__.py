"""What a step of training costs: networks, methods, and how both are measured."""

from eqprop_jax.benchmark import communication as communication
from eqprop_jax.benchmark import devices as devices
from eqprop_jax.benchmark import digits as digits
from eqprop_jax.benchmark import measure as measure
from eqprop_jax.benchmark import methods as methods
from eqprop_jax.benchmark import networks as networks
from eqprop_jax.benchmark import references as references
from eqprop_jax.benchmark import report as report
from eqprop_jax.benchmark import settings as settings
