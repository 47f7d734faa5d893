"""The correction against homeostasis against recurrent backprop."""

from eqprop_jax import records
from experiments.figures import networks

NAME, RECORD = 'correction', 'correction_fmnist'
PANELS = tuple(networks.PANELS)


def draw(folder: records.Folder, out: records.Folder | None = None) -> records.Path:
    """Draws correction.png from correction_fmnist.json and returns its path.

    One line of panels for each network: test error, the cosine of the gradient to that
    of recurrent backprop, the symmetric share of the Jacobian, and the angle between
    feedback and transposes, over epochs.

    Args:
      folder: of the record of the sweep.
      out: folder of the picture; None: that of the record.
    """
    return networks.draw(NAME, RECORD, PANELS, folder, out)
