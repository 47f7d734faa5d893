"""How it settles: factories that return solve(field, state) -> Equilibrium."""

from eqprop_jax.solvers._aitken import aitken as aitken
from eqprop_jax.solvers._anderson import anderson as anderson
from eqprop_jax.solvers._relaxation import relaxation as relaxation
from eqprop_jax.solvers._unrolled import unrolled as unrolled
