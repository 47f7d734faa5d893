"""Data sets: scikit-learn's digits, and images of TFDS or one's own as plain arrays."""

from eqprop_jax.data.augment import Augment as Augment
from eqprop_jax.data.augment import augmentation as augmentation
from eqprop_jax.data.files_reader import prepare_files as prepare_files
from eqprop_jax.data.pipeline import DeviceSplit as DeviceSplit
from eqprop_jax.data.pipeline import Preprocess as Preprocess
from eqprop_jax.data.pipeline import epoch_order as epoch_order
from eqprop_jax.data.pipeline import normalizer as normalizer
from eqprop_jax.data.pipeline import take as take
from eqprop_jax.data.pipeline import to_device as to_device
from eqprop_jax.data.sources import DATASETS as DATASETS
from eqprop_jax.data.sources import NotPreparedError as NotPreparedError
from eqprop_jax.data.sources import load as load
from eqprop_jax.data.splits import Dataset as Dataset
from eqprop_jax.data.splits import Split as Split
from eqprop_jax.data.splits import check as check
from eqprop_jax.data.tfds_reader import prepare as prepare
