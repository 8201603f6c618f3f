"""What to do with what was seen: observations in, a decision with its reason out. Pure functions of numbers.

A policy is a frozen dataclass of settings. Its state is another frozen dataclass, of plain numbers, which the tuner
carries from call to call and into checkpoints. `Policy` below is the protocol; `ExploreExploit` and `Monitor` follow it,
and `SteeringPolicy`, which sets the rate of every step: `Auto`.
"""

from autolr.policies.auto import Auto
from autolr.policies.monitor import Monitor
from autolr.policies.explore_exploit import ExploreExploit
from autolr.policies.base import Decision, Look, Policy, Sighting, Sounding, SteeringPolicy, Window

__all__ = ["Auto", "Decision", "Monitor", "Look", "ExploreExploit", "Policy", "Sighting", "Sounding", "SteeringPolicy", "Window"]
