"""The arithmetic of the benchmark: regret to the best of a sweep, ranks, and who reaches a quality at what cost."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from autolr_lab.benchmark.inference import Difference
from autolr_lab.benchmark.tasks import Metric, Task
from autolr_lab.runner.results import Row


@dataclass(frozen=True)
class Result:
    """How a method did on a task."""

    label: str
    rows: Sequence[Row]  # a seed each
    regret: Difference | None
    train_regret: Difference | None
    cost: float  # forward equivalents, all that had to be run, in plain runs
    seconds: float  # of training, in those of the sweep's best: medians
    reached: float  # mean share of a plain run's cost until the tuned staircase's quality; infinite: not in each run
    from_rates: tuple[float, ...]  # regret from each of `methods.RATES`, with the first seed; empty where it takes none


def by_seed(rows: Sequence[Row]) -> dict[int, Row]:
    """Rows of one method."""
    return {row["settings"]["seed"]: row for row in rows}


def regret(metric: Metric, rows: Mapping[int, Row], best: Mapping[int, Row]) -> Difference | None:
    """Of a method's runs to the sweep's best, paired by seed: above 0 is worse. None where no seed is in both."""
    common = sorted(rows.keys() & best.keys())
    losses = [(metric.loss(rows[seed]["result"]), metric.loss(best[seed]["result"])) for seed in common]
    if not common:
        return None
    return Difference(tuple(mine - theirs if math.isfinite(mine) else math.inf for mine, theirs in losses))


def ranked_tasks(results: Mapping[Task, Sequence[Result]]) -> dict[Task, dict[str, float]]:
    """The tasks on which more than half of all methods have two seeds or more, with the regrets of those."""
    labels = {one.label for some in results.values() for one in some}
    enough = {
        task: {one.label: one.regret.mean for one in some if one.regret and len(one.regret.values) > 1}
        for task, some in results.items()
    }
    return {task: means for task, means in enough.items() if 2 * len(means) > len(labels)}


def mean_ranks(results: Mapping[Task, Sequence[Result]]) -> dict[str, float]:
    """Mean rank over `ranked_tasks`, of the methods that have two seeds or more on each of them; 1 is the best.

    All are ranked on the same tasks and against the same others, as a mean of ranks needs. Regrets that a table shows
    as equal are equal: they share the mean of their ranks.
    """
    tasks = ranked_tasks(results)
    ranked = [label for label in next(iter(tasks.values()), {}) if all(label in means for means in tasks.values())]
    if not ranked:
        return {}
    rounded = [[task.metric.rounded(means[label]) for label in ranked] for task, means in tasks.items()]
    ranks = np.mean([stats.rankdata(each) for each in rounded], axis=0)
    return dict(zip(ranked, map(float, ranks), strict=True))


def cost_to(metric: Metric, target: float, row: Row) -> float:
    """Forward equivalents until an evaluation was as good as ``target`` (a `Metric.loss`); infinite where none was.

    What a method spends beside its steps is taken to be spread over them evenly.
    """
    result = row["result"]
    a_step = result["forward_equivalents"] / result["steps"]
    reached = (seen["step"] * a_step for seen in row["epochs"] if metric.loss(seen) <= target)
    return next(reached, math.inf)


def expected_best(regrets: Sequence[float]) -> list[float]:
    """The lowest of k of them drawn without replacement, in expectation, for k = 1, 2, ... (Dodge et al. 2019).

    Those that are infinite count as the worst that is finite: a run that diverged is thrown away like it.
    """
    finite = [r for r in regrets if math.isfinite(r)]
    if not finite:
        return [math.inf] * len(regrets)
    ordered = sorted(r if math.isfinite(r) else max(finite) for r in regrets)
    n = len(ordered)
    # The i-th lowest is the lowest of k where the other k - 1 are among the n - 1 - i above it.
    return [
        sum(r * math.comb(n - 1 - i, k - 1) for i, r in enumerate(ordered)) / math.comb(n, k) for k in range(1, n + 1)
    ]


def median_seconds(rows: Sequence[Row]) -> float:
    """Of training."""
    return statistics.median(float(row["result"]["training_seconds"]) for row in rows)


def mean_cost(rows: Sequence[Row]) -> float:
    """[forward equivalents] of one run."""
    return statistics.fmean(float(row["result"]["forward_equivalents"]) for row in rows)
