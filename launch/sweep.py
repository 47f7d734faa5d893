"""Trains every row of an experiment, and tells how they compare.

The command eqprop-sweep, as a script of this checkout:

    python launch/sweep.py --config=configs/digits_estimators.py --workdir=runs/25
"""

import checkout as checkout
from eqprop_jax.cli import sweep

if __name__ == '__main__':
    sweep.run()
