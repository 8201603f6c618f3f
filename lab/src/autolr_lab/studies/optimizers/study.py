"""The study of optimizers: every one of every package that is there, and its tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from autolr_lab.runner.results import Row
from autolr_lab.studies.optimizers.candidates import candidates
from autolr_lab.studies.optimizers.checks import CHECKS, NEAR, STEPS, WHOLE, Digits, check
from autolr_lab.studies.study import Study

# Of pytorch_optimizer, the peaks of those that people use are searched; the others are variants by the hundred.
KNOWN = {
    "ADOPT", "AdaFactor", "Adan", "CAME", "GaLore", "Lamb", "Lookahead", "Muon", "SOAP", "ScheduleFreeAdamW", "Shampoo",
    "StableAdamW",
}  # fmt: skip
SAID = {"innocent": "innocent", "resume": "resumed", "rollback": "rolled back", "no trace": "search leaves no trace"}


def measure(data_dir: Path | None) -> Iterable[Row]:  # noqa: ARG001 - the digits come with scikit-learn
    """A row for each, as it comes."""
    task = Digits()
    for candidate in candidates():
        known = candidate.package != "pytorch_optimizer" or candidate.name in KNOWN
        yield check(candidate, task, peak=known)


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """By package; each that is accepted; and the others, with the reason."""
    accepted = [row for row in rows if row["outcome"] == "accepted"]
    return {"packages": _packages(rows), "accepted": _accepted(accepted), "not": _not(rows)}


def _packages(rows: Sequence[Row]) -> str:
    lines = []
    for package, version in dict.fromkeys((row["package"], row["version"]) for row in rows):
        own = [row for row in rows if row["package"] == package]
        good = [row for row in own if row["outcome"] == "accepted"]
        counts = [
            f"{sum(row.get(name) == 'yes' for row in good)} of {sum(name in row for row in good)}" for name in CHECKS
        ]
        other = [sum(row["outcome"] == outcome for row in own) for outcome in ("refused", "cannot be used so", "fails")]
        lines.append((f"{package} {version}", len(own), len(good), *counts, *other))
    heads = ("package", "optimizers", "accepted", *SAID.values(), f"peak within {NEAR:g}", "refused", "not so", "fails")
    return _table(heads, lines)


def _accepted(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        said = [row.get(name, "").replace("|", "/") for name in SAID]
        near = row.get("near", "")
        found = f"{row['ratio']:.2g}" if "ratio" in row else near.replace("|", "/")
        regret = row.get("regret")
        loss = "" if regret is None or not math.isfinite(regret) else f"{regret:+.2f}"
        lines.append(
            (row["package"], row["optimizer"], *said, found + ("" if row.get("told", True) else " (untold)"), loss)
        )
    return _table(("package", "optimizer", *SAID.values(), "peak / grid's best", "log loss behind it"), lines)


def _not(rows: Sequence[Row]) -> str:
    others = [row for row in rows if row["outcome"] != "accepted"]
    lines = [(row["package"], row["optimizer"], row["outcome"], row["why"].replace("|", "/")[:140]) for row in others]
    return _table(("package", "optimizer", "outcome", "why"), lines)


def _table(heads: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    rule = "| " + " | ".join("---" for _ in heads) + " |"
    return (
        "\n".join([f"| {' | '.join(heads)} |", rule, *(f"| {' | '.join(map(str, line))} |" for line in lines)]) + "\n"
    )


OPTIMIZERS = Study(
    "optimizers", "Which optimizers AutoLR works with", measure, tables, {"steps": STEPS, "whole": WHOLE, "seed": 0},
)  # fmt: skip
