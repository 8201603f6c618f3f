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
TAIL = 64  # [bytes] by which a log that grew is told from another one
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
        before: steps and decisions before its first line, where it begins in the middle of a run.
    """

    about: Mapping[str, Any] = field(default_factory=dict)
    records: tuple[DecisionRecord, ...] = ()
    beats: tuple[Beat, ...] = ()
    points: tuple[Point, ...] = ()
    began: float | None = None
    before: tuple[int, int] = (0, 0)

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


class RunReader:
    """A log that may grow: each `read` takes in what was written since, and tells the run whole.

    Args:
        path: the file that ``AutoLR(..., trace=path)`` writes.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self._begin()

    def _begin(self) -> None:
        self._seen, self._end, self._count = 0, b"", 0  # bytes, the last of them, and lines that were taken in
        self._about: Mapping[str, Any] = {}
        self._began: float | None = None
        self._before: tuple[int, int] | None = None
        self._records: list[DecisionRecord] = []
        self._beats: list[Beat] = []
        self._points: list[Point] = []

    def read(self) -> LoggedRun:
        """The run so far; as `read_run` tells it.

        Raises:
            OSError: it cannot be read.
            ValueError: a line is none of this version's. The next call begins anew.
        """
        if not self._has_grown():
            self._begin()
        try:
            lines, self._seen = lines_of(self._path, self._seen)
            for number, line in enumerate(lines, start=self._count + 1):
                self._take(line_from(self._path, number, line))
            self._count += len(lines)
            self._end = _last_bytes(self._path, self._seen)
        except BaseException:
            self._begin()
            raise
        told = tuple(self._records), tuple(self._beats), tuple(self._points)
        return LoggedRun(self._about, *told, self._began, self._before or (0, 0))

    def _has_grown(self) -> bool:
        """Whether what was read is there as it was, as far as its last bytes tell."""
        return self._seen > 0 and _last_bytes(self._path, self._seen) == self._end

    def _take(self, read: Line) -> None:
        if self._before is None:  # the first line
            self._before = (read.goes_on_from if isinstance(read, Start) else None) or (0, 0)
        if isinstance(read, Start):
            self._about = read.about
            self._began = read.about.get("time") if self._began is None or read.is_new else self._began
            if read.goes_on_from is not None:
                step, decisions = read.goes_on_from
                self._before = min(self._before, (step, decisions))
                del self._records[decisions - self._before[1] :]
                self._beats = [part for beat in self._beats if (part := beat.until(step))]
                self._points = [point for point in self._points if (point["step"] or 0) <= step]
        elif isinstance(read, DecisionRecord):
            self._records.append(read)
        elif isinstance(read, Beat):
            self._beats.append(read)
        else:
            self._points.append(read)


def _last_bytes(path: str | os.PathLike[str], end: int) -> bytes:
    """Those before the byte ``end``."""
    with Path(path).open("rb") as file:
        file.seek(max(0, end - TAIL))
        return file.read(min(TAIL, end))


def read_run(path: str | os.PathLike[str]) -> LoggedRun:
    """A run's log, whole; a last line cut off by a kill is left out.

    Where the run began anew, or went on from an earlier step, what it had done beyond is left out.

    Args:
        path: the file that ``AutoLR(..., trace=path)`` writes.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is none of this version's.
    """
    return RunReader(path).read()


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
    for number, line in enumerate(lines_of(path)[0], start=1):
        yield line, line_from(path, number, line)


def line_from(path: str | os.PathLike[str], number: int, line: str) -> Line:
    """What a line tells.

    Raises:
        DamagedLogError: it is none of this version's.
    """
    read = record_from(path, number, line)
    try:
        if isinstance(read, DecisionRecord):
            return read
        if "run" in read:
            return Start(checked_start(read))
        return Beat(*checked_beat(read)) if "beat" in read else checked_point(read)
    except UNREADABLE as error:
        raise damaged(path, number, error) from error
