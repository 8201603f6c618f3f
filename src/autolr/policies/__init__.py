"""What to do with what was seen: observations in, a decision with its reason out. Pure functions of numbers.

A policy is a frozen dataclass of settings. Its state is another frozen dataclass, of plain numbers, which the tuner
carries from call to call and into checkpoints. `Policy` below is the protocol; `Paper` and `Hold` follow it.
"""

from autolr.policies.hold import Hold
from autolr.policies.paper import Paper
from autolr.policies.protocol import Decision, Look, Policy, Window

__all__ = ["Decision", "Hold", "Look", "Paper", "Policy", "Window"]
