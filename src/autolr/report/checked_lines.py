"""Lines of a file, each checked before anything is drawn of it: a damaged one is named by its number."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from autolr.report.training_record import Point
from autolr.runtime.decision_log import DecisionRecord
from autolr.runtime.log_checks import check_search

T = TypeVar("T")

UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError)
LARGEST = 1e100  # a number beyond it overflows in a picture's arithmetic


class ReportError(ValueError):
    """A file that cannot be read, or a report that cannot be written; said in one sentence or two."""


def checked(file: Path, check: Callable[[Any], T]) -> list[T]:
    """What ``check`` makes of every line.

    Raises:
        ReportError: the file cannot be read, or a line is not what it should be.
    """
    found: list[T] = []
    try:
        for line in _lines(file.read_bytes()):
            found.append(check(json.loads(line)))  # noqa: PERF401 - its length names the line that fails
    except OSError as error:
        raise ReportError(f"{file} cannot be read: {error.strerror}.") from error
    except UNREADABLE as error:
        where = f"{file}, line {len(found) + 1}"
        raise ReportError(
            f"{where}, is damaged or was written by another version: {error!s:.200}. Leave it out."
        ) from error
    return found


def of_log(read: dict[str, Any]) -> DecisionRecord | None:
    """A decision; None for another line of a run's log, checked as well."""
    if "run" in read:
        if not is_count(read["run"].get("total_steps")):
            raise TypeError(f"total_steps cannot be {read['run'].get('total_steps')!r:.60}")
    elif "beat" in read:
        _check_beat(read)
    elif "point" in read:
        of_points(read["point"])
    else:
        return _record(read)
    return None


def of_points(read: dict[str, Any]) -> Point:
    """Its numbers, None for those that are not finite."""
    if not is_number(read["step"]):
        raise TypeError(f"step cannot be {read['step']!r:.60}")
    numeric = {key: value for key, value in read.items() if value is None or type(value) in {int, float}}
    return {key: value if is_number(value) else None for key, value in numeric.items()}


def is_number(value: Any) -> bool:
    """A finite one that arithmetic can be done with."""
    return type(value) in {int, float} and -LARGEST < value < LARGEST  # false for NaN


def is_count(value: Any) -> bool:
    """Of steps; or None, where it is not known."""
    return value is None or (type(value) is int and 0 <= value < LARGEST)


def _check_beat(read: dict[str, Any]) -> None:
    if not (is_count(read["beat"]) and is_number(read["time"])):
        raise TypeError(f"a sign of life cannot be {read!r:.60}")
    if read.get("loss") is not None and not is_number(read["loss"]):
        raise TypeError(f"loss cannot be {read['loss']!r:.60}")
    for rate, count in read["rates"]:
        if not (is_number(rate) and is_number(count) and is_count(count)):
            raise TypeError(f"rates cannot be {read['rates']!r:.60}")


def _record(read: dict[str, Any]) -> DecisionRecord:
    record = DecisionRecord.from_dict(read)
    for name, fits in FIELDS.items():
        if not fits(getattr(record, name)):
            raise TypeError(f"{name} cannot be {getattr(record, name)!r:.60}")
    for eps, losses in ((record.eps, record.losses), (record.validation_eps, record.validation_losses)):
        if len(eps) != len(losses):
            raise ValueError(f"{len(eps)} eps have {len(losses)} losses")
    if record.search:
        check_search(record.search)
    return record


def _lines(content: bytes) -> list[bytes]:
    """Without a last line that a kill cut off."""
    *lines, last = content.split(b"\n")
    try:
        json.loads(last)
    except UNREADABLE:
        return lines
    return [*lines, last]


def _are_numbers(values: Any, *, gaps: bool) -> bool:
    return isinstance(values, tuple) and all(is_number(value) or (gaps and value is None) for value in values)


FIELDS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("phase", "verdict", "reason", "trigger"), lambda value: isinstance(value, str)),
    **dict.fromkeys(("step", "lr_before", "lr_after", "forwards", "spent", "seconds"), is_number),
    **dict.fromkeys(
        ("loss", "drop_rate", "drop_rate_stderr", "k0", "k1", "k2", "eps_min", "eps_min_stderr"),
        lambda value: value is None or is_number(value),
    ),
    **dict.fromkeys(("eps", "validation_eps"), functools.partial(_are_numbers, gaps=False)),
    **dict.fromkeys(("losses", "validation_losses"), functools.partial(_are_numbers, gaps=True)),
    "search": lambda value: value is None or isinstance(value, dict),
}
