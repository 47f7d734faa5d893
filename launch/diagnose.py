"""Says what biases the gradient of a trained run.

The command eqprop-diagnose, as a script of this checkout:

    python launch/diagnose.py --workdir=runs/digits
"""

import checkout as checkout
from eqprop_jax.cli import diagnose

if __name__ == '__main__':
    diagnose.run()
