"""The benchmark's tables: regret over all tasks, a table for each, and what the methods are."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from autolr_lab.baselines import BASELINES
from autolr_lab.benchmark.inference import CONFIDENCE, Difference, verdicts
from autolr_lab.benchmark.regret import Result, mean_ranks
from autolr_lab.benchmark.search import SCHEDULES, SWEEP
from autolr_lab.benchmark.tasks import PEAKS, TRAIN_LOSS, Metric, Task
from autolr_lab.runner.experiment import RunSpec
from autolr_lab.runner.markdown import markdown_table, mean_and_sd
from autolr_lab.runner.results import Row

NOTES = (
    f"- Regret: the mean difference to the best of the sweep, paired by seed, with Student's {100 * CONFIDENCE:g} % "
    "interval; above 0 is worse. The sweep's best was chosen by the same test metric, which favours it.\n"
    f"- Verdicts allow for all the methods in a table (Holm, {100 * CONFIDENCE:g} % together). As good: surely within "
    "the margin that a task's heading names, by two one-sided tests. Worse, better: surely another mean. Most of what "
    "three seeds measure is neither.\n"
    "- Mean rank: over the tasks on which most methods have two seeds or more, of the methods that have them on each; "
    "equal figures share a rank.\n"
    "- Cost: forward equivalents in plain runs, with probes, searches, line searches, range tests and the pass for "
    "BatchNorm. Every single run has the same budget: who spends more a step takes fewer.\n"
    "- From other rates: the regret from a hundredth, one and a hundred times the rate that the method is used with, "
    "one seed: median / worst.\n"
    f"- The sweep: {len(PEAKS)} peaks over four decades x {', '.join(SCHEDULES)}, with a warm-up, one seed each; its "
    "three best with every seed.\n"
)


def methods_table(spec: RunSpec, rows: Sequence[Row]) -> str:
    """What each method that was run is, as it was used."""
    run = {row["settings"]["schedule"] for row in rows}
    versions = {row["settings"]["schedule"]: row["result"]["package"] for row in rows if "package" in row["result"]}
    lines = [
        [one.title, f"{one.source}{f' ({versions[name]})' if name in versions else ''}", one.usage, one.limits]
        for name, one in BASELINES.items()
        if spec.wants(one.title) and name in run
    ]
    return f"### The methods\n\n{markdown_table(['method', 'from', 'used as', 'what it cannot do'], lines)}"


def summary_table(results: Mapping[Task, Sequence[Result]]) -> str:
    """Regret by task and mean rank, of everything that was run; the best rank first."""
    by_label: dict[str, dict[Task, Result]] = {}
    for task, some in results.items():
        for one in some:
            by_label.setdefault(one.label, {})[task] = one
    ranks = mean_ranks(results)
    order = sorted(by_label, key=lambda label: (ranks.get(label, math.inf), _middle(by_label[label])))
    lines = []
    for label in order:
        here = by_label[label]
        cells = [_cell(task.metric, here[task].regret) if task in here else "-" for task in results]
        rank = f"{ranks[label]:.1f}" if label in ranks else "-"
        lines.append([label, rank, f"{statistics.fmean(one.cost for one in here.values()):.2f}", *cells])
    head = ["method", "mean rank", "cost, runs", *(f"{task.name}, {task.metric.unit}" for task in results)]
    return f"Regret to the best of the sweep:\n\n{markdown_table(head, lines)}"


def _middle(here: Mapping[Task, Result]) -> float:
    """Of a method's regrets, in margins: to put those without a rank in order."""
    there = [(task.metric, one.regret.mean) for task, one in here.items() if one.regret is not None]
    means = [metric.rounded(mean) / metric.margin for metric, mean in there]
    return statistics.median(means) if means else math.inf


