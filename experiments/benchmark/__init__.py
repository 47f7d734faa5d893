"""What a step of training costs: networks, methods, and how both are measured."""

from experiments.benchmark import communication as communication
from experiments.benchmark import devices as devices
from experiments.benchmark import digits as digits
from experiments.benchmark import measure as measure
from experiments.benchmark import methods as methods
from experiments.benchmark import networks as networks
from experiments.benchmark import references as references
from experiments.benchmark import report as report
from experiments.benchmark import settings as settings
