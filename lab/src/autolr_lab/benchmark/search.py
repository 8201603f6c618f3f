"""Searches for the best schedule of a task: a grid, the staircase beside its winner, and Optuna.

Each says which runs it wants, as far as those that are there tell; so any of them goes on where it was cut off.
"""

from __future__ import annotations

import abc
import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from autolr_lab.benchmark.tasks import SEEDS, Task, score
from autolr_lab.runner.experiment import Method, RunSpec
from autolr_lab.runner.results import Row
from autolr_lab.runner.store import Find
from autolr_lab.training.runs import Settings

SCHEDULES = ("cosine", "linear", "knee")
FINALISTS = 3  # of the grid, that get as many seeds as every other method
OPTUNA_SEED = 0


@dataclass(frozen=True)
class Search(abc.ABC):
    """Runs on the way to a best schedule.

    Args:
        task: what is trained.
        spec: how.
    """

    task: Task
    spec: RunSpec

    @property
    def seeds(self) -> range:
        """Of every method."""
        return self.spec.range_of_seeds(SEEDS)

    def run(self, schedule: str, peak: float, seed: int) -> Settings:
        """A run with a schedule to a peak of so many seed rates."""
        method = Method(schedule, schedule, {"warmup": self.task.warm_up})
        return self.task.settings(self.spec, method, seed, self.task.seed_rate * peak)

    @abc.abstractmethod
    def tried(self, find: Find) -> list[Settings]:
        """The runs with the first seed, in their order: those known to be wanted."""

    @abc.abstractmethod
    def finalists(self, find: Find) -> list[Settings]:
        """Those, with the first seed, that are to be run with every seed; none as long as some run is missing."""

    def wanted(self, find: Find) -> list[Settings]:
        """Every run, as far as those that are there tell."""
        return [*self.tried(find), *(s for one in self.finalists(find) for s in self.with_seeds(one))]

    def with_seeds(self, settings: Settings) -> list[Settings]:
        """A run with every seed."""
        return [dataclasses.replace(settings, seed=seed) for seed in self.seeds]

    def winner(self, find: Find) -> list[Row]:
        """The best by its mean over the seeds, a row for each; none as long as a run is missing."""
        candidates = []
        for settings in self.finalists(find):
            rows = [find(s) for s in self.with_seeds(settings)]
            whole = [row for row in rows if row is not None]
            if len(whole) < len(rows):
                return []
            candidates.append(whole)
        return min(candidates, key=self._mean, default=[])

    def spent(self, find: Find) -> int:
        """Forward equivalents of all its runs."""
        rows = {id(row): row for s in self.wanted(find) if (row := find(s)) is not None}
        return sum(row["result"]["forward_equivalents"] for row in rows.values())

    def _mean(self, rows: Sequence[Row]) -> float:
        return statistics.fmean(score(self.task, row) for row in rows)

    def _best(self, tried: Sequence[Settings], find: Find, number: int) -> list[Settings]:
        """The best by their first seed; none as long as a run is missing."""
        rows = [find(s) for s in tried]
        if any(row is None for row in rows):
            return []
        scores = {i: score(self.task, row) for i, row in enumerate(rows) if row is not None}
        return [tried[i] for i in sorted(scores, key=scores.__getitem__)[:number]]


@dataclass(frozen=True)
class Grid(Search):
    """Every peak of the task with every schedule of `SCHEDULES`."""

    def tried(self, find: Find) -> list[Settings]:  # noqa: ARG002 - a grid is known beforehand
        """The grid."""
        return [self.run(schedule, peak, self.seeds[0]) for peak in self.task.peaks for schedule in SCHEDULES]

    def finalists(self, find: Find) -> list[Settings]:
        """The three best."""
        return self._best(self.tried(find), find, FINALISTS)


@dataclass(frozen=True)
class Staircase(Search):
    """The staircase at the grid's best peak and the peaks beside it."""

    def tried(self, find: Find) -> list[Settings]:
        """Three of them, once the grid is whole."""
        best = Grid(self.task, self.spec).winner(find)
        if not best:
            return []
        peak = float(best[0]["settings"]["lr"]) / self.task.seed_rate
        peaks = self.task.peaks
        at = min(range(len(peaks)), key=lambda i: abs(math.log(peaks[i] / peak)))
        return [self.run("staircase", p, self.seeds[0]) for p in peaks[max(at - 1, 0) : at + 2]]

    def finalists(self, find: Find) -> list[Settings]:
        """The best."""
        return self._best(self.tried(find), find, 1)


@dataclass(frozen=True)
class Optuna(Search):
    """As many runs as the grid has, where Optuna's TPE wants them: schedule, and peak over the grid's range.

    It is asked anew from its first trial each time, and told what the runs that are there came to: with its seed it
    asks for the same again.
    """

    @property
    def _trials(self) -> int:
        return len(self.task.peaks) * len(SCHEDULES)

    def tried(self, find: Find) -> list[Settings]:
        """Those that are there, and the next."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=OPTUNA_SEED))
        tried = []
        for _ in range(self._trials):
            trial = study.ask()
            schedule = trial.suggest_categorical("schedule", SCHEDULES)
            peak = trial.suggest_float("peak", self.task.peaks[0], self.task.peaks[-1], log=True)
            tried.append(self.run(schedule, peak, self.seeds[0]))
            row = find(tried[-1])
            if row is None:
                break
            study.tell(trial, score(self.task, row))
        return tried

    def finalists(self, find: Find) -> list[Settings]:
        """The best, once there were as many trials as the grid has points."""
        tried = self.tried(find)
        return self._best(tried, find, 1) if len(tried) == self._trials else []


SWEEP, STAIRCASE = "sweep", "tuned staircase"
SEARCHES: dict[str, type[Search]] = {SWEEP: Grid, STAIRCASE: Staircase, "Optuna": Optuna}
