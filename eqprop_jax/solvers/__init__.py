"""How it settles: factories that return solve(field, state) -> Equilibrium."""

from eqprop_jax.solvers.aitken import aitken as aitken
from eqprop_jax.solvers.anderson import anderson as anderson
from eqprop_jax.solvers.relaxation import relaxation as relaxation
from eqprop_jax.solvers.unrolled import unrolled as unrolled
