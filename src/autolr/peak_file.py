"""What a file of a `Peak` must be before one is made of it: whoever reads it may not have written it."""

from __future__ import annotations

import math
from typing import Any

from autolr.numerics.bracket import Bottom, ShortRun
from autolr.runtime.log_checks import LARGEST, is_count, is_number, is_shortfall

FORMAT = 1  # of the JSON
RATES = ("lr", "low", "high", "given")
NUMBERS = ("cost", "share", "seconds")


def fields_of(read: Any) -> dict[str, Any]:
    """The fields of a `Peak`, from JSON that was read.

    Raises:
        ValueError, TypeError, KeyError: it is not one; the reason in words.
    """
    if not isinstance(read, dict) or read.get("format") != FORMAT:
        raise ValueError(f"it is not in format {FORMAT}")
    fields = {"shortfall": 0.0} | {name: value for name, value in read.items() if name != "format"}
    fields["runs"] = tuple(_run(run) for run in _items("runs", fields["runs"]))
    fields["bottoms"] = tuple(_bottom(place) for place in _items("bottoms", fields["bottoms"]))
    fields["start_losses"] = _losses("start_losses", fields["start_losses"])
    fields["notes"] = tuple(_items("notes", fields["notes"]))
    fields["high"] = math.inf if fields["high"] is None else fields["high"]
    for name in RATES:
        _check(_is_loss(fields[name]) and fields[name] >= 0, name, fields[name])
    _check(fields["low"] <= fields["high"], "low above high", fields["low"])
    for name in NUMBERS:
        _check(_is_loss(fields[name]), name, fields[name])
    _check(is_count(fields["total_steps"]) and fields["total_steps"] > 0, "total_steps", fields["total_steps"])
    _check(len(fields["start_losses"]) > 0, "start_losses", [])
    _check(is_shortfall(fields["shortfall"]), "shortfall", fields["shortfall"])
    for text in (fields["fallback"] or "", *fields["notes"]):
        _check(isinstance(text, str), "a note", text)
    return fields


def finite(value: Any) -> Any:
    """Plain values with None for what JSON has no number for."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _run(read: Any) -> ShortRun:
    _check(isinstance(read, dict), "a run", read)
    run = ShortRun(**read | {"losses": _losses("losses", read["losses"])})
    _check(is_count(run.length), "length", run.length)
    _check(is_number(run.lr) and run.lr > 0, "lr", run.lr)
    _check(_is_loss(run.cost), "cost", run.cost)
    return run


def _bottom(read: Any) -> Bottom:
    _check(isinstance(read, dict), "a bottom", read)
    bottom = Bottom(**read)
    _check(is_count(bottom.length), "length", bottom.length)
    for name in ("place", "stderr", "share"):
        _check(_is_loss(getattr(bottom, name)), name, getattr(bottom, name))
    return bottom


def _losses(name: str, read: Any) -> tuple[float, ...]:
    losses = tuple(math.nan if loss is None else loss for loss in _items(name, read))
    _check(all(map(_is_loss, losses)), name, losses)
    return losses


def _items(name: str, read: Any) -> list[Any]:
    _check(isinstance(read, list), name, read)
    items: list[Any] = read
    return items


def _is_loss(value: Any) -> bool:
    """A number, or one that is none: infinite above, or NaN."""
    if type(value) is int:
        return -LARGEST < value < LARGEST
    return type(value) is float and (-LARGEST < value < LARGEST or value == math.inf or math.isnan(value))


def _check(fits: bool, name: str, value: Any) -> None:
    if not fits:
        raise TypeError(f"{name} cannot be {value!r:.60}")
