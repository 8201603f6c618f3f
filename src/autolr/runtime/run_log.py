"""The log of a run as a file: who runs what, each decision, the rate of every step, and now and then a sign of life.

`runtime.log_writer` writes it. Every line is JSON. Besides the decisions (`DecisionRecord`), which begin with
``{"step": ``:

- ``{"run": {...}}``, where the run begins, goes on from a checkpoint, or changes its length: optimizer, policy, seed,
  total_steps; the steps and decisions that it goes on from, ``from`` and ``decisions``: what the log has beyond them
  was done by a process that was killed, and no longer counts; and the process: host, pid, time.
- ``{"beat": 120, "time": ..., "rates": [[0.1, 20], [0.2, 10]], "loss": ...}``: 120 steps are taken; since the line
  before, 20 at 0.1 and then 10 at 0.2; the loss of the last step, where a closure told it.
- ``{"point": {"step": 120, "val_loss": 0.3}}``: what `AutoLR.log` was given.

A decision takes about 1 kB, a step whose rate differs from the last one's about 25 bytes, all others nothing.
"""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from autolr.runtime.decision_log import UNREADABLE, DecisionRecord, damaged, lines_of, record_from
from autolr.runtime.log_checks import checked_beat, checked_point, checked_start

Point = Mapping[str, float | None]  # "step", and what the training logged there
Status = Literal["running", "stopped", "finished"]

OVERDUE = 60.0, 10.0  # [s], and in gaps between two signs of life: silent for longer, a run on another machine is dead
CLOCK = 2.0  # [s] that the start of a process is known to
SEARCHING = 3600.0  # [s] likewise, before the first step: the search gives no sign of life


@dataclass(frozen=True)
class Start:
    """A process that begins a run, or goes on with it."""

    about: Mapping[str, Any]

    @property
    def goes_on_from(self) -> tuple[int, int] | None:
        """Steps and decisions; None where the log does not say."""
        told = self.about.get("from"), self.about.get("decisions")
        return None if None in told else (told[0] or 0, told[1] or 0)

    @property
    def is_new(self) -> bool:
        """Whether it goes on from nothing."""
        return self.goes_on_from == (0, 0)


@dataclass(frozen=True)
class Beat:
    """A sign of life."""

    step: int  # steps taken
    time: float  # [s] since 1970
    rates: tuple[tuple[float, int], ...]  # since the line before: rate, for so many steps
    loss: float | None = None

    def until(self, step: int) -> Beat | None:
        """The part of it up to a step: itself, or without its last steps; None where nothing is left."""
        if self.step <= step:
            return self
        kept, over = list(self.rates), self.step - step
        while kept and over > 0:
            rate, count = kept.pop()
            if count > over:
                kept.append((rate, count - over))
            over -= count
        return replace(self, step=step, rates=tuple(kept), loss=None) if kept else None


Line = DecisionRecord | Start | Beat | Point


