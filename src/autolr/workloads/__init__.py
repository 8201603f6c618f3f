"""What can be trained from the command line: one file each with data, model, loss, metric and the paper's settings.

A new workload is a module here with a `Workload`, and its name in `WORKLOADS`.
"""

from autolr.workloads.cifar10 import CIFAR10, CIFAR10_SMALL
from autolr.workloads.digits import DIGITS
from autolr.workloads.fashion_mnist import FASHION_MNIST
from autolr.workloads.imagenet import IMAGENET, TINY_IMAGENET_10
from autolr.workloads.mnist import MNIST
from autolr.workloads.shakespeare import SHAKESPEARE, SHAKESPEARE_10M
from autolr.workloads.squad import SQUAD, SQUAD_SMALL
from autolr.workloads.translation import IWSLT14, MULTI30K
from autolr.workloads.workload import MissingDataError, Workload

_ALL: tuple[Workload, ...] = (
    *(DIGITS, MNIST, FASHION_MNIST, CIFAR10, CIFAR10_SMALL, IMAGENET, TINY_IMAGENET_10),
    *(SHAKESPEARE, SHAKESPEARE_10M, SQUAD, SQUAD_SMALL, IWSLT14, MULTI30K),
)
WORKLOADS = {workload.name: workload for workload in _ALL}

__all__ = ["WORKLOADS", "MissingDataError", "Workload"]
