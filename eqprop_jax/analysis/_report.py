"""What `analysis.bias` says of a system and of every method, as plain numbers."""

from typing import NamedTuple

WITHOUT_READOUT = 'without_readout'


class Worst(NamedTuple):
    """The layer whose δ̂ is furthest off; the first where none can be compared."""

    layer: str
    error: float
    """|δ̂ − δ| / |δ| there."""
    cosine: float
    """Of δ̂ and δ there."""


class Bias(NamedTuple):
    """How one estimate compares with recurrent backprop; by layer, and in total.

    Ratios are ∞ where the estimate is not finite, NaN where both sides are 0.
    """

    worst: Worst
    cosine: dict[str, float]
    """Of δ̂ and δ."""
    norm_ratio: dict[str, float]
    """|δ̂| / |δ|."""
    gradient_cosine: dict[str, float]
    """Of the gradients, by top-level name of the params; 'without_readout': of all that
    δ enters, without what every method has exactly."""
    gradient_norm_ratio: dict[str, float]
    error: dict[str, float]
    """|δ̂ − δ| / |δ|."""
    settling: dict[str, float]
    """|δ̂ − δ̂_settled| / |δ|."""
    nudge: dict[str, float]
    """|δ̂_settled − δ_limit| / |δ|."""
    asymmetry: dict[str, float]
    """|δ_limit − δ| / |δ|."""
    unsettled: float
    """Fraction of the examples of which a phase did not settle."""
    evaluations: float | None = None
    """Field evaluations an example, mean over the batch; a complex one counts twice."""
    seconds: float | None = None
    """Median wall time of a call for the batch, without the free phase; if measured."""
    sentence: str = ''
    """The dominant cause, and what would reduce it."""
    disc: dict[str, float] | None = None
    """Of `disc.check`, for circles of an even number of points from 4 on: 'median' and
    'largest' difference of an example, and 'beyond', the fraction of the examples for
    which the radius is too large, or close to it."""


class Report(NamedTuple):
    """What is wrong with the gradients of a system, and why."""

    methods: dict[str, Bias]
    unsettled: float
    """Fraction of the examples whose free phase is not at equilibrium."""
    unsolved: float
    """The same of the references: adjoint and tangent were not found for these."""
    free_phase: float
    """Relative error of the exact gradient by stopping the free phase where it did."""
    symmetric_share: float
    """‖S‖ / (‖S‖ + ‖A‖) of J: 1 at symmetry."""
    asymmetry: dict[str, dict[str, float]]
    """L_homeo by pairs of layers, from `homeostasis.by_layer`."""
    penalty_noise: dict[str, dict[str, float]]
    """`homeostasis.noise` of each form of the penalty; NaN where there is no signal."""
    spectral_radius: float
    """Of J diag(σ′), the largest over the batch; synchronous sweeps settle below 1."""
    margin: float
    """1 − max Re λ of J diag(σ′), the smallest over the batch: the rate of the slowest
    mode; at 0 the equilibrium is lost."""
    angles: dict[str, float]
    """Degrees between paired weights, and 'overall'."""


def as_dict(report: Report) -> dict:
    """Returns a report as nested dicts of plain values, as JSON has them."""
    methods = {
        name: method._asdict() | {'worst': method.worst._asdict()}
        for name, method in report.methods.items()
    }
    return report._asdict() | {'methods': methods}
