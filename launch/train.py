"""Trains a settling network.

The command eqprop-train, as a script of this checkout:

    python launch/train.py --config=configs/digits_mlp.py --workdir=runs/digits
"""

import checkout as checkout
from eqprop_jax.cli import train

if __name__ == '__main__':
    train.run()
