"""A run that goes on with another number of ranks: losses measured by the old ones are of other minibatches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from autolr.policies.peak_search import PeakSearchState


def forget_measured(state: Any) -> Any:
    """The policy's state without losses that can be compared with none from here on.

    The guard of `PeakSearch` begins anew where the run is now. Peak, schedule, decisions and thresholds, which are
    means over minibatches, stay; windows and probes under way are left anyhow.
    """
    if isinstance(state, PeakSearchState):
        state = replace(state, guard=state.guard.forgotten())
    return state
