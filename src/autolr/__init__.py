"""The learning rate of any PyTorch optimizer: its peak found before training, or tuned while training runs."""

from autolr.measure.peekable_loader import PeekableLoader
from autolr.measure.snapshot import is_probing
from autolr.numerics.cost import Cost
from autolr.optimizer import AutoLR
from autolr.peak import Peak
from autolr.peak_search import find_peak
from autolr.policies import ExploreExploit, Monitor, PeakSearch
from autolr.runtime.decision_log import DecisionRecord, read_log

__all__ = [
    "AutoLR", "Cost", "DecisionRecord", "ExploreExploit", "Monitor", "Peak", "PeakSearch", "PeekableLoader",
    "__version__", "find_peak", "is_probing", "read_log",
]  # fmt: skip

__version__ = "0.1.0"
