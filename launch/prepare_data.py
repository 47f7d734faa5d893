"""Prepares an image set once, as plain arrays that training reads.

The command eqprop-prepare, as a script of this checkout:

    python launch/prepare_data.py --dataset=fashion_mnist
"""

import checkout as checkout
from eqprop_jax.cli import prepare

if __name__ == '__main__':
    prepare.run()
