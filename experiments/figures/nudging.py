"""Nudges on one side and on both, and feedback that is brought to the transposes."""

from eqprop_jax import records
from experiments.figures import networks

NAME, RECORD = 'nudging', 'nudging_fmnist'
PANELS = ('test/error', 'eval/gradient_cosine', 'eval/overall_angle')


def draw(folder: records.Folder, out: records.Folder | None = None) -> records.Path:
    """Draws nudging.png from nudging_fmnist.json and returns its path.

    One line of panels for tied and one for free feedback: test error, the cosine of the
    gradient to that of recurrent backprop, and the angle between feedback and
    transposes, over epochs.

    Args:
      folder: of the record of the sweep.
      out: folder of the picture; None: that of the record.
    """
    return networks.draw(NAME, RECORD, PANELS, folder, out)
