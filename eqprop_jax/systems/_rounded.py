"""Precision: a system whose products are taken at the precision hardware is fastest at.

    precision    what a product reads of either factor       units
    float32      all of it
    tf32         11 bits                                      GPUs since 2020
    bfloat16      8 bits                                      GPUs, TPUs, some CPUs

State, sums and parameters stay as they are, and so do the input's part of the drive,
which is computed once, and the cost. Complex factors are rounded in their real and
imaginary parts, each relative to its own size, and under a nudge products are of what
it has changed (`program.around`): a response loses as much of itself as a factor does,
however small the nudge is.

    free phase, u*              off by about the rounding of a factor, 2⁻⁸ in bfloat16
    δ                           the same, relative to δ in every layer
"""

from collections.abc import Callable

import jax

from eqprop_jax._precision import FULL, Way, check, taken
from eqprop_jax.types import Injection, Params, Rates, State, System


def rounded(
    system: System, precision: str, *, convolution: str | None = None
) -> System:
    """Returns the system with the products of its drive at a precision.

    Those of `eqprop_jax.linear` are rounded on every machine; a drive of your own that
    multiplies in another way is, where JAX's own `default_matmul_precision` has a say.
    Products inside of `jax.checkpoint`, branches, loops and custom derivatives are
    rounded as they stand, not by what a nudge has changed.

    Args:
      system: what moves.
      precision: 'float32', 'tf32' or 'bfloat16'.
      convolution: how they are written: 'native' or 'patches', see `precision.Way`;
        None: as is fastest on the machine.

    Raises:
      ValueError: for an unknown name, or a system that has been through this already.
    """
    check(precision, convolution)
    if system.way != FULL:
        raise ValueError(
            f'the system has its way already, {system.way}: pass the original'
        )
    way = Way(precision, convolution)
    if way == FULL:
        return system
    own = {'float32': 'float32', 'tf32': 'tensorfloat32', 'bfloat16': 'bfloat16'}

    def drive(params: Params, injection: Injection, rates: Rates) -> State:
        with taken(*way), jax.default_matmul_precision(own[precision]):
            return system.drive(params, injection, rates)

    def likewise(make: Callable[..., System] | None) -> Callable[..., System] | None:
        return make and (lambda *args: rounded(make(*args), precision, **options))

    options = {'convolution': convolution}
    return system._replace(drive=drive, way=way, thin=likewise(system.thin))
