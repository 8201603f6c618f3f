"""The learning rate of any PyTorch optimizer: its peak found before training, or tuned while training runs.

Names are imported when they are first used, so that the command line, which needs torch for none of its help, is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autolr.measure.peekable_loader import PeekableLoader
    from autolr.measure.snapshot import is_probing
    from autolr.numerics.cost import Cost
    from autolr.optimizer import AutoLR
    from autolr.peak import Peak
    from autolr.peak_search import find_peak
    from autolr.policies import ExploreExploit, LiteralExploreExploit, Monitor, PeakSearch
    from autolr.replay import Replay
    from autolr.runtime.decision_log import DecisionRecord
    from autolr.runtime.run_log import LoggedRun, read_log, read_run

__all__ = [
    "AutoLR", "Cost", "DecisionRecord", "ExploreExploit", "LiteralExploreExploit", "LoggedRun", "Monitor", "Peak",
    "PeakSearch", "PeekableLoader", "Replay", "__version__", "find_peak", "is_probing", "read_log", "read_run",
]  # fmt: skip

__version__ = "0.1.0"

_ROOMS = {
    "AutoLR": "optimizer", "Cost": "numerics.cost", "DecisionRecord": "runtime.decision_log",
    "ExploreExploit": "policies", "LiteralExploreExploit": "policies", "LoggedRun": "runtime.run_log",
    "Monitor": "policies", "Peak": "peak", "PeakSearch": "policies", "PeekableLoader": "measure.peekable_loader",
    "Replay": "replay", "find_peak": "peak_search", "is_probing": "measure.snapshot",
    "read_log": "runtime.run_log", "read_run": "runtime.run_log",
}  # fmt: skip


if not TYPE_CHECKING:  # or a type checker would take any misspelt name for something

    def __getattr__(name: str) -> Any:
        if name not in _ROOMS:
            raise AttributeError(f"module 'autolr' has no attribute {name!r}")
        globals()[name] = value = getattr(importlib.import_module(f"autolr.{_ROOMS[name]}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
