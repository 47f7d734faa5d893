"""What a run leaves in its workdir, and the reader for figures and tables.

    config.json          the configuration, as it was resolved; under `rests_on` the
                         data and the settings of JAX that the numbers depend on
    metrics.jsonl        one JSON object a line: step, epoch, split, loss, error, ...
    tensorboard/         the same scalars as TensorBoard events; not in a bucket
    checkpoint/          the state after the last step, or where an unfinished run goes
                         on from: see `eqprop_jax.checkpoint`
    summary.json         last and best epoch, speed, hardware, versions
    bias.json            what biases the gradient, if `eqprop-diagnose` was asked

`split` is 'train' (means over the steps since the previous such line), 'eval' (the
held-out examples) or 'test'. `error` is a fraction. What is not finite is null, and
left out of TensorBoard. Diagnostics of the gradient are measured on training examples,
against exact recurrent backprop, and stand in the 'eval' line of the same step:

    worst_error                      |δ̂ − δ| / |δ| of the layer where it is largest
    error/<layer>                    the same of each layer
    cosine/<layer>, norm_ratio/<layer>               of δ̂ to δ
    gradient_cosine, gradient_norm_ratio             of all gradients
    gradient_cosine_without_readout  of those that δ enters: the readout's, which every
                                     method has exactly, hides layers that are deaf
    reference_converged, symmetric_share, spectral_radius, angle/<pair>, overall_angle
"""

from eqprop_jax.records.claims import OUTPUTS as OUTPUTS
from eqprop_jax.records.claims import changed as changed
from eqprop_jax.records.claims import claim as claim
from eqprop_jax.records.claims import differences as differences
from eqprop_jax.records.claims import read_config as read_config
from eqprop_jax.records.drawn import commit as commit
from eqprop_jax.records.drawn import provenance as provenance
from eqprop_jax.records.drawn import read_data as read_data
from eqprop_jax.records.drawn import write_data as write_data
from eqprop_jax.records.files import Folder as Folder
from eqprop_jax.records.files import Path as Path
from eqprop_jax.records.files import WorkdirError as WorkdirError
from eqprop_jax.records.files import folder as folder
from eqprop_jax.records.files import write_whole as write_whole
from eqprop_jax.records.run import BIAS as BIAS
from eqprop_jax.records.run import check_summary as check_summary
from eqprop_jax.records.run import is_finished as is_finished
from eqprop_jax.records.run import is_unfinished as is_unfinished
from eqprop_jax.records.run import locked as locked
from eqprop_jax.records.run import read as read
from eqprop_jax.records.run import read_bias as read_bias
from eqprop_jax.records.run import reopen as reopen
from eqprop_jax.records.run import series as series
from eqprop_jax.records.run import write_bias as write_bias
from eqprop_jax.records.run import write_summary as write_summary
from eqprop_jax.records.writer import CONFIG as CONFIG
from eqprop_jax.records.writer import METRICS as METRICS
from eqprop_jax.records.writer import SPLITS as SPLITS
from eqprop_jax.records.writer import SUMMARY as SUMMARY
from eqprop_jax.records.writer import Writer as Writer
