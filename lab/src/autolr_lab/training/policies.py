"""AutoLR's policies, under the names that run settings and the command line have for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from autolr import ExploreExploit, LiteralExploreExploit, Monitor, PeakSearch
from autolr.policies import Policy
from autolr_lab.training.paid_search import PaidPeakSearch

POLICIES: Mapping[str, Callable[..., Policy]] = {
    "find-peak": PeakSearch,
    "find-peak-paid": PaidPeakSearch,
    "explore-exploit": ExploreExploit,
    "literal": LiteralExploreExploit,
    "adaptive": ExploreExploit.adaptive,
    "monitor": Monitor,
}


def make_policy(name: str, settings: Mapping[str, Any]) -> Policy:
    """The policy, with its own defaults for what ``settings`` leave out.

    Raises:
        TypeError, ValueError: it has no such setting, or the value is not allowed.
    """
    usual: Any = POLICIES[name]()
    has = [field.name for field in dataclasses.fields(usual)]
    for setting in settings:
        if setting not in has:
            raise ValueError(f"The schedule {name} has no option {setting!r}. It has: {', '.join(has)}.")
    return POLICIES[name](**settings)
