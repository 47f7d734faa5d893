"""Data sets: scikit-learn's digits, images of TFDS, and one's own, as plain arrays."""

from eqprop_jax.data._augment import Augment as Augment
from eqprop_jax.data._augment import augmentation as augmentation
from eqprop_jax.data._catalog import DATASETS as DATASETS
from eqprop_jax.data._files_reader import prepare_files as prepare_files
from eqprop_jax.data._from_arrays import from_arrays as from_arrays
from eqprop_jax.data._pipeline import DeviceSplit as DeviceSplit
from eqprop_jax.data._pipeline import Preprocess as Preprocess
from eqprop_jax.data._pipeline import epoch_order as epoch_order
from eqprop_jax.data._pipeline import normalizer as normalizer
from eqprop_jax.data._pipeline import take as take
from eqprop_jax.data._pipeline import to_device as to_device
from eqprop_jax.data._sources import NotPreparedError as NotPreparedError
from eqprop_jax.data._sources import load as load
from eqprop_jax.data._splits import Dataset as Dataset
from eqprop_jax.data._splits import Split as Split
from eqprop_jax.data._splits import check as check
from eqprop_jax.data._tfds_reader import prepare as prepare
