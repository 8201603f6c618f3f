"""A training that AutoLR saw: what the report is drawn from, as plain data, wherever it was kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr.runtime.decision_log import DecisionRecord

Point = Mapping[str, float | None]

EVALUATED = ("test_", "valid_", "val_", "eval_")  # how the names of evaluation metrics begin


@dataclass(frozen=True)
class Training:
    """One training: what AutoLR decided in it and, where they were kept, its curves.

    Attributes:
        name: in legends and headings. Trainings of one name share a colour, as repeats with other seeds do.
        records: the decision log, such as `AutoLR.history`.
        points: what the training logged now and then, by step. Each has ``step`` and any of ``lr``, ``loss`` (of the
            last steps), ``train_loss`` (mean of an epoch) and evaluation metrics, named ``test_loss``,
            ``val_accuracy``, ``eval_...``. None is a number that was not finite.
        total_steps: that were planned; None where it is not known.
        result: numbers at the end, such as ``test_loss``; None where there is no end yet, or it was not kept.
        status: ``"running"``, ``"finished"`` or ``"stopped"`` (before its end); None where nobody told.
        times: (step, seconds since the run began) now and then, in order.
    """

    name: str
    records: Sequence[DecisionRecord]
    points: Sequence[Point] = ()
    total_steps: int | None = None
    result: Mapping[str, float | None] | None = None
    status: str | None = None
    times: Sequence[tuple[float, float]] = ()

    @property
    def state(self) -> str | None:
        """The status, also where its result or its last step tells that it is finished; None where nothing does."""
        done = self.result is not None or (self.total_steps and self.last_step >= self.total_steps)
        return self.status or ("finished" if done else None)

    @property
    def last_step(self) -> int:
        """The last that is known of."""
        return max([0, *(int(step) for step, _ in self.curve("step")), *(r.step for r in self.records)])

    @property
    def metrics(self) -> list[str]:
        """Names of the evaluation metrics, in order of appearance."""
        return list(dict.fromkeys(key for point in self.points for key in point if key.startswith(EVALUATED)))

    @property
    def final(self) -> Mapping[str, float | None]:
        """The last value of every number: that of the result, where it has one."""
        logged = {key: value for point in self.points for key, value in point.items()}
        return {**logged, **(self.result or {})}

    def share(self, spent: int) -> float | None:
        """What AutoLR ``spent`` [forward equivalents] over the cost of the training's own steps, if one is known of."""
        steps = self.total_steps or self.last_step
        return spent / (FORWARDS_PER_STEP * steps) if steps else None

    def curve(self, key: str) -> list[tuple[float, float | None]]:
        """(step, value) of the points that have ``key``."""
        return [(point["step"] or 0, point[key]) for point in self.points if key in point]

    def rates(self) -> list[tuple[float, float | None]]:
        """(step, LR): that of the points, and the jumps of the decisions where they were taken."""
        decided = [record for record in self.records if not tells_peak(record)]
        jumps = [(record.step, lr) for record in decided for lr in (record.lr_before, record.lr_after)]
        return sorted([*self.curve("lr"), *jumps], key=lambda point: point[0])  # stable: before stays ahead of after


def outcome(record: DecisionRecord) -> str:
    """What a decision did to the learning rate, in one of five words."""
    if record.trigger == "peak found":
        return "peak found"
    if record.verdict == "roll back":
        return "rolled back"
    if record.lr_after == record.lr_before:
        return "kept"
    return "raised" if record.lr_after > record.lr_before else "lowered"


def tells_peak(record: DecisionRecord) -> bool:
    """Whether ``lr_after`` is a peak: it is no jump, since the rate climbs to it from far below, or falls before."""
    return record.trigger in {"peak found", "no peak", "diverged", "died", "too high"}


def probes_of(records: Sequence[DecisionRecord]) -> list[DecisionRecord]:
    """The decisions for which the loss was sampled along the step."""
    return [record for record in records if record.eps]
