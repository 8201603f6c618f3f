"""A run that ends before its schedule does has its rate still up: that is said once, however the run ends."""

from __future__ import annotations

import logging
import sys
import weakref
from dataclasses import dataclass

from autolr.runtime.distributed import rank

STILL_UP = 0.1  # of the highest rate: below it the schedule has done most of its work


@dataclass
class RunEnd:
    """How far a run has come, apart from the optimizer, so that it can be told of when that is gone."""

    total_steps: int
    steps: int = 0
    lr: float = 0.0
    highest: float = 0.0
    cooled: int | None = None  # the step at which a cooldown that was started is over
    told: bool = False

    def continues(self, steps: int, lr: float, highest: float, cooled: int | None) -> None:
        """From a checkpoint."""
        self.steps, self.lr, self.highest, self.cooled = steps, lr, highest, cooled

    def at(self, steps: int, lr: float) -> None:
        """The run has taken so many ``steps``; the next one's rate is ``lr``."""
        self.steps, self.lr, self.highest = steps, lr, max(self.highest, lr)

    def complaint(self) -> str | None:
        """What is to be said if the run ends here; once."""
        if self.told or not 0 < self.steps < self.total_steps or self.lr <= STILL_UP * self.highest:
            return None
        if self.cooled is not None and self.steps >= self.cooled:  # the last step of a short one is not a low one
            return None
        self.told = True
        return (
            f"Training ended after {self.steps} of total_steps={self.total_steps} optimizer steps, with the learning "
            f"rate still at {self.lr:.3g} (its highest was {self.highest:.3g}): the schedule has not come to its end. "
            "total_steps counts optimizer steps: epochs * len(train_loader) / accumulation, on each rank its own "
            "loader's. To end earlier than planned, call start_cooldown(steps) in time."
        )


def watch(optimizer: object, end: RunEnd) -> None:
    """Say it when the optimizer is gone, at the latest when the interpreter ends; not where an error ended the run."""
    weakref.finalize(optimizer, _say, end)


def _say(end: RunEnd) -> None:
    failed = sys.exc_info()[0] is not None or getattr(sys, "last_type", None) is not None
    if not failed and not rank() and (text := end.complaint()) is not None:
        # Not a warning: a finalizer cannot raise, which filters may turn warnings into.
        logging.getLogger("autolr").warning(text)
