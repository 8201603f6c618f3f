"""AutoLR's policies, under the names that run settings and the command line have for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from autolr import ExploreExploit, Monitor, PeakSearch
from autolr.policies import Policy

POLICIES: Mapping[str, Callable[..., Policy]] = {
    "find-peak": PeakSearch,
    "explore-exploit": ExploreExploit,
    "adaptive": ExploreExploit.adaptive,
    "monitor": Monitor,
}


def make_policy(name: str, settings: Mapping[str, Any]) -> Policy:
    """The policy, with its own defaults for what ``settings`` leave out.

    Raises:
        TypeError, ValueError: it has no such setting, or the value is not allowed.
    """
    try:
        return POLICIES[name](**settings)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        has = ", ".join(type(POLICIES[name]()).__dataclass_fields__)
        raise ValueError(f"The schedule {name} has the options {has}; got {', '.join(settings)}.") from None
