"""The learning rate of any PyTorch optimizer, tuned while training runs."""

from autolr.cost import Cost
from autolr.lending import LendingLoader
from autolr.policies import Auto, Hold, Paper
from autolr.snapshot import looking
from autolr.trace import Record, read_log
from autolr.tuner import AutoLR

__all__ = ["Auto", "AutoLR", "Cost", "Hold", "LendingLoader", "Paper", "Record", "__version__", "looking", "read_log"]

__version__ = "0.1.0"
