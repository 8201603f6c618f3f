"""Trainings from files: decision logs, and folders that hold one and, where somebody kept them, points of curves.

A **decision log** is what ``AutoLR(..., trace=FILE)`` writes. **Points** are JSON lines, written by any program::

    {"step": 100, "lr": 0.1, "loss": 1.9}
    {"step": 400, "train_loss": 1.2, "test_loss": 1.3, "test_accuracy": 0.61}

``step`` is needed, everything else may be missing; `Training` says which names are drawn. In a folder, files that end in
``.jsonl`` are told apart by their first line; points belong to the one log beside them. ``result.json``, if it is there,
is one object of numbers at the end, of which ``steps`` is the number of steps.
"""

from __future__ import annotations

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
            found[folder] = [*logs, *points, *folder.glob("result.json")]
    return found


def _kind(file: Path) -> str | None:
    """``"log"`` or ``"points"`` by the first line; None for anything else."""
    try:
        with file.open(encoding="utf8") as opened:
            first = json.loads(opened.readline())
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
    result: dict[str, float | None] | None = None
    for file in files:
        if file.name == "result.json":
            (result,) = _parsed(file, _numbers, whole=True)
        elif _kind(file) == "log":
            records = _parsed(file, _record)
        else:
            points += _parsed(file, _point)
    planned = [r.search.get("total_steps") for r in records if r.search]
    steps = next((steps for steps in [(result or {}).get("steps"), *planned] if _is_number(steps)), None)
    return Training(name, records, sorted(points, key=lambda p: p["step"] or 0), int(steps) if steps else None, result)


def _parsed(file: Path, parse: Callable[[Any], T], *, whole: bool = False) -> list[T]:
    """Every line, or the whole file, through ``parse``; a last line that a kill cut off is left out."""
    number, parsed = 1, []
    try:
        text = file.read_text(encoding="utf8")
        lines = [text] if whole else text.split("\n")
        for number, line in enumerate(lines, 1):
            try:
                parsed.append(parse(json.loads(line)))
            except json.JSONDecodeError:
                if number < len(lines) or whole:
                    raise
    except OSError as error:
        raise ReportError(f"{file} cannot be read: {error.strerror}.") from error
    except UNREADABLE as error:
        told = f"{error}" if isinstance(error, (ValueError, TypeError)) else f"{type(error).__name__}: {error}"
        raise ReportError(
            f"{file}, line {number}, is damaged or was written by another version: {told:.200}. Leave the file out."
        ) from error
    return parsed


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
    if not _is_number(read["step"]):
        raise TypeError(f"step cannot be {read['step']!r:.60}")
    return _numbers(read)


def _numbers(read: dict[str, Any]) -> dict[str, float | None]:
    """The numbers of an object, None for those that are not finite."""
    numeric = {key: value for key, value in read.items() if value is None or type(value) in {int, float}}
    return {key: value if _is_number(value) else None for key, value in numeric.items()}


def _is_number(value: Any) -> bool:
    return type(value) in {int, float} and -LARGEST < value < LARGEST  # false for NaN


def _is_gap_or_number(value: Any) -> bool:
    return value is None or _is_number(value)


def _are_numbers(values: Any) -> bool:
    return isinstance(values, tuple) and all(map(_is_number, values))


def _are_gaps_or_numbers(values: Any) -> bool:
    return isinstance(values, tuple) and all(map(_is_gap_or_number, values))


FIELDS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("phase", "verdict", "reason", "trigger"), lambda value: isinstance(value, str)),
    **dict.fromkeys(("step", "lr_before", "lr_after", "forwards", "spent", "seconds"), _is_number),
    **dict.fromkeys(("loss", "drop_rate", "drop_rate_stderr", "k0", "k1", "k2", "eps_min"), _is_gap_or_number),
    **dict.fromkeys(("eps", "validation_eps"), _are_numbers),
    **dict.fromkeys(("losses", "validation_losses"), _are_gaps_or_numbers),
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
