"""The benchmark's tables: regret over all contests, a table for each, and what the methods are."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from autolr_lab.benchmark.contest import TRAIN_LOSS, Contest, Metric
from autolr_lab.runner.experiment import Ask, Row, markdown_table, spread
from autolr_lab.benchmark.regret import Difference, Standing, ranks
from autolr_lab.runner.search import PEAKS, SCHEDULES
from autolr_lab.baselines import PEERS

NOTES = (
    "- Regret: the mean difference to the best of the sweep, paired by seed, with Student's 95 % interval; above 0 is "
    "worse. The sweep's best was chosen by the same test metric, which favours it.\n"
    "- Cost: forward equivalents in plain runs, looks, trials, line searches, range tests and the pass for BatchNorm "
    "among them. Every single run has the same budget: who spends more a step takes fewer.\n"
    "- From other rates: the regret from a hundredth, one and a hundred times the rate that the method is used with, "
    "one seed: median / worst.\n"
    f"- The sweep: {len(PEAKS)} peaks over four decades x {', '.join(SCHEDULES)}, a twentieth of warm-up, one seed "
    "each; its three best with every seed.\n"
)


def methods_table(ask: Ask, rows: Sequence[Row]) -> str:
    """What each method is, as it was used."""
    versions = {row["settings"]["schedule"]: row["result"]["package"] for row in rows if "package" in row["result"]}
    lines = [
        [peer.title, f"{peer.source}{f' ({versions[name]})' if name in versions else ''}", peer.usage, peer.limits]
        for name, peer in PEERS.items()
        if ask.wants(peer.title)
    ]
    return f"### The methods\n\n{markdown_table(['method', 'from', 'used as', 'what it cannot do'], lines)}"


def summary_table(whole: dict[Contest, list[Standing]]) -> str:
    """Regret by contest and mean rank, of everything that was run; the best rank first."""
    by_label: dict[str, dict[Contest, Standing]] = {}
    for contest, standings in whole.items():
        for standing in standings:
            by_label.setdefault(standing.label, {})[contest] = standing
    ranked: dict[str, list[float]] = {label: [] for label in by_label}
    for standings in whole.values():
        for label, rank in ranks({s.label: s.regret.mean if s.regret else math.inf for s in standings}).items():
            ranked[label].append(rank)
    order = sorted(by_label, key=lambda label: (len(ranked[label]) < len(whole), statistics.fmean(ranked[label])))
    lines = []
    for label in order:
        here = by_label[label]
        cells = [_short(contest.metric, here[contest].regret) if contest in here else "-" for contest in whole]
        cost = statistics.fmean(standing.cost for standing in here.values())
        lines.append([label, f"{statistics.fmean(ranked[label]):.1f}", f"{cost:.2f}", *cells])
    head = ["method", "mean rank", "cost, runs", *(f"{c.name}, {c.metric.unit}" for c in whole)]
    return f"Regret to the best of the sweep:\n\n{markdown_table(head, lines)}"


def contest_table(contest: Contest, standings: Sequence[Standing]) -> str:
    """What was trained, and a line for each method, the sweep's best first."""
    metric, best = contest.metric, standings[0]
    settings, result = best.rows[0]["settings"], best.rows[0]["result"]
    head = [
        "method", "n", metric.title, f"regret, {metric.unit}", TRAIN_LOSS.title, "its regret", "cost, runs",
        "seconds, of the best's", "runs to the tuned staircase's quality", "from other rates",
    ]  # fmt: skip
    lines = []
    for s in standings:
        results = [row["result"] for row in s.rows]
        lines.append([
            s.label, str(len(s.rows)), spread([metric.of(r) for r in results], metric.form), _long(metric, s.regret),
            spread([TRAIN_LOSS.of(r) for r in results], TRAIN_LOSS.form), _short(TRAIN_LOSS, s.train_regret),
            f"{s.cost:.2f}", f"{s.seconds:.2f}", "-" if math.isinf(s.reached) else f"{s.reached:.2f}",
            _away(metric, s.from_seeds),
        ])  # fmt: skip
    return (
        f"### {contest.name}\n\n"
        f"{settings['epochs']} epochs, {result['steps']} steps of {settings['batch_size']}, "
        f"{result['forward_equivalents']:,} forward equivalents a run; seed rate {contest.seed_rate:g}. "
        f"The sweep's best: {settings['schedule']} from {settings['lr']:g}.\n\n{markdown_table(head, lines)}\n"
    )


def _short(metric: Metric, difference: Difference | None) -> str:
    if difference is None:
        return "-"
    return "diverged" if math.isinf(difference.mean) else _signed(metric, difference.mean)


def _long(metric: Metric, difference: Difference | None) -> str:
    told = _short(metric, difference)
    if difference is None or math.isnan(difference.half):
        return told
    return f"{told} ± {metric.form.format(difference.half)}"


def _away(metric: Metric, from_seeds: Sequence[float]) -> str:
    if not from_seeds:
        return ""
    shown = [
        "diverged" if math.isinf(v) else _signed(metric, v) for v in (statistics.median(from_seeds), max(from_seeds))
    ]
    return " / ".join(shown)


def _signed(metric: Metric, number: float) -> str:
    return metric.form.replace("{:", "{:+").format(number)


def csv_lines(contest: Contest, standings: Sequence[Standing]) -> Iterator[dict[str, Any]]:
    """A line for each run."""
    for s in standings:
        for row in s.rows:
            yield {
                "workload": contest.workload, "optimizer": contest.optimizer, "method": s.label,
                "seed": row["settings"]["seed"], "schedule": row["settings"]["schedule"], "lr": row["settings"]["lr"],
                "metric": contest.metric.key, "value": contest.metric.of(row["result"]),
                "train_loss": TRAIN_LOSS.of(row["result"]), "forward_equivalents": row["result"]["forward_equivalents"],
                "training_seconds": row["result"]["training_seconds"], "regret": s.regret.mean if s.regret else "",
            }  # fmt: skip
