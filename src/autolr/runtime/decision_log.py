"""The decision log: one record for each decision, in memory and, line by line, in a file."""

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


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """What was seen, what was decided, and why. Losses are means over the superbatch."""

    step: int  # optimizer steps taken, counted from 1
    phase: str
    verdict: Verdict
    trigger: str  # why: the value of a `Trigger`
    reason: str  # the same in words
    lr_before: float
    lr_after: float
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

    def to_json(self) -> str:
        """One line of strict JSON."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> DecisionRecord:
        """From a line of the log or a checkpoint."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return cls(**values)


_BEGINNING = b'{"step": '  # of every line, by the order of DecisionRecord's fields


def known(value: float | None) -> float | None:
    """A number as the log has it: None where it is not finite."""
    return value if value is not None and math.isfinite(value) else None


def open_log(path: str | os.PathLike[str]) -> Path:
    """Check that a decision log can be written at ``path``; an existing one is continued behind its last whole line.

    Raises:
        ValueError: the folder does not exist, the file cannot be written, or it holds something else, which is kept.
    """
    file = Path(path)
    try:
        with file.open("a+b") as log:
            log.seek(0)
            held = log.read()
            if held[: len(_BEGINNING)] != _BEGINNING[: len(held)]:
                raise ValueError(
                    f"trace must be a new file or a decision log; {str(file)!r} holds something else. "
                    "Name another file."
                )
            log.truncate(held.rfind(b"\n") + 1)
    except OSError as error:
        raise ValueError(
            f"trace must be a file that can be written; got {str(file)!r}: {error.strerror}. Make its folder first."
        ) from error
    return file


def append(file: Path, record: DecisionRecord) -> None:
    """Write one record, at once: a run killed at any moment leaves all the decisions it took."""
    with file.open("a", encoding="utf8") as log:
        log.write(record.to_json() + "\n")


def cut_back(file: Path, records: list[DecisionRecord]) -> None:
    """Leave out what the run that ``records`` are of decided after the checkpoint it is continued from.

    A log that does not begin with them is another run's, and nothing of it is touched.
    """
    logged = read_log(file)
    if not records or logged[: len(records)] != records:
        return
    unfinished = file.with_name(file.name + ".part")
    unfinished.write_text("".join(record.to_json() + "\n" for record in records), encoding="utf8")
    unfinished.replace(file)


def tally(records: Iterable[DecisionRecord]) -> dict[str, int]:
    """How many probes, changes of the LR and rollbacks a log tells of."""
    verdicts = [(record.verdict, bool(record.eps)) for record in records]
    return {
        "probes": sum(probed for _, probed in verdicts),
        "changes": sum(verdict in {"raise", "lower"} for verdict, _ in verdicts),
        "rollbacks": sum(verdict == "roll back" for verdict, _ in verdicts),
    }


def read_log(path: str | os.PathLike[str]) -> list[DecisionRecord]:
    """All records of a decision log; a last line cut off by a kill is left out.

    Args:
        path: the file that ``AutoLR(..., trace=path)`` writes.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is no record of this version.
    """
    lines = Path(path).read_text(encoding="utf8").split("\n")[:-1]  # what follows the last newline was never finished
    return [_record(path, number, line) for number, line in enumerate(lines, start=1)]


def _record(path: str | os.PathLike[str], number: int, line: str) -> DecisionRecord:
    try:
        return DecisionRecord.from_dict(json.loads(line))
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"Line {number} of {str(path)!r} is no decision of this version's log ({error}). Read the file that "
            "AutoLR(..., trace=...) of this version wrote."
        ) from error
