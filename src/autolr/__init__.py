"""The learning rate of any PyTorch optimizer, tuned while training runs."""

from autolr.numerics.cost import Cost
from autolr.measure.peekable_loader import PeekableLoader
from autolr.policies import Auto, Monitor, ExploreExploit
from autolr.measure.snapshot import is_probing
from autolr.runtime.decision_log import Record, read_log
from autolr.optimizer import AutoLR

__all__ = ["Auto", "AutoLR", "Cost", "Monitor", "PeekableLoader", "ExploreExploit", "Record", "__version__", "is_probing", "read_log"]

__version__ = "0.1.0"
