"""Evaluates a trained run, by its own solver or by another.

The command eqprop-evaluate, as a script of this checkout:

    python launch/evaluate.py --workdir=runs/digits --solver=anderson --tol=1e-5
"""

import checkout as checkout
from eqprop_jax.cli import evaluate

if __name__ == '__main__':
    evaluate.run()
