"""The decision log: one record for each decision, in memory and as a line of a file (`runtime.run_log`)."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autolr.policies.base import Verdict
from autolr.runtime.log_checks import check_record


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """What was seen, what was decided, and why. Losses are means over the superbatch."""

    step: int  # optimizer steps taken, counted from 1
    phase: str
    verdict: Verdict
    trigger: str  # why: the value of a `Trigger`
    reason: str  # the same in words
    lr_before: float
    lr_after: float  # of a schedule's search and rollback: its peak, which the rate is a share of
    loss: float | None  # at the window's end; None where it was not finite, here and below
    drop_rate: float | None  # [loss/step] over the window
    drop_rate_stderr: float | None
    forwards: int  # minibatch forward passes spent since the previous record
    eps: tuple[float, ...] = ()  # the samples of the fit, in multiples of the step (0: as taken); empty without a probe
    losses: tuple[float | None, ...] = ()
    k0: float | None = None
    k1: float | None = None
    k2: float | None = None
    eps_min: float | None = None  # likewise; None where the fit has no minimum
    eps_min_stderr: float | None = None
    validation_eps: tuple[float, ...] = ()  # likewise; samples kept from the fit, to judge it by
    validation_losses: tuple[float | None, ...] = ()
    observations: int = 0  # minibatches along one step, or steps, that the fit is the mean of
    spent: int = 0  # [forward equivalents] all that AutoLR has spent so far
    search: dict[str, Any] | None = None  # `Peak.to_dict`, where a peak was searched
    seconds: float = dataclasses.field(default=0.0, compare=False, repr=False)  # wall-clock: no two runs have it alike

    def __str__(self) -> str:
        return f"step {self.step:,} ({self.phase}): {self.reason}"

    def to_json(self) -> str:
        """One line of strict JSON."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> DecisionRecord:
        """From a line of the log or a checkpoint."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return cls(**values)


LARGEST = 2**29  # [bytes] of a log that is read: ten million steps, each at a rate of its own, take half of it
UNREADABLE = (ValueError, TypeError, KeyError, RecursionError)  # what a damaged line raises
OTHERS = {"run", "beat", "point"}  # by which a line that is no decision is known: `runtime.run_log` has them


def known(value: float | None) -> float | None:
    """A number as the log has it: None where it is not finite."""
    return value if value is not None and math.isfinite(value) else None


def tally(records: Iterable[DecisionRecord]) -> dict[str, int]:
    """How many probes, changes of the LR and rollbacks a log tells of."""
    verdicts = [(record.verdict, bool(record.eps)) for record in records]
    return {
        "probes": sum(probed for _, probed in verdicts),
        "changes": sum(verdict in {"raise", "lower"} for verdict, _ in verdicts),
        "rollbacks": sum(verdict == "roll back" for verdict, _ in verdicts),
    }


def lines_of(path: str | os.PathLike[str], since: int = 0) -> tuple[list[str], int]:
    """The lines of a log that were finished, from the byte ``since``, and the byte after them.

    Raises:
        ValueError: the file is no text, or has no end.
    """
    with Path(path).open("rb") as file:
        file.seek(since)
        content = file.read(LARGEST + 1 - since)
    if since + len(content) > LARGEST:
        raise ValueError(f"{str(path)!r} is larger than a decision log may be, {LARGEST >> 20} MB.")
    try:  # all of it: a file that is no text may have no line at all
        lines = content.decode("utf8").replace("\r\n", "\n").split("\n")[:-1]
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{str(path)!r} is no decision log ({error}). Read the file that AutoLR(..., trace=...) wrote."
        ) from error
    return lines, since + content.rfind(b"\n") + 1


def record_from(path: str | os.PathLike[str], number: int, line: str) -> DecisionRecord | dict[str, Any]:
    """What a line tells: a decision, or one of the other things that `runtime.run_log` writes.

    Raises:
        ValueError: it is none of this version's.
    """
    try:
        read = json.loads(line)
        if not isinstance(read, dict):
            raise TypeError(f"a line cannot be {read!r:.60}")
        if OTHERS & read.keys():
            return read
        record = DecisionRecord.from_dict(read)
        check_record(record)
    except UNREADABLE as error:
        raise damaged(path, number, error) from error
    return record


class DamagedLogError(ValueError):
    """A line of a log cannot be read."""


def damaged(path: str | os.PathLike[str], number: int, error: Exception) -> DamagedLogError:
    """What is said of a line that cannot be read."""
    return DamagedLogError(
        f"Line {number} of {str(path)!r} is none of this version's decision log ({error!s:.200}). Read the file that "
        "AutoLR(..., trace=...) of this version wrote."
    )
