"""Every key of a configuration, with the value that experiments start from.

An experiment imports this and changes fields; it is no experiment of its own.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
    """Returns all sections; `data.name` and `system.sizes` are for the experiment."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.batch_size = 50
    config.accumulation_steps = 1  # parts of a batch in turn, where memory is short
    config.num_epochs = 40
    config.log_every_steps = 50
    config.eval_every_steps = 0  # at the end of every epoch
    config.plugins = ()  # modules or files that register parts of one's own
    config.precision = 'float32'  # of products; or 'tf32', 'bfloat16'
    config.convolution = config_dict.placeholder(str)  # 'native', 'patches'; None: fast

    config.mesh = ml_collections.ConfigDict()
    config.mesh.data = config_dict.placeholder(int)  # parts of a batch; None: devices
    config.mesh.contour = 1  # devices that divide the nudges of a contour among them

    config.data = ml_collections.ConfigDict()
    config.data.name = 'digits'
    config.data.path = config_dict.placeholder(str)  # of one's own, in place of a name
    config.data.data_dir = config_dict.placeholder(str)
    config.data.held_out = 150
    config.data.num_train = config_dict.placeholder(object)  # None: all
    config.data.seed = 0
    config.data.normalization = 'unit'
    config.data.std_factor = 1.0  # of the standard deviation, for 'standard'
    # Pixels that training images are shifted by, at most; left-right, half of them.
    config.data.augment = ml_collections.ConfigDict({'pad': 0, 'flip': False})
    config.data.augment.padding = 'zero'

    config.system = ml_collections.ConfigDict()
    config.system.name = 'mlp'
    config.system.sizes = (64, 128, 128, 10)
    config.system.feedback = 'free'
    config.system.angle = config_dict.FieldReference(90.0, field_type=object)
    config.system.activation = 'sigmoid'
    config.system.cost = 'cross_entropy'

    config.solver = ml_collections.ConfigDict()
    config.solver.name = 'relaxation'
    config.solver.order = 'alternating'
    config.solver.step_size = 1.0
    config.solver.tol = 1e-3
    config.solver.max_steps = 100

    config.nudged_solver = config.solver.copy_and_resolve_references()
    config.nudged_solver.tol = 1e-2  # error of δ in the worst layer, at any nudge

    config.estimator = ml_collections.ConfigDict()
    config.estimator.name = 'contour'
    config.estimator.contour = 'circle'
    config.estimator.radius = 0.1
    config.estimator.num_points = 2
    config.estimator.half_step = False
    # Or 'adjoint', or None.
    config.estimator.correction = config_dict.FieldReference('antisymmetric', object)
    config.estimator.skip_unconverged = False

    config.homeostasis = ml_collections.ConfigDict()
    config.homeostasis.weight = 0.0
    config.homeostasis.fraction = 1.0  # of the steps
    config.homeostasis.num_probes = 5
    config.homeostasis.form = 'difference'

    config.alignment = ml_collections.ConfigDict({'kolen_pollack': False})
    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.name = 'adam'
    config.optimizer.learning_rate = 1e-3
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 0.0
    config.optimizer.schedule = 'cosine'
    config.optimizer.warmup_steps = 0
    config.optimizer.clip_norm = config_dict.placeholder(float)  # None: no bound
    # By name in the params: learning_rate, weight_decay; of a kernel's partner, too.
    config.optimizer.layers = ml_collections.ConfigDict()

    config.diagnostics = ml_collections.ConfigDict(
        {'every_evals': 1, 'num_examples': 100, 'num_probes': 32}
    )
    return config
