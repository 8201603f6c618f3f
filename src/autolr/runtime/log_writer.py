"""Writes the log of a run: `runtime.run_log` says what its lines are."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from autolr.runtime.decision_log import UNREADABLE, DecisionRecord
from autolr.runtime.log_checks import checked_beat, checked_start
from autolr.runtime.run_log import Beat, Start, is_alive, parsed
from autolr.runtime.whole_file import write_whole

INTERVAL = 5.0  # [s] between two signs of life, at least
WRITERS: WeakValueDictionary[str, RunLog] = WeakValueDictionary()  # of this process, by the file's real path
BEGINNINGS = b'{"run": {', b'{"step": '  # of a log's first line


def open_log(path: str | os.PathLike[str]) -> Path:
    """Check that a decision log can be written at ``path``; an existing one is continued behind its last whole line.

    Raises:
        TypeError: it is no path.
        ValueError: the folder does not exist, the file cannot be written, another process writes to it, or it holds
            something else, which is kept.
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
            held = log.read(max(map(len, BEGINNINGS)))  # before all of it: what it is of may have no end
            if not any(held[: len(begins)] == begins[: len(held)] for begins in BEGINNINGS):
                raise ValueError(
                    f"trace must be a new file or a decision log; {str(file)!r} holds something else. "
                    "Name another file."
                )
            held += log.read()
            if (pid := _writer(held)) is not None:
                raise ValueError(
                    f"Process {pid} of this machine writes the decision log {str(file)!r}, and its run is not over. "
                    "End that process, or name another file: trace=..."
                )
            log.truncate(held.rfind(b"\n") + 1)
    except OSError as error:
        raise ValueError(
            f"trace must be a file that can be written; got {str(file)!r}: {error.strerror}. Make its folder first."
        ) from error
    return file.absolute()  # the run's folder may be left while it lasts


def _writer(held: bytes) -> int | None:
    """The other process of this machine, still alive, that a log's run is not over in; None where there is none."""
    begins = held.rfind(b'{"run": {')
    ends = held.find(b"\n", begins)
    if begins < 0 or ends < 0:
        return None
    try:
        about = checked_start(json.loads(held[begins:ends]))
        beats = [line for line in held[ends:].split(b"\n")[:-1] if line.startswith(b'{"beat": ')]
        steps = checked_beat(json.loads(beats[-1]))[0] if beats else 0
    except UNREADABLE:  # told where the log is read
        return None
    pid = about.get("pid")
    if pid is None or pid == os.getpid() or about.get("host") != socket.gethostname():
        return None
    over = about.get("total_steps") is not None and steps >= about["total_steps"]
    return pid if not over and is_alive(pid, about.get("time")) else None


