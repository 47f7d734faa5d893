"""The state of a run on the disk: written atomically, checked when it is read.

    checkpoint/7/             what orbax writes; arrays by name: params/layer_1/bias
    checkpoint/7/notes.json   plain values that go with them, if there are any
    checkpoint/7/SHA256SUMS   of those files; `sha256sum --check` reads it, too
    checkpoint/best_4/        likewise: the state that did best on held-out examples

The highest number is the checkpoint. Its sums are written last, and older ones are
removed only then: whenever a save is interrupted, a whole one is left. Names, shapes
and dtypes are all that stands beside the arrays; nothing is unpickled. A workdir is a
local folder or, by `etils.epath`, gs://bucket/folder.
"""

from eqprop_jax.checkpoint.folders import CHECKPOINT as CHECKPOINT
from eqprop_jax.checkpoint.folders import CheckpointError as CheckpointError
from eqprop_jax.checkpoint.reader import newest as newest
from eqprop_jax.checkpoint.reader import read as read
from eqprop_jax.checkpoint.reader import restore as restore
from eqprop_jax.checkpoint.saver import Saver as Saver
from eqprop_jax.checkpoint.saver import remove as remove
from eqprop_jax.checkpoint.saver import save as save
