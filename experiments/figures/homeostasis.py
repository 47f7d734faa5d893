"""Training with Jacobian homeostasis, without it, and with the correction."""

from eqprop_jax import records
from experiments.figures import networks

NAME, RECORD, MORE = 'fig4', 'fig4_fmnist', ('fig4_cifar10',)
PANELS = ('test/error', 'eval/symmetric_share', 'eval/gradient_cosine')


def draw(folder: records.Folder, out: records.Folder | None = None) -> records.Path:
    """Draws fig4.png from fig4_fmnist.json and returns its path.

    One line of panels for each network: test error, symmetric share of the Jacobian,
    and the cosine of the gradient to that of recurrent backprop, over epochs. The conv
    net of fig4_cifar10.json is the last one, where that is there.

    Args:
      folder: of the records of the sweeps.
      out: folder of the picture; None: that of the records.
    """
    return networks.draw(NAME, RECORD, PANELS, folder, out, more=MORE)
