"""Results as people read them: tables, means with their spread, and where the numbers come from."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from autolr_lab.runner.results import Row


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "".join("| " + " | ".join(line) + " |\n" for line in (head, ["---"] * len(head), *lines))


def figure(row: Row, key: str) -> float:
    """A figure of a run's result; NaN where it is none (a run that diverged)."""
    found = row["result"].get(key)
    return math.nan if found is None else float(found)


def mean_and_sd(values: Sequence[float], form: str) -> str:
    """Mean ± standard deviation; of a single value only itself, of none a dash. Runs without the figure are counted."""
    finite = [v for v in values if not math.isnan(v)]
    if not finite:
        return "-"
    told = form.format(statistics.fmean(finite))
    if len(finite) > 1:
        told += f" ± {form.format(statistics.stdev(finite))}"
    return told if len(finite) == len(values) else f"{told} ({len(values) - len(finite)} of {len(values)} not finite)"


def origins(rows: Sequence[Row]) -> str:
    """What has to be said beside results of these runs, and where they were run."""
    said = sorted({notice for row in rows if (notice := (row.get("result") or {}).get("notice"))})
    told = [*said, *(f"{title}: {', '.join(names)}." for title, names in _origins(rows))]
    return "".join(f"- {line}\n" for line in told)


def what_was_trained(workload: str, rows: Sequence[Row], epochs: float) -> str:
    """The workload and for how long, and `origins`."""
    ran = " or ".join(str(n) for n in sorted({row["settings"]["epochs"] for row in rows})) or "no"
    return f"- Workload `{workload}`, {ran} epochs (in full: {epochs:g}).\n{origins(rows)}"


def _origins(rows: Sequence[Row]) -> Iterator[tuple[str, list[Any]]]:
    parts = [part for row in rows for part in (row["provenance"], *row.get("resumed", []))]
    titles = {"Commit": "commit", "Machine": "machine", "torch": "torch", "GPU": "cuda", "Threads a run": "threads"}
    for title, key in titles.items():
        names = sorted({str(part[key]) for part in parts if part.get(key)})
        if names:
            yield title, names