@dataclass(frozen=True)
class LoggedRun:
    """A run as its log tells it.

    Attributes:
        about: ``optimizer``, ``policy``, ``seed``, ``total_steps``, ``host``, ``pid`` and ``time`` of the last start.
        records: the decisions.
        beats: signs of life.
        points: numbers that the training logged: ``step``, and any others.
        began: [s since 1970], None where the log does not say.
    """

    about: Mapping[str, Any] = field(default_factory=dict)
    records: tuple[DecisionRecord, ...] = ()
    beats: tuple[Beat, ...] = ()
    points: tuple[Point, ...] = ()
    began: float | None = None

    @property
    def total_steps(self) -> int | None:
        """Of the run, as it was planned last."""
        return self.about.get("total_steps")

    @property
    def steps(self) -> int:
        """That were taken, as far as the log knows."""
        return self.beats[-1].step if self.beats else max((record.step for record in self.records), default=0)

    def rates(self) -> list[tuple[int, float]]:
        """(step, rate) of every step that the log knows, in order; steps count from 1.

        Where a run went back to an earlier step, what it did there before is left out.
        """
        known: list[tuple[int, int, float]] = []  # first step, last step, rate
        for beat in self.beats:
            step = beat.step - sum(count for _, count in beat.rates)
            while known and known[-1][1] > step:
                first, _, rate = known.pop()
                if first <= step:
                    known.append((first, step, rate))
            for rate, count in beat.rates:
                if count:
                    known.append((step + 1, step + count, rate))
                step += count
        return [(step, rate) for first, last, rate in known for step in range(first, last + 1)]

    def status(self, now: float | None = None) -> Status:
        """Whether it still runs: its process, where it is this machine's, else its last sign of life tells."""
        if self.total_steps is not None and self.steps >= self.total_steps:
            return "finished"
        if "pid" not in self.about:
            return "stopped"
        if self.about.get("host") == socket.gethostname():
            return "running" if is_alive(self.about["pid"], self.about.get("time")) else "stopped"
        times = [self.about.get("time", 0.0), *(beat.time for beat in self.beats)]
        gap = max((after - before for before, after in itertools.pairwise(times[1:])), default=0.0)
        patience = max(OVERDUE[0], OVERDUE[1] * gap) if self.beats else SEARCHING
        return "running" if (now or time.time()) - max(times) < patience else "stopped"


def is_alive(pid: int, seen: float | None = None) -> bool:
    """Whether a process of this machine runs, and is the one that ran at the time ``seen`` [s since 1970]."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # there, and somebody else's
        pass
    try:  # where the system tells: one that ended and is not fetched yet, or began later, is not it
        told = Path(f"/proc/{pid}/stat").read_text(encoding="utf8").rpartition(")")[2].split()
        booted = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
        began = int(booted.split()[1]) + int(told[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, StopIteration, AttributeError):
        return True
    return told[0] != "Z" and (seen is None or began <= seen + CLOCK)


def read_run(path: str | os.PathLike[str]) -> LoggedRun:
    """A run's log, whole; a last line cut off by a kill is left out.

    Where the run began anew, or went on from an earlier step, what it had done beyond is left out.

    Args:
        path: the file that ``AutoLR(..., trace=path)`` writes.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is none of this version's.
    """
    about: Mapping[str, Any] = {}
    began: float | None = None
    records: list[DecisionRecord] = []
    beats: list[Beat] = []
    points: list[Point] = []
    for _, read in parsed(path):
        if isinstance(read, Start):
            about, began = read.about, read.about.get("time") if began is None or read.is_new else began
            if read.goes_on_from is not None:
                step, decisions = read.goes_on_from
                del records[decisions:]
                beats = [part for beat in beats if (part := beat.until(step))]
                points = [point for point in points if (point["step"] or 0) <= step]
        elif isinstance(read, DecisionRecord):
            records.append(read)
        elif isinstance(read, Beat):
            beats.append(read)
        else:
            points.append(read)
    return LoggedRun(about, tuple(records), tuple(beats), tuple(points), began)


def read_log(path: str | os.PathLike[str]) -> list[DecisionRecord]:
    """All decisions of a log: the ``records`` of `read_run`, which says the rest.

    Args:
        path: the file that ``AutoLR(..., trace=path)`` writes.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is none of this version's.
    """
    return list(read_run(path).records)


def parsed(path: str | os.PathLike[str]) -> Iterator[tuple[str, Line]]:
    """Each line of a log, and what it tells.

    Raises:
        OSError: it cannot be read.
        DamagedLogError: a line is none of this version's.
    """
    for number, line in enumerate(lines_of(path), start=1):
        read = record_from(path, number, line)
        try:
            if isinstance(read, DecisionRecord):
                yield line, read
            elif "run" in read:
                yield line, Start(checked_start(read))
            elif "beat" in read:
                yield line, Beat(*checked_beat(read))
            else:
                yield line, checked_point(read)
        except UNREADABLE as error:
            raise damaged(path, number, error) from error
