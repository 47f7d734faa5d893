"""Training predictive coding networks with feedback of their own."""

from eqprop_jax import records
from experiments.figures import networks

NAME, RECORD = 'fig5', 'fig5_fmnist'
PANELS = tuple(networks.PANELS)


def draw(folder: records.Folder, out: records.Folder | None = None) -> records.Path:
    """Draws fig5.png from fig5_fmnist.json and returns its path.

    Panels as in `experiments.figures.correction`; the symmetric share is that of the
    Jacobian up to the signs of the errors.

    Args:
      folder: of the record of the sweep.
      out: folder of the picture; None: that of the record.
    """
    return networks.draw(NAME, RECORD, PANELS, folder, out)
