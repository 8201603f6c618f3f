"""What is written down of a run: decisions, rates, what all of it cost, and what its user was warned of."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
import warnings
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autolr.numerics.cost import Cost
from autolr.policies.base import Decision, Evidence
from autolr.policies.wording import explain, name_of
from autolr.runtime.curve import Curve
from autolr.runtime.decision_log import DecisionRecord, known
from autolr.runtime.distributed import rank
from autolr.runtime.log_writer import RunLog

LOG = logging.getLogger("autolr")
OWN = ("step", "lr")  # of every step, in the log and as a curve


class Recorder:
    """Kept in memory and, where there is a ``trace``, line by line in a file, which the first rank writes.

    It also calls ``on_decision``, where there is one, and tells each decision to the logger ``autolr``, as information.

    Raises:
        TypeError: ``trace`` is no path, or ``on_decision`` cannot be called.
        ValueError: the file cannot be written, or holds something else.

    Attributes:
        history: a `DecisionRecord` for each decision.
        cost: what all of it cost so far.
        curves: by name, ``lr`` and what the training logs.
    """

    def __init__(
        self,
        trace: str | os.PathLike[str] | None,
        on_decision: Callable[[DecisionRecord], Any] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        if on_decision is not None and not callable(on_decision):
            raise TypeError(f"on_decision must be callable with a DecisionRecord; got {type(on_decision).__name__}.")
        self.history: list[DecisionRecord] = []
        self.cost = Cost()
        self.curves: dict[str, Curve] = {"lr": Curve()}
        self._log = None
        if trace is not None and not rank():
            self._log = RunLog(trace, about or {})
            weakref.finalize(self, self._log.beat)  # what is not written yet, where a run ends early
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
            step=step, phase=seen.phase, verdict=decision.verdict, trigger=name_of(decision.trigger),
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
        if not rank():
            LOG.info("%s", record)
        if self._log is not None:
            self._log.record(record)
            self._tell_of_log()
        if self._on_decision is not None:
            self._on_decision(record)

    def rate(self, step: int, lr: float, loss: Any = None) -> None:
        """``step`` was taken at ``lr``; its ``loss`` as a closure returned it, if one did."""
        self.curves["lr"].add(step, lr)
        if self._log is not None:
            self._log.rate(step, lr, loss.detach() if isinstance(loss, torch.Tensor) else loss)
            self._tell_of_log()

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Keep what the training logs after ``step``."""
        point = {name: known(_number(name, value)) for name, value in numbers.items()}
        for name, value in point.items():
            if value is not None:
                self.curves.setdefault(name, Curve()).add(step, value)
        if self._log is not None:
            self._log.point({"step": step, **point})
            self._tell_of_log()

    def change_plan(self, about: Mapping[str, Any]) -> None:
        """The run has another length from here on."""
        if self._log is not None:
            self._log.change_plan(about)

    def flush(self) -> None:
        """Write what is not written yet, as a sign of life."""
        if self._log is not None:
            self._log.beat()
            self._tell_of_log()

    def _tell_of_log(self) -> None:
        if self._log is not None and self._log.trouble is not None:
            self.warn("log", self._log.trouble)
        if self._log is not None and self._log.shared is not None:
            self.warn("shared log", self._log.shared)

    def warn(self, key: str, text: str) -> None:
        """Warn the user, who called us, once in a run for each ``key``."""
        if key not in self._warned:
            self._warned.add(key)
            warnings.warn(text, stacklevel=_users_frame())

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        if self._log is not None:
            self._log.beat()  # the run that goes on from here writes what comes after
        return {
            "curves": {name: curve.to_dict() for name, curve in self.curves.items()},
            "history": [dataclasses.asdict(record) for record in self.history],
            "cost": self.cost.to_dict(),
            "recorded_forwards": self._recorded_forwards,
            "warned": sorted(self._warned),
        }

    def prepare(self, own: Mapping[str, Any]) -> Callable[[], None]:
        """What continues from a checkpoint, and leaves out of the log what it has beyond; nothing is changed before.

        Raises:
            KeyError, TypeError, ValueError: it is not of this form.
            DamagedLogError: the log cannot be read.
        """
        history = [DecisionRecord.from_dict(record) for record in own["history"]]
        cost, recorded, warned = Cost(**own["cost"]), int(own["recorded_forwards"]), set(own["warned"])
        curves = {name: Curve.from_dict(curve) for name, curve in own["curves"].items()}
        cut = None if self._log is None else self._log.prepare(int(own["steps"]), history)

        def take() -> None:
            self.history, self.cost, self.curves = history, cost, curves
            self._recorded_forwards, self._warned = recorded, warned
            if cut is not None:
                cut()
                self._tell_of_log()

        return take


def _number(name: str, value: Any) -> float:
    if name in OWN:
        raise ValueError(f"log() was given {name}, which AutoLR keeps itself for every step. Give it another name.")
    value = value.detach() if isinstance(value, Tensor) else value
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"log() takes numbers; got {name}={value!r:.100} ({error}).") from error


def _users_frame() -> int:
    """The stack level, for a warning, of the first frame that is neither ours nor torch's."""
    inside = tuple(str(folder) + os.sep for folder in (Path(__file__).parents[1], Path(torch.__file__).parent))
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inside):
        frame, level = frame.f_back, level + 1
    return level
