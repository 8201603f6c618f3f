"""Trainings from files: decision logs, and folders that hold one and, where somebody kept them, points of curves.

A **decision log** is what ``AutoLR(..., trace=FILE)`` writes. **Points** are JSON lines, written by any program::

    {"step": 100, "lr": 0.1, "loss": 1.9}
    {"step": 400, "train_loss": 1.2, "test_loss": 1.3, "test_accuracy": 0.61}

``step`` is needed, everything else may be missing; `Training` says which names are drawn. In a folder, files that end
in ``.jsonl`` are told apart by their first line; points belong to the one log beside them, and ``result.json`` has the
numbers at the end: a run with one is finished, and one of the lab's (``run.json``) that is silent without one stopped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from autolr.report.checked_lines import UNREADABLE, ReportError, checked, is_count, of_log, of_points
from autolr.report.logged import training_of
from autolr.report.training_record import Point, Training
from autolr.report.words import printable
from autolr.runtime.run_log import read_run

__all__ = ["ReportError", "read_trainings", "read_what_can_be"]

LONGEST = 2**24  # [bytes] of a first line: a file without lines is of another kind
SILENT = 600.0  # [s] after which a run without a log of signs of life counts as stopped


def read_trainings(paths: Iterable[Path]) -> list[Training]:
    """Read decision logs, and folders with all that is in them.

    Raises:
        ReportError: nothing is there, or a file is damaged or of another kind.
    """
    trainings, troubles = read_what_can_be(paths)
    if troubles:
        raise ReportError(troubles[0])
    return trainings


def read_what_can_be(paths: Iterable[Path]) -> tuple[list[Training], list[str]]:
    """The trainings that can be read, and a sentence for whatever cannot."""
    found: dict[Path, list[Path]] = {}  # what names a training -> its files
    troubles: list[str] = []
    for path in paths:
        with _told(troubles):
            found |= {key.resolve(): files for key, files in _found(path, troubles).items()}
    trainings = []
    for name, (place, files) in zip(_short_names(list(found)), found.items(), strict=True):
        with _told(troubles):
            trainings.append(_read(name, place, files))
    return trainings, troubles


@contextlib.contextmanager
def _told(troubles: list[str]) -> Iterator[None]:
    """What cannot be read is put down, and the next is read."""
    try:
        yield
    except ReportError as error:
        troubles.append(str(error))


def _found(path: Path, troubles: list[str]) -> dict[Path, list[Path]]:
    if not path.exists():
        raise ReportError(f"{path} does not exist. Name a decision log, or a folder that holds one.")
    before = len(troubles)
    here = _in_folders(path, troubles) if path.is_dir() else {path: [path]} if _kind(path) == "log" else {}
    if not here and len(troubles) == before:
        holds = "holds" if path.is_dir() else "is"
        raise ReportError(f"{path} {holds} no decision log. AutoLR(..., trace=FILE) writes one.")
    return here


def _in_folders(root: Path, troubles: list[str]) -> dict[Path, list[Path]]:
    found: dict[Path, list[Path]] = {}
    for folder in sorted({file.parent for file in root.rglob("*.jsonl")}):
        kinds: dict[str | None, list[Path]] = {}
        for file in sorted(folder.glob("*.jsonl")):
            with _told(troubles):
                kinds.setdefault(_kind(file), []).append(file)
        logs, points = kinds.get("log", []), kinds.get("points", [])
        if len(logs) > 1:  # nobody can tell whose the points are
            found |= {log: [log] for log in logs}
        elif logs or points:
            found[folder] = [*logs, *points]
    return found


def _kind(file: Path) -> str | None:
    """``"log"`` or ``"points"`` by the first line; None for anything else."""
    try:
        with file.open("rb") as opened:
            first = json.loads(opened.readline(LONGEST))
    except OSError as error:
        raise ReportError(f"{file} cannot be read: {error.strerror}.") from error
    except UNREADABLE:
        return None
    if not isinstance(first, dict):
        return None
    if "verdict" in first or isinstance(first.get("run"), dict):
        return "log"
    return "points" if "step" in first else None


def _read(name: str, place: Path, files: list[Path]) -> Training:
    logged, points = Training(name, []), list[Point]()
    for file in files:
        if _kind(file) == "log":
            logged = _of_log(name, file)
        else:
            points += checked(file, of_points)
    result, status = _end(place, files) if place.is_dir() else (None, None)
    rates = {"lr"} if logged.curve("lr") else set()  # the log's, of every step
    losses = {"loss"} if any("loss" in point for point in points) else set()  # of several steps; the log's are of one
    points = [_without(rates, point) for point in points] + [_without(losses, point) for point in logged.points]
    points.sort(key=lambda point: point["step"] or 0)
    ended = result.get("steps") if result else None
    return dataclasses.replace(
        logged, points=points, result=result, status="finished" if result else logged.status or status,
        total_steps=logged.total_steps or (int(ended) if ended else None),
    )  # fmt: skip


def _without(names: set[str], point: Point) -> Point:
    return {key: value for key, value in point.items() if key not in names}


def _of_log(name: str, file: Path) -> Training:
    *_, last = checked(file, of_log) or [None]  # lines of earlier runs are checked, too
    try:
        logged = training_of(name, read_run(file))
    except (OSError, ValueError) as error:
        raise ReportError(str(error)) from error
    records = list(logged.records)
    if last is not None and records[-1:] != [last]:  # `read_run` leaves a line without its newline out
        records.append(last)
    searched = next((record.search.get("total_steps") for record in records if record.search), None)
    planned = logged.total_steps or (searched if is_count(searched) else None)
    return dataclasses.replace(logged, records=records, total_steps=planned)


def _end(folder: Path, files: list[Path]) -> tuple[Mapping[str, float | None] | None, str | None]:
    """The numbers of ``result.json``, and the status of a run of the lab, which has no signs of life."""
    file = folder / "result.json"
    if file.exists():
        try:
            read: dict[str, Any] = {"step": 0} | json.loads(file.read_bytes())
            return {key: value for key, value in of_points(read).items() if key != "step"}, "finished"
        except (OSError, *UNREADABLE) as error:
            raise ReportError(f"{file} is damaged: {error!s:.200}. Leave it out.") from error
    if not (folder / "run.json").exists():
        return None, None
    silent = time.time() - max(one.stat().st_mtime for one in files)
    return None, "stopped" if silent > SILENT else "running"


def _short_names(paths: list[Path]) -> list[str]:
    """The last part of each path, with as many folders before it as tell it from the others."""
    parts = [path.with_suffix("").parts if path.suffix == ".jsonl" else path.parts for path in paths]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(p[-length:]) for p in parts]
        if len(set(names)) == len(names):
            return [printable(name) for name in names]
    return [printable(str(path)) for path in paths]
