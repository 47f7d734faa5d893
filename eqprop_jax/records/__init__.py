"""What a run leaves in its workdir, and the reader for figures and tables.

    config.json          the configuration, as it was resolved
    metrics.jsonl        one JSON object a line: step, epoch, split, loss, error, ...
    tensorboard/         the same scalars as TensorBoard events; not in a bucket
    checkpoint/          the state after the last step, or where an unfinished run goes
                         on from: see `eqprop_jax.checkpoint`
    summary.json         last and best epoch, speed, hardware, versions
    bias.json            what biases the gradient, if `launch/diagnose.py` was asked

`split` is 'train' (means over the steps since the previous such line), 'eval' (the
held-out examples) or 'test'. Diagnostics of the gradient (`gradient_cosine`, ...) are
measured on training examples and stand in the 'eval' line of the same step. `error` is
a fraction. What is not finite is null, and left out of TensorBoard.
"""

from eqprop_jax.records.drawn import commit as commit
from eqprop_jax.records.drawn import provenance as provenance
from eqprop_jax.records.drawn import read_data as read_data
from eqprop_jax.records.drawn import write_data as write_data
from eqprop_jax.records.files import Folder as Folder
from eqprop_jax.records.files import Path as Path
from eqprop_jax.records.files import WorkdirError as WorkdirError
from eqprop_jax.records.files import folder as folder
from eqprop_jax.records.lock import locked as locked
from eqprop_jax.records.run import BIAS as BIAS
from eqprop_jax.records.run import CONFIG as CONFIG
from eqprop_jax.records.run import claim as claim
from eqprop_jax.records.run import is_unfinished as is_unfinished
from eqprop_jax.records.run import read as read
from eqprop_jax.records.run import read_bias as read_bias
from eqprop_jax.records.run import read_config as read_config
from eqprop_jax.records.run import series as series
from eqprop_jax.records.run import write_bias as write_bias
from eqprop_jax.records.run import write_summary as write_summary
from eqprop_jax.records.writer import METRICS as METRICS
from eqprop_jax.records.writer import SPLITS as SPLITS
from eqprop_jax.records.writer import SUMMARY as SUMMARY
from eqprop_jax.records.writer import Writer as Writer
