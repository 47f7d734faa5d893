"""The training loop: it receives built objects and reads no configuration."""

from eqprop_jax.training import agreement as agreement
from eqprop_jax.training import callbacks as callbacks
from eqprop_jax.training import hosts as hosts
from eqprop_jax.training.diagnose import first_examples as first_examples
from eqprop_jax.training.fitted import Fit as Fit
from eqprop_jax.training.fitting import fit as fit
from eqprop_jax.training.interrupts import Interrupted as Interrupted
from eqprop_jax.training.journal import TrainingError as TrainingError
from eqprop_jax.training.legs import is_finished as is_finished
from eqprop_jax.training.loop import train_and_evaluate as train_and_evaluate
from eqprop_jax.training.loop import train_together as train_together
from eqprop_jax.training.state import Diagnostics as Diagnostics
from eqprop_jax.training.state import Experiment as Experiment
from eqprop_jax.training.state import TrainState as TrainState
from eqprop_jax.training.state import init_state as init_state
from eqprop_jax.training.state import rests_on as rests_on
