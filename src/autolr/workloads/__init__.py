"""What can be trained from the command line: one file each with data, model, loss, metric and the paper's settings.

A new workload is a module here with a `Workload`, and its name in `WORKLOADS`.
"""

from autolr.workloads.digits import DIGITS
from autolr.workloads.fashion_mnist import FASHION_MNIST
from autolr.workloads.mnist import MNIST
from autolr.workloads.workload import MissingDataError, Workload

WORKLOADS: dict[str, Workload] = {w.name: w for w in (DIGITS, MNIST, FASHION_MNIST)}

__all__ = ["WORKLOADS", "MissingDataError", "Workload"]
