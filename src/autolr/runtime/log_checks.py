"""What a line of a log must be before anything is made of it: whoever reads a log may not have written it.

A line that is not so raises ValueError, TypeError or KeyError, with the reason; the reader adds file and line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

LARGEST = 1e100  # of the numbers that are summed: beyond it sums overflow
LATEST = 1e12  # [s] since 1970
LONGEST = 10_000_000  # [steps] of a run: a line can tell of any number, and each takes memory where it is read
OCTAVES = 64  # between two rates that have anything to do with each other
NUMBERS = ("lr_before", "lr_after", "seconds")
COUNTS = ("step", "forwards", "observations", "spent")
MAYBE = ("loss", "drop_rate", "drop_rate_stderr", "k0", "k1", "k2", "eps_min", "eps_min_stderr")
WORDS = ("phase", "verdict", "trigger", "reason")
SAMPLES = (("eps", "losses"), ("validation_eps", "validation_losses"))


def is_number(value: Any) -> bool:
    """A finite one, also as a float: JSON has whole numbers of any length."""
    return type(value) in {int, float} and -sys.float_info.max <= value <= sys.float_info.max  # false for NaN


def is_shortfall(value: Any) -> bool:
    """Octaves by which a peak was lowered."""
    return is_number(value) and 0 <= value < OCTAVES


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
    lr, low, high = (search[name] for name in ("lr", "low", "high"))
    _check(_is_rate(lr), "lr", lr)
    _check(low == 0 or _is_rate(low), "low", low)  # 0 to infinity: where nothing could be told
    _check(high is None or _is_rate(high), "high", high)
    _check(_are(search["runs"], lambda run: isinstance(run, dict)), "runs", search["runs"])
    for run in search["runs"]:
        _check(is_count(run["length"]), "length", run["length"])
        _check(_is_rate(run["lr"]), "lr", run["lr"])
        _check(_are(run.get("losses", []), _can_be_summed), "losses", run.get("losses"))
    losses = search.get("start_losses", [])
    _check(_are(losses, _can_be_summed), "start_losses", losses)
    _check(is_shortfall(search.get("shortfall", 0.0)), "shortfall", search.get("shortfall"))


def checked_start(read: Mapping[str, Any]) -> dict[str, Any]:
    """Who runs what; a length that is not known, and anything else, may be missing."""
    about = read["run"]
    _check(isinstance(about, dict), "run", about)
    limits: dict[str, Callable[[Any], bool]] = {
        "total_steps": is_count, "time": _is_time, "host": _is_text, "optimizer": _is_text, "policy": _is_text,
        "from": is_count, "decisions": is_count,
        "pid": lambda pid: type(pid) is int and 0 < pid < 2**31,
    }  # fmt: skip
    for name, fits in limits.items():
        _check(name not in about or fits(about[name]), name, about.get(name))
    return dict(about)


def checked_beat(read: Mapping[str, Any]) -> tuple[int, float, tuple[tuple[float, int], ...], float | None]:
    """A sign of life: step, time, rates, loss."""
    step, time, loss = read["beat"], read["time"], read.get("loss")
    _check(is_count(step), "beat", step)
    _check(_is_time(time), "time", time)
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


def _is_rate(value: Any) -> bool:
    return is_number(value) and 0 < value < LARGEST


def _is_time(value: Any) -> bool:
    return is_number(value) and abs(value) < LATEST


def _can_be_summed(value: Any) -> bool:
    return value is None or (is_number(value) and abs(value) < LARGEST)


def _is_number_or_none(value: Any) -> bool:
    return value is None or is_number(value)


def _are(values: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(values, (list, tuple)) and all(map(fits, values))


def _check(fits: bool, name: str, value: Any) -> None:
    if not fits:
        raise TypeError(f"{name} cannot be {value!r:.60}")
