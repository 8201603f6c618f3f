"""What to do with what was measured: numbers in, a decision with its reason out. No torch.

`base.Policy` is the protocol. `PeakSearch` is the default, `ExploreExploit` the paper's, `LiteralExploreExploit` the
paper's word for word, `Monitor` changes nothing.
"""

from autolr.policies.base import Decision, Evidence, Policy, ProbeRequest, ProbeResult, Trigger
from autolr.policies.explore_exploit import ExploreExploit
from autolr.policies.literal import LiteralExploreExploit
from autolr.policies.monitor import Monitor
from autolr.policies.peak_search import PeakSearch

__all__ = [
    "Decision", "Evidence", "ExploreExploit", "LiteralExploreExploit", "Monitor", "PeakSearch", "Policy",
    "ProbeRequest", "ProbeResult", "Trigger",
]  # fmt: skip
