"""The data sets that have a name, and where they come from."""

from typing import NamedTuple

INSTALL = "`pip install 'eqprop_jax[tfds]'`, or `make tfds` in a checkout"


class Source(NamedTuple):
    """Where a data set comes from."""

    tfds_name: str | None  # None: part of scikit-learn
    num_classes: int
    train_split: str = 'train'
    test_split: str = 'test'


DATASETS = {
    'digits': Source(None, 10),
    'fashion_mnist': Source('fashion_mnist', 10),
    'mnist': Source('mnist', 10),
    'cifar10': Source('cifar10', 10),
    'cifar100': Source('cifar100', 100),
    'svhn_cropped': Source('svhn_cropped', 10),
    'imagenet_resized/32x32': Source(
        'imagenet_resized/32x32', 1000, test_split='validation'
    ),
}
