"""The arithmetic of the benchmark: differences with the best of a sweep, and who reaches a quality at what cost."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from autolr_lab.benchmark.contest import Metric
from autolr_lab.runner.experiment import Row


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences, in the metric's unit: above 0 is worse than what it is compared with."""

    mean: float
    half: float  # of the 95 % interval; NaN for a single pair
    pairs: int

    @property
    def decided(self) -> bool:
        """Whether 0 is outside the interval."""
        return abs(self.mean) > self.half


@dataclass(frozen=True)
class Standing:
    """How a method did in a contest."""

    label: str
    rows: Sequence[Row]  # a seed each
    regret: Difference | None
    train_regret: Difference | None
    cost: float  # forward equivalents, all that had to be run, in plain runs
    seconds: float  # of training, in those of the sweep's best: medians
    reached: float  # mean share of a plain run's cost until the tuned staircase's quality; infinite: not in each run
    from_seeds: tuple[float, ...]  # regret from each rate of SPREAD, with the first seed; empty where it takes none


def regret(metric: Metric, rows: Mapping[int, Row], best: Mapping[int, Row]) -> Difference | None:
    """Of a method's runs to those of the sweep's best, paired by seed; None where no seed is in both.

    Infinite where a run diverged. The interval is Student's.
    """
    common = sorted(rows.keys() & best.keys())
    if not common:
        return None
    losses = [(metric.loss(rows[s]["result"]), metric.loss(best[s]["result"])) for s in common]
    differences = [mine - others for mine, others in losses]
    if not all(map(math.isfinite, differences)):
        return Difference(math.inf, math.nan, len(common))
    mean = statistics.fmean(differences)
    if len(differences) == 1:
        return Difference(mean, math.nan, 1)
    return Difference(mean, half_interval(differences, 0.95), len(differences))


def half_interval(values: Sequence[float], confidence: float) -> float:
    """Half the width of Student's interval of their mean; two values or more."""
    return float(stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values))


def by_seed(rows: Sequence[Row]) -> dict[int, Row]:
    """Rows of one method."""
    return {row["settings"]["seed"]: row for row in rows}


def cost_to(metric: Metric, target: float, row: Row) -> float:
    """Forward equivalents until an evaluation was as good as ``target`` (a `Metric.loss`); infinite where none was.

    What a method spends beside its steps is taken to be spread over them evenly.
    """
    result = row["result"]
    a_step = result["forward_equivalents"] / result["steps"]
    reached = (seen["step"] * a_step for seen in row["epochs"] if metric.loss(seen) <= target)
    return next(reached, math.inf)


def profile(costs: Mapping[str, Sequence[float]]) -> dict[str, list[tuple[float, float]]]:
    """Performance profiles (Dolan and Moré 2002): the share of problems in which a method is within tau of the fastest.

    Args:
        costs: by method, of each problem, in the same order; infinite where it never got there.

    Returns:
        By method, the points ``(tau, share)`` at which its staircase rises; tau is at least 1.
    """
    problems = len(next(iter(costs.values()), ()))
    assert all(len(each) == problems for each in costs.values()), "every method has every problem"
    fastest = [min(each[i] for each in costs.values()) for i in range(problems)]
    curves = {}
    for method, each in costs.items():
        ratios = sorted(c / f for c, f in zip(each, fastest, strict=True) if math.isfinite(c))
        curves[method] = [(ratio, number / problems) for number, ratio in enumerate(ratios, start=1)]
    return curves


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


def ranks(scores: Mapping[str, float]) -> dict[str, float]:
    """1 for the lowest; equal ones share the mean of their ranks."""
    found = stats.rankdata(list(scores.values()))
    return dict(zip(scores, map(float, found), strict=True))
