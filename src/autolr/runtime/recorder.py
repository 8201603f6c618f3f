"""What is written down of a run: each decision, what all of it cost, and what its user was warned of."""

from __future__ import annotations

import dataclasses
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from autolr.numerics.cost import Cost
from autolr.policies.base import Decision, Evidence
from autolr.policies.wording import explain
from autolr.runtime import decision_log
from autolr.runtime.decision_log import DecisionRecord, known
from autolr.runtime.distributed import rank


class Recorder:
    """Kept in memory and, where there is a ``trace``, line by line in a file, which the first rank writes.

    It also calls ``on_decision``, where there is one.

    Raises:
        ValueError: the file cannot be written, or holds something else.

    Attributes:
        history: a `DecisionRecord` for each decision.
        cost: what all of it cost so far.
    """

    def __init__(
        self,
        trace: str | os.PathLike[str] | None,
        on_decision: Callable[[DecisionRecord], Any] | None = None,
    ) -> None:
        self.history: list[DecisionRecord] = []
        self.cost = Cost()
        self._log = None if trace is None or rank() else decision_log.open_log(trace)
        self._on_decision = None if rank() else on_decision
        self._recorded_forwards = 0
        self._warned: set[str] = set()

    def write(self, step: int, decision: Decision, seen: Evidence) -> None:
        """Write down what was decided after ``step`` optimizer steps, and what it rests on."""
        fit = seen.fit
        fitted = {} if fit is None else {
            "k0": fit.k0, "k1": fit.k1, "k2": fit.k2, "eps_min": fit.minimum, "eps_min_stderr": fit.stderr,
        }  # fmt: skip
        record = DecisionRecord(
            step=step, phase=seen.phase, verdict=decision.verdict, trigger=decision.trigger.value,
            reason=explain(decision, seen.lr, seen.phase), lr_before=seen.lr, lr_after=decision.lr,
            loss=known(seen.loss), drop_rate=known(seen.drop_rate), drop_rate_stderr=known(seen.drop_rate_stderr),
            eps=seen.eps, losses=tuple(map(known, seen.losses)), validation_eps=seen.validation_eps,
            validation_losses=tuple(map(known, seen.validation_losses)), observations=seen.observations,
            search=None if seen.search is None else dict(seen.search),
            forwards=self.cost.forwards - self._recorded_forwards, spent=self.cost.forward_equivalents,
            seconds=self.cost.seconds, **fitted,
        )  # fmt: skip
        self._recorded_forwards = self.cost.forwards
        self.history.append(record)
        if self._log is not None:
            decision_log.append(self._log, record)
        if self._on_decision is not None:
            self._on_decision(record)

    def warn(self, key: str, text: str) -> None:
        """Warn the user, who called us, once in a run for each ``key``."""
        if key not in self._warned:
            self._warned.add(key)
            warnings.warn(text, stacklevel=_users_frame())

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "history": [dataclasses.asdict(record) for record in self.history],
            "cost": self.cost.to_dict(),
            "recorded_forwards": self._recorded_forwards,
            "warned": sorted(self._warned),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`; what the log has beyond it is left out of it."""
        self.history = [DecisionRecord.from_dict(record) for record in state["history"]]
        self.cost = Cost(**state["cost"])
        self._recorded_forwards = state["recorded_forwards"]
        self._warned = set(state["warned"])
        if self._log is not None:
            decision_log.cut_back(self._log, self.history)


def _users_frame() -> int:
    """The stack level, for a warning, of the first frame that is neither ours nor torch's."""
    inside = tuple(str(folder) + os.sep for folder in (Path(__file__).parents[1], Path(torch.__file__).parent))
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inside):
        frame, level = frame.f_back, level + 1
    return level
