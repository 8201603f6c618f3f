"""What the runs come to: losses by rate, the best rate by each kind of loss, and the methods beside them."""

from __future__ import annotations

import math
from collections.abc import Callable

from autolr_lab.runner.markdown import markdown_table
from autolr_lab.runner.results import Row

LOSSES = ("train", "evaluation", "held_out")


def tables(rows: list[Row]) -> dict[str, str]:
    """A table for each task, length and seed."""
    groups = sorted({(row["task"], row["steps"], row["seed"]) for row in rows})
    return {
        f"{task}, {steps} steps, seed {seed}": _table(
            [row for row in rows if (row["task"], row["steps"], row["seed"]) == (task, steps, seed)]
        )
        for task, steps, seed in groups
    }


def _table(rows: list[Row]) -> str:
    alone = sorted((row for row in rows if row["method"] == "grid"), key=lambda row: row["rate"])
    best = {name: lowest(alone, name) for name in LOSSES}
    lines = [_line(f"grid{_marks(row, best)}", row, row["rate"], best["held_out"]) for row in alone]
    lines += [_line(row["method"], row, row["peak"], best["held_out"]) for row in rows if row["method"] != "grid"]
    head = [
        "method", "peak", "steps trained", "training loss", "loss on the judges", "held-out loss",
        "log ratio to the best", "change of the weights",
    ]  # fmt: skip
    return markdown_table(head, lines)


def lowest(rows: list[Row], name: str) -> Row | None:
    """The run with the lowest loss of this kind; None where no run has one."""
    there = [row for row in rows if math.isfinite(row[name])]
    return min(there, key=_of(name), default=None)


def _of(name: str) -> Callable[[Row], float]:
    return lambda row: float(row[name])


def _marks(row: Row, best: dict[str, Row | None]) -> str:
    words = {"train": "training", "evaluation": "judges", "held_out": "held out"}
    found = [words[name] for name in LOSSES if best[name] is row]
    return f", best of {', '.join(found)}" if found else ""


def _line(label: str, row: Row, rate: float, best: Row | None) -> list[str]:
    ratio = math.nan if best is None else math.log(row["held_out"] / best["held_out"])
    figures = [f"{row[name]:.4f}" for name in LOSSES]
    return [label, f"{rate:.3g}", str(row["trained"]), *figures, f"{ratio:+.3f}", f"{100 * row['change']:.2f} %"]