class RunLog:
    """Writes the log of a run.

    Whatever cannot be written (the disk is full) is kept and tried again with the next line, so that training goes on.

    A file has one writer. Of two in a process the later one has it, as where a notebook's cell is run again.

    Args:
        path: a new file, or a log that is continued.
        about: optimizer, policy, seed, total_steps.

    Attributes:
        trouble: why the file could not be written the last time; None where it could.
        shared: that somebody else writes to the file too, or has taken it away; None where nobody was seen to.

    Raises:
        ValueError: the file cannot be written, holds something else, or another process writes to it.
    """

    def __init__(self, path: str | os.PathLike[str], about: Mapping[str, Any]) -> None:
        self._file = open_log(path)
        self._key = os.path.realpath(self._file)
        if (earlier := WRITERS.get(self._key)) is not None:
            earlier.beat()
        WRITERS[self._key] = self
        self._size: int | None = None  # of the file, as it was left; None where that is not known
        self._from = 0, 0  # steps and decisions that it goes on from
        self._written = 0, 0  # likewise, that are in the file
        self._decisions = 0
        self.trouble: str | None = None
        self.shared: str | None = None
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
        self._decisions += 1
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
            self._from = self._step, self._decisions

    def prepare(self, step: int, records: list[DecisionRecord]) -> Callable[[], None]:
        """What leaves out all that the run that ``records`` are of did after the checkpoint at ``step``.

        A log that does not begin with them is another run's, and nothing of it is touched. Nothing is changed before.

        Raises:
            DamagedLogError: a line of it cannot be read.
        """
        kept = _kept(self._file, self._about, step, records)

        def continue_from() -> None:
            self._step, self._rates, self._started = step, [], False
            self._decisions = len(records)
            self._from = self._written = step, len(records)
            if kept is None:
                return
            try:
                write_whole(self._file, "".join(line + "\n" for line in kept))
            except OSError as error:  # whoever reads it leaves them out
                self._cannot_be_written(error)
            self._size = None

        return continue_from

    def __getstate__(self) -> dict[str, Any]:
        """Of a copy, which may be used when the file has grown."""
        return {**self.__dict__, "_size": None}

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
        step, decisions = self._from
        process = {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}
        return [json.dumps({"run": {**self._about, "from": step, "decisions": decisions, **process}})]

    def _write(self, *lines: str) -> None:
        """All at once, after what could not be written before."""
        if WRITERS.setdefault(self._key, self) is not self:
            self.shared = (
                f"Another AutoLR of this process writes the decision log {str(self._file)!r} by now; this one writes "
                "nothing more. Give each run a file of its own: trace=..."
            )
            self._unwritten = []
            return
        self._unwritten += [*self._start(), *lines]
        try:
            # Without a buffer: what is left in one is written once more by whatever comes next, also by `truncate`.
            with self._file.open("ab", buffering=0) as log:
                end = log.seek(0, os.SEEK_END)
                if self._size is not None and end != self._size:
                    self._meet_another(is_new=end < self._size)
                self._size = end
                _write_all(log, "".join(line + "\n" for line in self._unwritten).encode(), end)
                self._size = log.tell()
        except OSError as error:
            self._cannot_be_written(error)
        else:
            self._unwritten, self.trouble = [], None
            self._written = self._step - sum(count for _, count in self._rates), self._decisions

    def _meet_another(self, *, is_new: bool) -> None:
        """The file is not as it was left: it has lines of others, or is a new one, which says where it goes on from."""
        if is_new:
            self.shared = (
                f"The decision log {str(self._file)!r} was removed, renamed or cut while its run goes on. What is "
                f"written there now tells of the steps after {self._written[0]} only. Leave a log where it is until "
                "its run is over."
            )
            self._from, self._started = self._written, False
            self._unwritten = [*self._start(), *self._unwritten]
            return
        self.shared = (
            f"Somebody else has written to the decision log {str(self._file)!r} too, and what it tells is a mixture. "
            "Give each run a file of its own: trace=..."
        )

    def _cannot_be_written(self, error: OSError) -> None:
        self.trouble = (
            f"The decision log {str(self._file)!r} cannot be written: {error.strerror}. Training goes on, and what is "
            "missing is written as soon as it can be. Make room, or let the file be written."
        )


def _write_all(log: io.FileIO, content: bytes, end: int) -> None:
    """Append all of it to a log that ends at the byte ``end``, or no half of a line.

    Raises:
        OSError: it cannot be written.
    """
    try:
        while content:
            content = content[log.write(content) :]
    except BaseException:  # also Ctrl-C between two pieces
        with contextlib.suppress(OSError):  # the reason why it cannot be written is told, not this one
            log.truncate(end)
        raise


def _kept(file: Path, about: Mapping[str, Any], step: int, records: list[DecisionRecord]) -> list[str] | None:
    """The lines of a log up to a checkpoint; None where it is another run's."""
    kept: list[str] = []
    left, beyond, same = list(records), False, True
    for number, (line, read) in enumerate(parsed(file)):
        if isinstance(read, Start):
            if not number and read.goes_on_from is not None:
                left = left[read.goes_on_from[1] :]  # those of before are in no line
            if read.is_new:  # what was there before is another attempt's
                kept, left, beyond, same = [], list(records), False, True
            same = same and all(read.about.get(k) == v for k, v in about.items() if k != "total_steps")
        elif isinstance(read, DecisionRecord):
            beyond = beyond or not left
            same = same and (beyond or read == left.pop(0))
        elif isinstance(read, Beat):
            if not beyond and read.step > step and (part := read.until(step)):
                rates = [list(pair) for pair in part.rates]
                kept.append(json.dumps({**json.loads(line), "beat": step, "rates": rates, "loss": None}))
            beyond = beyond or read.step > step
        else:
            beyond = beyond or (read["step"] or 0) > step
        if not beyond:
            kept.append(line)
    return kept if same and not left else None


def _finite(value: Any) -> float | None:
    """A loss as the log has it, be it a number or a tensor of one; None for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        return None
    return number if abs(number) < float("inf") else None
