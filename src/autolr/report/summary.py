"""The summary table: what each run came to and cost, and the mean over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr.policies.wording import number
from autolr.report.curves import metrics_of, title
from autolr.report.groups import Group
from autolr_lab.training.runs import Run
from autolr.runtime.decision_log import tally

DASH = "–"  # noqa: RUF001 - an empty cell
NOT_FINITE = "not finite"
NBSP = "\N{NO-BREAK SPACE}"
# What AutoLR did and spent, from result.json: key -> heading.
ACCOUNT = {
    "looks": "looks",
    "changes": "changes",
    "rollbacks": "rollbacks",
    "cost_forward_equivalents": "cost [forwards]",
    "cost_share": "cost [share]",
    "cost_seconds": "cost [s]",
    "training_seconds": "training [s]",
}
PERCENT = ("accuracy", "share")
SECONDS = "seconds"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    kind: str  # "finished", "cut-off" or "mean"
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """The table: headings and rows."""

    headings: tuple[str, ...]
    rows: tuple[Row, ...]


def summarise(groups: Sequence[Group], names: Mapping[int, str]) -> Summary:
    """One row a run, and below the runs of a group that has several, their mean.

    Args:
        groups: all runs of the report.
        names: of the runs, by ``id``.
    """
    metrics = ["train_loss", *metrics_of(run for group in groups for run in group.runs)]
    keys = [*metrics, *ACCOUNT]
    rows: list[Row] = []
    for group in groups:
        rows += [_run_row(run, group, names[id(run)], keys) for run in group.runs]
        if len(group.runs) > 1:
            rows.append(_mean_row(group, keys))
    headings = ("run", "settings", "seed", "seed LR", "epochs", *map(title, metrics), *ACCOUNT.values())
    return Summary(headings, tuple(rows))


def outcome(run: Run) -> dict[str, float | None]:
    """The numbers of a run by key: all of ``result.json``, or what the logs of one that was cut off tell.

    A key that is not there does not apply; None is a number that was not finite.
    """
    values: dict[str, Any] = dict(run.epochs[-1]) if run.epochs else {}
    if run.decisions:
        values |= tally(run.decisions)
    return values | (run.result or {})


def logged_forwards(run: Run) -> int:
    """Forward equivalents in the decision log: less than all, by what was spent since the last record."""
    start = discarded = 0
    for record in run.decisions:
        # "go on" leaves out one trial and takes another back in.
        if record.verdict in {"undo", "go back", "start over", "roll back"}:
            discarded += record.step - start
        if record.verdict != "look":
            start = record.step
    return sum(record.forwards for record in run.decisions) + FORWARDS_PER_STEP * discarded


def shown(key: str, value: float | None) -> str:
    """A number as the table shows it: accuracies and shares in percent, counts whole."""
    if value is None or not math.isfinite(value):
        return NOT_FINITE
    if key.endswith(PERCENT):
        return f"{100 * value:.2f} %"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.1f}" if key.endswith(SECONDS) else f"{value:.4g}"


def mean_and_spread(key: str, values: Sequence[float | None]) -> str:
    """Mean and standard deviation over runs, to two digits of the latter."""
    finite = [v for v in values if v is not None and math.isfinite(v)]
    if len(finite) < len(values):
        return f"{NOT_FINITE} in {len(values) - len(finite)} of {len(values)}"
    scale, unit = (100, f"{NBSP}%") if key.endswith(PERCENT) else (1, "")
    mean, spread = scale * statistics.fmean(finite), scale * statistics.stdev(finite)
    digits = 1 - math.floor(math.log10(spread)) if spread else -1
    if not 0 <= digits <= 6:  # also for a spread of 0, which has no digits
        return f"{number(mean)} ±{NBSP}{number(spread)}{unit}"
    return f"{mean:,.{digits}f} ±{NBSP}{spread:,.{digits}f}{unit}"


def _run_row(run: Run, group: Group, name: str, keys: Sequence[str]) -> Row:
    settings, values = run.settings, outcome(run)
    cells = [shown(key, values[key]) if key in values else DASH for key in keys]
    epochs = str(settings.epochs)
    if run.result is None:
        epochs = f"{len(run.epochs)} of {epochs}, cut off"
        if run.decisions:
            cells[keys.index("cost_forward_equivalents")] = f"≥ {logged_forwards(run):,}"
    kind = "finished" if run.result is not None else "cut-off"
    return Row(kind, (name, group.name, str(settings.seed), number(settings.lr), epochs, *cells))


def _mean_row(group: Group, keys: Sequence[str]) -> Row:
    n, of = len(group.finished), len(group.runs)
    about = (f"mean{NBSP}±{NBSP}sd", group.name, f"n{NBSP}={NBSP}{n}" + (f" of {of}" if n < of else ""), "", "")
    outcomes = [outcome(run) for run in group.finished]
    cells = [
        mean_and_spread(key, [o[key] for o in outcomes]) if n > 1 and all(key in o for o in outcomes) else DASH
        for key in keys
    ]
    return Row("mean", (*about, *cells))
