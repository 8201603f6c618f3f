"""What the runs come to: ours beside the published best, and the rebuilt problems beside the published ones."""

from __future__ import annotations

import math
import statistics

from autolr_lab.benchmark.inference import Difference
from autolr_lab.runner.markdown import markdown_table, mean_and_sd
from autolr_lab.runner.results import Row
from autolr_lab.studies.deepobs.published import LOSSES

NAMES = {"GradientDescent": "SGD", "Momentum": "momentum .99", "Adam": "Adam"}


def tables(rows: list[Row]) -> dict[str, str]:
    """The comparison, and the check of the rebuilding."""
    return {"against": comparison(rows), "rebuilt": rebuilding(rows)}


def groups(rows: list[Row], method: str) -> list[list[Row]]:
    """The runs of a method that differ in nothing but their seed."""
    names = ("problem", "optimizer", "epochs", "rate")
    keys = list(dict.fromkeys(tuple(row[name] for name in names) for row in rows if row["method"] == method))
    return [
        [row for row in rows if row["method"] == method and tuple(row[name] for name in names) == key] for key in keys
    ]


def ratio(rows: list[Row], name: str) -> Difference:
    """The log of our loss over that of the published best, seed by seed."""
    return Difference(tuple(log_ratio(row[name], row[f"best_{name}"]) for row in rows))


def log_ratio(ours: float, theirs: float) -> float:
    """Infinite where ours is no number."""
    return math.log(ours / theirs) if math.isfinite(ours) else math.inf


def comparison(rows: list[Row]) -> str:
    """A row for each pair of problem and optimizer, and length."""
    lines = []
    for group in groups(rows, "ours"):
        one = group[0]
        peaks = [row["peak"] for row in group]
        lines.append([
            one["problem"], NAMES[one["optimizer"]], str(one["epochs"]),
            f"{one['best_rate']:.3g} ({one['best_seeds']})", f"{one['best_test_loss']:.4g}",
            f"{one['given_test_loss']:.4g}", f"{one['given']:g}",
            f"{min(peaks):.2g} to {max(peaks):.2g}" if len(peaks) > 1 else f"{peaks[0]:.3g}", str(len(group)),
            mean_and_sd([row["test_loss"] for row in group], "{:.4g}"), *_ratios(group),
            _accuracies(group) if "test_accuracy" in one else "",
        ])  # fmt: skip
    head = [
        "problem", "optimizer", "epochs", "published best rate (seeds)", "its test loss",
        "published test loss at the given rate", "given rate", "our peak", "n", "our test loss",
        "log ratio, test", "log ratio, training", "accuracy, %, ours / theirs",
    ]  # fmt: skip
    return markdown_table(head, lines)


def _accuracies(group: list[Row]) -> str:
    mine = statistics.fmean(row["test_accuracy"] for row in group)
    return f"{100 * mine:.1f} / {100 * group[0]['best_test_accuracy']:.1f}"


def _ratios(group: list[Row]) -> list[str]:
    found = [ratio(group, name) for name in reversed(LOSSES)]
    return [f"{one.mean:+.3f}" + (f" ± {one.half:.3f}" if math.isfinite(one.half) else "") for one in found]


def rebuilding(rows: list[Row]) -> str:
    """A constant rate here and there, after as many epochs; how many of their standard deviations lie between."""
    lines = []
    for group in groups(rows, "constant"):
        one = group[0]
        for name in LOSSES:
            mean, deviation = one[f"published_{name}"]
            here = statistics.fmean(row[name] for row in group)
            lines.append([
                one["problem"], NAMES[one["optimizer"]], f"{one['rate']:.3g}", str(one["epochs"]),
                name.replace("_", " ").replace("train ", "training "), f"{mean:.5g} ± {deviation:.2g}", str(len(group)),
                f"{here:.5g}", f"{(here - mean) / deviation:+.1f}",
            ])  # fmt: skip
    head = [
        "problem", "optimizer", "constant rate", "epochs", "what", "published, ten seeds", "n here", "here",
        "apart, in their standard deviations",
    ]  # fmt: skip
    return markdown_table(head, lines)
