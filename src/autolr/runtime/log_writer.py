"""Writes the log of a run: `runtime.run_log` says what its lines are."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from autolr.runtime.decision_log import DecisionRecord, lines_of, record_from
from autolr.runtime.log_checks import checked_beat, checked_point, checked_start

INTERVAL = 5.0  # [s] between two signs of life, at least
BEGINNINGS = b'{"run": {', b'{"step": '  # of a log's first line


def open_log(path: str | os.PathLike[str]) -> Path:
    """Check that a decision log can be written at ``path``; an existing one is continued behind its last whole line.

    Raises:
        TypeError: it is no path.
        ValueError: the folder does not exist, the file cannot be written, or it holds something else, which is kept.
    """
    try:
        file = Path(os.fsdecode(path))
    except TypeError:
        raise TypeError(f"trace must be a path; got {type(path).__name__}. For instance trace='run.jsonl'.") from None
    if "\0" in str(file):
        raise ValueError(f"trace must be a path, which no NUL character is in; got {str(file)!r}.")
    try:
        with file.open("a+b") as log:
            log.seek(0)
            held = log.read()
            if not any(held[: len(begins)] == begins[: len(held)] for begins in BEGINNINGS):
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


class RunLog:
    """Writes the log of a run.

    Whatever cannot be written (the disk is full) is kept and tried again with the next line, so that training goes on.

    Args:
        path: a new file, or a log that is continued.
        about: optimizer, policy, seed, total_steps.

    Attributes:
        trouble: why the file could not be written the last time; None where it could.

    Raises:
        ValueError: the file cannot be written, or holds something else.
    """

    def __init__(self, path: str | os.PathLike[str], about: Mapping[str, Any]) -> None:
        self._file = open_log(path)
        self.trouble: str | None = None
        self._about = dict(about)
        self._started = False  # whether this process has written who it is
        self._unwritten: list[str] = []  # lines
        self._rates: list[tuple[float, int]] = []  # of the steps since the last line
        self._step, self._loss = 0, None  # of the last step; its loss: a number or tensor, read when it is written
        self._last = time.monotonic()

    def rate(self, step: int, lr: float, loss: Any = None) -> None:
        """``step`` was taken at this rate."""
        self._step, self._loss = step, loss
        last, count = self._rates[-1] if self._rates else (None, 0)
        if last == lr:
            self._rates[-1] = lr, count + 1
        else:
            self._rates.append((lr, 1))
        if step == self._about.get("total_steps") or time.monotonic() - self._last >= INTERVAL:
            self.beat()

    def record(self, record: DecisionRecord) -> None:
        """Write a decision, at once: a run killed at any moment leaves all that it decided."""
        self._beat()
        self._write(record.to_json())

    def point(self, point: Mapping[str, float | None]) -> None:
        """Write what the training logged."""
        self._write(json.dumps({"point": dict(point)}, allow_nan=False))

    def beat(self) -> None:
        """Write the rates so far: a sign of life."""
        self._beat()
        self._write()

    def change_plan(self, about: Mapping[str, Any]) -> None:
        """The run has another length from here on."""
        if dict(about) != self._about:
            self._about, self._started = dict(about), False

    def continue_from(self, step: int, records: list[DecisionRecord]) -> None:
        """Leave out what the run that ``records`` are of did after the checkpoint at ``step`` that it goes on from.

        A log that does not begin with them is another run's, and nothing of it is touched.
        """
        self._step, self._rates, self._started = step, [], False
        if (kept := _kept(self._file, self._about, step, records)) is None:
            return
        unfinished = self._file.with_name(self._file.name + ".part")
        unfinished.write_text("".join(line + "\n" for line in kept), encoding="utf8")
        unfinished.replace(self._file)

    def _beat(self) -> None:
        if self._rates:
            rates = [list(pair) for pair in self._rates]
            line = {"beat": self._step, "time": time.time(), "rates": rates, "loss": _finite(self._loss)}
            self._unwritten += [*self._start(), json.dumps(line, allow_nan=False)]
            self._rates, self._loss = [], None
        self._last = time.monotonic()

    def _start(self) -> list[str]:
        """Who runs this, where that is not written yet."""
        if self._started:
            return []
        self._started = True
        process = {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}
        return [json.dumps({"run": {**self._about, **process}})]

    def _write(self, *lines: str) -> None:
        """All at once, after what could not be written before."""
        self._unwritten += [*self._start(), *lines]
        try:
            with self._file.open("a+b") as log:
                end = log.seek(0, os.SEEK_END)
                try:
                    log.write("".join(line + "\n" for line in self._unwritten).encode())
                    log.flush()
                except OSError:
                    log.truncate(end)  # no half of a line
                    raise
        except OSError as error:
            self.trouble = (
                f"The decision log {str(self._file)!r} cannot be written: {error.strerror}. Training goes on, and what "
                "is missing is written as soon as it can be. Make room, or let the file be written."
            )
        else:
            self._unwritten, self.trouble = [], None


def _kept(file: Path, about: Mapping[str, Any], step: int, records: list[DecisionRecord]) -> list[str] | None:
    """The lines of a log up to a checkpoint; None where it is another run's."""
    kept: list[str] = []
    left = list(records)
    for number, line in enumerate(lines_of(file), start=1):
        read = record_from(file, number, line)
        if isinstance(read, DecisionRecord):
            if not left:
                break
            if read != left.pop(0):
                return None
        elif "run" in read:
            if any(checked_start(read).get(name) != value for name, value in about.items() if name != "total_steps"):
                return None
        elif "beat" in read and (beat := checked_beat(read))[0] > step:
            rates = _shortened(beat[2], beat[0] - step)
            kept += [json.dumps({**read, "beat": step, "rates": rates, "loss": None})] if rates else []
            break
        elif "point" in read and (checked_point(read)["step"] or 0) > step:
            break
        kept.append(line)
    return None if left else kept


def _shortened(rates: Iterable[tuple[float, int]], over: int) -> list[list[float]]:
    """Without the last ``over`` steps."""
    kept = [list(pair) for pair in rates]
    while kept and over > 0:
        taken = min(over, int(kept[-1][1]))
        kept[-1][1] -= taken
        over -= taken
        if not kept[-1][1]:
            kept.pop()
    return kept


def _finite(value: Any) -> float | None:
    """A loss as the log has it, be it a number or a tensor of one; None for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        return None
    return number if abs(number) < float("inf") else None