def task_table(task: Task, results: Sequence[Result]) -> str:
    """What was trained, and a line for each method, the sweep's best first."""
    metric, best = task.metric, results[0]
    settings, result = best.rows[0]["settings"], best.rows[0]["result"]
    head = [
        "method", "n", metric.title, f"regret, {metric.unit}", "verdict", TRAIN_LOSS.title, "its regret", "cost, runs",
        "seconds, of the best's", "runs to the tuned staircase's quality", "from other rates",
    ]  # fmt: skip
    said = _said(metric, results)
    lines = []
    for one in results:
        found = [row["result"] for row in one.rows]
        lines.append([
            one.label, str(len(one.rows)), mean_and_sd([metric.of(r) for r in found], metric.form),
            _long(metric, one.regret), said.get(one.label, ""),
            mean_and_sd([TRAIN_LOSS.of(r) for r in found], TRAIN_LOSS.form), _short(TRAIN_LOSS, one.train_regret),
            f"{one.cost:.2f}", f"{one.seconds:.2f}", "-" if math.isinf(one.reached) else f"{one.reached:.2f}",
            _away(metric, one.from_rates),
        ])  # fmt: skip
    return (
        f"### {task.name}\n\n"
        f"{settings['epochs']} epochs, {result['steps']} steps of {settings['batch_size']}, "
        f"{result['forward_equivalents']:,} forward equivalents a run; seed rate {task.seed_rate:g}. "
        f"{_swept(task)}The sweep's best: {settings['schedule']} from {settings['lr']:g}. "
        f"As good: within {metric.margin:g} {metric.unit}.\n\n{markdown_table(head, lines)}"
    )


def _swept(task: Task) -> str:
    """The sweep's peaks, where they are not everybody's."""
    rates = f"{task.seed_rate * task.peaks[0]:g} to {task.seed_rate * task.peaks[-1]:g}"
    return "" if task.peaks == PEAKS else f"The sweep: {len(task.peaks)} peaks, {rates}. "


def _said(metric: Metric, results: Sequence[Result]) -> dict[str, str]:
    """The verdict on each method but the sweep, which is held against itself."""
    asked = [one for one in results if one.regret is not None and one.label != SWEEP]
    words = {"higher": "worse", "lower": "better"}
    found = verdicts([one.regret for one in asked if one.regret is not None], metric.margin)
    return {one.label: words.get(verdict, verdict) for one, verdict in zip(asked, found, strict=True)}


def _short(metric: Metric, difference: Difference | None) -> str:
    if difference is None:
        return "-"
    return "diverged" if math.isinf(difference.mean) else _signed(metric, difference.mean)


def _cell(metric: Metric, difference: Difference | None) -> str:
    """A mean over one seed says so."""
    lonely = difference is not None and len(difference.values) == 1
    return _short(metric, difference) + (" (n = 1)" if lonely else "")


def _long(metric: Metric, difference: Difference | None) -> str:
    told = _short(metric, difference)
    if difference is None or math.isnan(difference.half):
        return told
    return f"{told} ± {metric.form.format(difference.half)}"


def _away(metric: Metric, regrets: Sequence[float]) -> str:
    if not regrets:
        return ""
    ends = (statistics.median(regrets), max(regrets))
    return " / ".join("diverged" if math.isinf(v) else _signed(metric, v) for v in ends)


def _signed(metric: Metric, number: float) -> str:
    return metric.form.replace("{:", "{:+").format(number)


def csv_lines(task: Task, results: Sequence[Result]) -> Iterator[dict[str, Any]]:
    """A line for each run."""
    for one in results:
        for row in one.rows:
            settings, result = row["settings"], row["result"]
            yield {
                "workload": task.workload, "optimizer": task.optimizer, "method": one.label, "seed": settings["seed"],
                "schedule": settings["schedule"], "lr": settings["lr"], "metric": task.metric.key,
                "value": task.metric.of(result), "train_loss": TRAIN_LOSS.of(result),
                "forward_equivalents": result["forward_equivalents"], "training_seconds": result["training_seconds"],
                "regret": one.regret.mean if one.regret else "",
            }  # fmt: skip
