"""Trainings from files: decision logs, and folders that hold one and, where somebody kept them, points of curves.

A **decision log** is what ``AutoLR(..., trace=FILE)`` writes. **Points** are JSON lines, written by any program::

    {"step": 100, "lr": 0.1, "loss": 1.9}
    {"step": 400, "train_loss": 1.2, "test_loss": 1.3, "test_accuracy": 0.61}

``step`` is needed, everything else may be missing; `Training` says which names are drawn. In a folder, files that end
in ``.jsonl`` are told apart by their first line; points belong to the one log beside them.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from autolr.report.search import ends_of
from autolr.report.training_record import Point, Training
from autolr.report.words import printable
from autolr.runtime.decision_log import DecisionRecord

T = TypeVar("T")

UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
LONGEST = 2**24  # [bytes] of a first line: a file without lines is of another kind
LARGEST = 1e100  # a number beyond it overflows in a picture's arithmetic


class ReportError(ValueError):
    """A file that cannot be read, or a report that cannot be written; said in one sentence or two."""


def read_trainings(paths: Iterable[Path]) -> list[Training]:
    """Read decision logs, and folders with all that is in them.

    Raises:
        ReportError: nothing is there, or a file is damaged or of another kind.
    """
    found: dict[Path, list[Path]] = {}  # what names a training -> its files
    for path in paths:
        if not path.exists():
            raise ReportError(f"{path} does not exist. Name a decision log, or a folder that holds one.")
        here = _in_folders(path) if path.is_dir() else {path: [path]} if _kind(path) == "log" else {}
        if not here:
            holds = "holds" if path.is_dir() else "is"
            raise ReportError(f"{path} {holds} no decision log. AutoLR(..., trace=FILE) writes one.")
        found |= {key.resolve(): files for key, files in here.items()}
    return [_read(name, files) for name, files in zip(_short_names(list(found)), found.values(), strict=True)]


def _in_folders(root: Path) -> dict[Path, list[Path]]:
    found: dict[Path, list[Path]] = {}
    for folder in sorted({file.parent for file in root.rglob("*.jsonl")}):
        kinds = {file: _kind(file) for file in sorted(folder.glob("*.jsonl"))}
        logs = [file for file, kind in kinds.items() if kind == "log"]
        points = [file for file, kind in kinds.items() if kind == "points"]
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
    if not isinstance(first, dict) or "step" not in first:
        return None
    return "log" if "verdict" in first else "points"


def _read(name: str, files: list[Path]) -> Training:
    records: list[DecisionRecord] = []
    points: list[Point] = []
    for file in files:
        if _kind(file) == "log":
            records = _parsed(file, _record)
        else:
            points += _parsed(file, _point)
    planned = next((record.search.get("total_steps") for record in records if record.search), None)
    points.sort(key=lambda point: point["step"] or 0)
    return Training(name, records, points, planned if isinstance(planned, int) else None)


def _parsed(file: Path, parse: Callable[[Any], T]) -> list[T]:
    """Every line through ``parse``."""
    parsed: list[T] = []
    try:
        for line in _lines(file.read_bytes()):
            parsed.append(parse(json.loads(line)))  # noqa: PERF401 - its length names the line that fails
    except OSError as error:
        raise ReportError(f"{file} cannot be read: {error.strerror}.") from error
    except UNREADABLE as error:
        where = f"{file}, line {len(parsed) + 1}"
        raise ReportError(
            f"{where}, is damaged or was written by another version: {error!s:.200}. Leave it out."
        ) from error
    return parsed


def _lines(content: bytes) -> list[bytes]:
    """Without a last line that a kill cut off."""
    *lines, last = content.split(b"\n")
    try:
        json.loads(last)
    except UNREADABLE:
        return lines
    return [*lines, last]


def _record(read: dict[str, Any]) -> DecisionRecord:
    record = DecisionRecord.from_dict(read)
    for name, fits in FIELDS.items():
        if not fits(getattr(record, name)):
            raise TypeError(f"{name} cannot be {getattr(record, name)!r:.60}")
    for eps, losses in ((record.eps, record.losses), (record.validation_eps, record.validation_losses)):
        if len(eps) != len(losses):
            raise ValueError(f"{len(eps)} eps have {len(losses)} losses")
    if record.search:
        ends_of(record.search)  # raises where it is not of the form that is drawn
    return record


def _point(read: dict[str, Any]) -> Point:
    """Its numbers, None for those that are not finite."""
    if not _is_number(read["step"]):
        raise TypeError(f"step cannot be {read['step']!r:.60}")
    numeric = {key: value for key, value in read.items() if value is None or type(value) in {int, float}}
    return {key: value if _is_number(value) else None for key, value in numeric.items()}


def _is_number(value: Any) -> bool:
    return type(value) in {int, float} and -LARGEST < value < LARGEST  # false for NaN


def _are_numbers(values: Any, *, gaps: bool) -> bool:
    return isinstance(values, tuple) and all(_is_number(value) or (gaps and value is None) for value in values)


FIELDS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("phase", "verdict", "reason", "trigger"), lambda value: isinstance(value, str)),
    **dict.fromkeys(("step", "lr_before", "lr_after", "forwards", "spent", "seconds"), _is_number),
    **dict.fromkeys(
        ("loss", "drop_rate", "drop_rate_stderr", "k0", "k1", "k2", "eps_min", "eps_min_stderr"),
        lambda value: value is None or _is_number(value),
    ),
    **dict.fromkeys(("eps", "validation_eps"), functools.partial(_are_numbers, gaps=False)),
    **dict.fromkeys(("losses", "validation_losses"), functools.partial(_are_numbers, gaps=True)),
    "search": lambda value: value is None or isinstance(value, dict),
}


def _short_names(paths: list[Path]) -> list[str]:
    """The last part of each path, with as many folders before it as tell it from the others."""
    parts = [path.with_suffix("").parts if path.suffix == ".jsonl" else path.parts for path in paths]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(p[-length:]) for p in parts]
        if len(set(names)) == len(names):
            return [printable(name) for name in names]
    return [printable(str(path)) for path in paths]
