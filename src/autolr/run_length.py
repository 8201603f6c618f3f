"""How long a run is, where that turns out otherwise, and how it ends: the part of `AutoLR` that frameworks call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autolr.policies import Policy
from autolr.runtime.controller import Controller
from autolr.runtime.param_group_lrs import ParamGroupLRs
from autolr.runtime.recorder import Recorder
from autolr.runtime.run_end import RunEnd
from autolr.runtime.wrapped import WrappedOptimizer
from autolr.searches import Searches
from autolr.validation import check_count, check_search


class RunLength(WrappedOptimizer):
    """The methods of `AutoLR` about its run's length."""

    policy: Policy
    total_steps: int
    _seed: int
    _steps: int
    _controller: Controller
    _rates: ParamGroupLRs
    _recorder: Recorder
    _end: RunEnd
    _searches: Searches

    def _about(self) -> dict[str, Any]:
        """What the log says of the run."""
        return {
            "optimizer": type(self.base).__name__, "policy": repr(self.policy), "seed": self._seed,
            "total_steps": self.total_steps,
        }  # fmt: skip

    @property
    def steps_taken(self) -> int:
        """Optimizer steps so far, of ``total_steps``."""
        return self._steps

    def change_length(self, total_steps: int) -> None:
        """The run is of another length than was thought: its schedule goes on at the new one's place.

        What was measured stays: a peak that was found is the new run's too.

        Raises:
            TypeError, ValueError: not a whole number, or not more than the steps taken.
        """
        total_steps = check_count("total_steps", total_steps)
        if total_steps <= self._steps:
            raise ValueError(f"total_steps must be above the {self._steps} steps taken; got {total_steps}.")
        self._controller.change_length(total_steps, self._steps)
        self.total_steps = self._end.total_steps = total_steps
        self._recorder.change_plan(self._about())

    def search_with(self, search: Mapping[str, Any]) -> None:
        """As the argument ``search``, where it is known only later."""
        self._searches.settings = check_search(search)

    def begin_after(self, steps: int) -> None:
        """Begin with the rest of a run that was trained without: so many ``steps``, from the rates that are there.

        Raises:
            ValueError: this AutoLR has taken steps, or a rate cannot be scaled.
        """
        if self._steps:
            raise ValueError(f"This AutoLR has taken {self._steps} steps. Wrap the optimizer anew for another run.")
        self._rates.regroup()
        self.change_length(steps)

    def end_run(self) -> None:
        """Training is over: warn if it ended long before its schedule. Without, that is logged when it is gone."""
        if self.policy.foreign_rate == "overwritten" and (text := self._end.complaint()) is not None:
            self._recorder.warn("ended early", text)
        self._recorder.flush()
