"""Configurations: what they may hold, and the runs that are built from them.

The only readers of ConfigDict. A file of one needs no more than `defaults` and
`variants`.
"""

from eqprop_jax.config import defaults as defaults
from eqprop_jax.config import registry as registry
from eqprop_jax.config import variants as variants
from eqprop_jax.config.build import experiment as experiment
from eqprop_jax.config.plugins import register_cost as register_cost
from eqprop_jax.config.plugins import register_estimator as register_estimator
from eqprop_jax.config.plugins import register_solver as register_solver
from eqprop_jax.config.plugins import register_system as register_system
from eqprop_jax.config.rebuilt import bias_methods as bias_methods
from eqprop_jax.config.rebuilt import other_solver as other_solver
from eqprop_jax.config.rebuilt import restored as restored
from eqprop_jax.config.schema import ConfigError as ConfigError
