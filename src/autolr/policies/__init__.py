"""What to do with what was seen: observations in, a decision with its reason out. Pure functions of numbers.

A policy is a frozen dataclass of settings. Its state is another frozen dataclass, of plain numbers, which the tuner
carries from call to call and into checkpoints. `Policy` below is the protocol; `Paper` and `Hold` follow it,
and `SteeringPolicy`, which sets the rate of every step: `Auto`.
"""

from autolr.policies.auto import Auto
from autolr.policies.hold import Hold
from autolr.policies.paper import Paper
from autolr.policies.protocol import Decision, Look, Policy, Sighting, Sounding, SteeringPolicy, Window

__all__ = ["Auto", "Decision", "Hold", "Look", "Paper", "Policy", "Sighting", "Sounding", "SteeringPolicy", "Window"]
