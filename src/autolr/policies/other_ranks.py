"""A run that goes on with another number of ranks: losses measured by the old ones are of other minibatches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from autolr.policies.base import Policy
from autolr.policies.peak_search import PeakSearchState


def forget_measured(policy: Policy, state: Any) -> Any:
    """The policy's state without losses that can be compared with none from here on.

    A window and a probe under way are left; the guard of `PeakSearch` begins anew where the run is now. Peak, schedule,
    decisions and thresholds, which are means over minibatches, stay.
    """
    state = policy.reset(state)
    if isinstance(state, PeakSearchState):
        state = replace(state, start=(), best=(), saved=(), now=(), floor=0.0, checked=(-1, 0))
    return state
