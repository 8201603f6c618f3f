"""What can be trained: one file each with data, model, loss, metric and the paper's settings.

A new workload is a module here with a `Workload`, its name in `WORKLOADS` and in `cli.names`.
"""

from autolr_lab.workloads.cifar10 import CIFAR10, CIFAR10_SMALL
from autolr_lab.workloads.digits import DIGITS
from autolr_lab.workloads.imagenet import IMAGENET, TINY_IMAGENET_10
from autolr_lab.workloads.mnist import FASHION_MNIST, MNIST
from autolr_lab.workloads.shakespeare import SHAKESPEARE, SHAKESPEARE_10M
from autolr_lab.workloads.squad import SQUAD, SQUAD_SMALL
from autolr_lab.workloads.squad_minilm import SQUAD_MINILM
from autolr_lab.workloads.translation import IWSLT14, MULTI30K
from autolr_lab.workloads.workload import MissingDataError, Workload

_ALL: tuple[Workload, ...] = (
    *(DIGITS, MNIST, FASHION_MNIST, CIFAR10, CIFAR10_SMALL, IMAGENET, TINY_IMAGENET_10),
    *(SHAKESPEARE, SHAKESPEARE_10M, SQUAD, SQUAD_SMALL, SQUAD_MINILM, IWSLT14, MULTI30K),
)
WORKLOADS = {workload.name: workload for workload in _ALL}

__all__ = ["WORKLOADS", "MissingDataError", "Workload"]
