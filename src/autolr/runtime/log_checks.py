"""What a line of a log must be before anything is made of it: whoever reads a log may not have written it.

A line that is not so raises ValueError, TypeError or KeyError, with the reason; the reader adds file and line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

LARGEST = 1e100  # a number beyond it overflows in arithmetic
LONGEST = 10_000_000  # [steps] of a run: a line can tell of any number, and each takes memory where it is read
NUMBERS = ("lr_before", "lr_after", "seconds")
COUNTS = ("step", "forwards", "observations", "spent")
MAYBE = ("loss", "drop_rate", "drop_rate_stderr", "k0", "k1", "k2", "eps_min", "eps_min_stderr")
WORDS = ("phase", "verdict", "trigger", "reason")
SAMPLES = (("eps", "losses"), ("validation_eps", "validation_losses"))


def is_number(value: Any) -> bool:
    """A finite one that arithmetic can be done with."""
    return type(value) in {int, float} and -LARGEST < value < LARGEST  # false for NaN


def is_count(value: Any) -> bool:
    """A whole number, from 0."""
    return type(value) is int and 0 <= value < LARGEST


def check_record(record: Any) -> None:
    """A `DecisionRecord`, whose fields may be anything."""
    for names, fits in ((WORDS, _is_text), (NUMBERS, is_number), (COUNTS, is_count), (MAYBE, _is_number_or_none)):
        for name in names:
            _check(fits(getattr(record, name)), name, getattr(record, name))
    for eps, losses in SAMPLES:
        at, seen = getattr(record, eps), getattr(record, losses)
        _check(_are(at, is_number), eps, at)
        _check(_are(seen, _is_number_or_none) and len(seen) == len(at), losses, seen)
    if record.search is not None:
        check_search(record.search)


def check_search(search: Any) -> None:
    """What a search found, of the form of `Peak.to_json`, with None for what is not finite."""
    _check(isinstance(search, dict), "search", search)
    for name in ("lr", "low", "high"):
        _check(is_number(search[name]) and search[name] > 0, name, search[name])
    _check(_are(search["runs"], lambda run: isinstance(run, dict)), "runs", search["runs"])
    for run in search["runs"]:
        _check(is_count(run["length"]), "length", run["length"])
        _check(is_number(run["lr"]) and run["lr"] > 0, "lr", run["lr"])
        losses = run.get("losses", [])
        _check(_are(losses, _is_number_or_none), "losses", losses)
    losses = search.get("start_losses", [])
    _check(_are(losses, _is_number_or_none), "start_losses", losses)


def checked_start(read: Mapping[str, Any]) -> dict[str, Any]:
    """Who runs what; a length that is not known, and anything else, may be missing."""
    about = read["run"]
    _check(isinstance(about, dict), "run", about)
    limits: dict[str, Callable[[Any], bool]] = {
        "total_steps": is_count, "time": is_number, "host": _is_text, "optimizer": _is_text, "policy": _is_text,
        "pid": lambda pid: type(pid) is int and 0 < pid < 2**31,
    }  # fmt: skip
    for name, fits in limits.items():
        _check(name not in about or fits(about[name]), name, about.get(name))
    return dict(about)


def checked_beat(read: Mapping[str, Any]) -> tuple[int, float, tuple[tuple[float, int], ...], float | None]:
    """A sign of life: step, time, rates, loss."""
    step, time, loss = read["beat"], read["time"], read.get("loss")
    _check(is_count(step), "beat", step)
    _check(is_number(time), "time", time)
    _check(_is_number_or_none(loss), "loss", loss)
    if step > LONGEST:
        raise ValueError(f"it tells of {step:,} steps, and a log is read up to {LONGEST:,}")
    _check(_are(read["rates"], lambda pair: isinstance(pair, list) and len(pair) == 2), "rates", read["rates"])
    rates = tuple((rate, count) for rate, count in read["rates"])
    _check(all(is_number(rate) and rate >= 0 and is_count(count) for rate, count in rates), "rates", rates)
    _check(sum(count for _, count in rates) <= step, "rates", rates)
    return step, float(time), tuple((float(rate), count) for rate, count in rates), loss


def checked_point(read: Mapping[str, Any]) -> dict[str, float | None]:
    """What a training logged."""
    point = read["point"]
    _check(isinstance(point, dict) and is_count(point["step"]), "point", point)
    for name, value in point.items():
        _check(_is_number_or_none(value), name, value)
    return dict(point)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number_or_none(value: Any) -> bool:
    return value is None or is_number(value)


def _are(values: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(values, (list, tuple)) and all(map(fits, values))


def _check(fits: bool, name: str, value: Any) -> None:
    if not fits:
        raise TypeError(f"{name} cannot be {value!r:.60}")
