"""The benchmark: every method without tuning against the best of a tuned sweep, on the same work."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from autolr_lab.benchmark.methods import METHODS, RATES, run_of
from autolr_lab.benchmark.pages import NOTES, csv_lines, methods_table, summary_table, task_table
from autolr_lab.benchmark.pictures import Drawn, draw_costs, draw_regrets
from autolr_lab.benchmark.regret import Result, by_seed, cost_to, mean_cost, median_seconds, regret
from autolr_lab.benchmark.search import SEARCHES, STAIRCASE, SWEEP, Grid, Search
from autolr_lab.benchmark.tasks import BUDGETS, SEEDS, TRAIN_LOSS, Task, score
from autolr_lab.runner.experiment import Experiment, Method, Rendered, RunSpec
from autolr_lab.runner.markdown import origins
from autolr_lab.runner.results import Row
from autolr_lab.runner.store import Find
from autolr_lab.training.runs import Settings


@dataclass(frozen=True)
class Benchmark(Experiment):
    """The table of regrets, a page for a task, and its pictures."""

    keeps_curves: ClassVar[bool] = False

    @property
    def labels(self) -> tuple[str, ...]:
        """Of everything that `RunSpec.methods` chooses from."""
        return (*SEARCHES, *(method.label for method in METHODS))

    @property
    def optimizers_of(self) -> tuple[str, ...]:
        """Of all tasks."""
        return tuple(dict.fromkeys(task.optimizer for some in BUDGETS.values() for task in some))

    def heading(self, spec: RunSpec) -> str:
        """The title, with the budget and the scale."""
        return f"{self.title} ({spec.budget} budget, {100 * spec.scale:g} % of its epochs)"

    def tasks(self, spec: RunSpec) -> list[Task]:
        """Those that are wanted."""
        return [
            task for task in BUDGETS[spec.budget]
            if (not spec.workloads or task.workload in spec.workloads) and spec.wants_optimizer(task.optimizer)
        ]  # fmt: skip

    def runs(self, spec: RunSpec) -> list[Settings]:
        """What is known beforehand: the grids, and every method."""
        found = []
        for task in self.tasks(spec):
            found += Grid(task, spec).tried(lambda _: None)
            for method in _methods(spec):
                found += [run_of(method, task, spec, seed) for seed in spec.range_of_seeds(SEEDS)]
                if method.seeded:
                    found += [run_of(method, task, spec, spec.range_of_seeds(SEEDS)[0], times) for times in RATES]
        return found

    def runs_so_far(self, spec: RunSpec, find: Find) -> list[Settings]:
        """With what the searches ask for next."""
        searches = [search for task in self.tasks(spec) for search in _searches(task, spec).values()]
        return [*self.runs(spec), *(settings for search in searches for settings in search.wanted(find))]

    def results(self, task: Task, spec: RunSpec, find: Find) -> list[Result]:
        """Of every method that was run, the sweep's first, then by regret; none without the sweep."""
        best = by_seed(Grid(task, spec).winner(find))
        if not best:
            return []
        held = _Against(task, best, _target(task, spec, find))
        found = []
        for name, search in _searches(task, spec).items():
            if rows := search.winner(find):
                found.append(held.result(name, rows, search.spent(find)))
        for method in _methods(spec):
            wanted = (run_of(method, task, spec, seed) for seed in spec.range_of_seeds(SEEDS))
            rows = [row for settings in wanted if (row := find(settings)) is not None]
            if rows:
                away = _from_rates(method, task, spec, find, best)
                found.append(held.result(method.label, rows, mean_cost(rows), away))
        return sorted(found, key=lambda one: (one.label != SWEEP, _rounded(task, one)))

    def render(self, spec: RunSpec, find: Find) -> Rendered:
        """A summary over the tasks, then each of them; those whose sweep is not complete are named."""
        results = {task: self.results(task, spec, find) for task in self.tasks(spec)}
        there = {task: some for task, some in results.items() if some}
        if not there:
            return Rendered({"summary": "No sweep is complete yet: there is nothing to hold a method against.\n"})
        rows = [row for some in there.values() for one in some for row in one.rows]
        unfinished = [task.name for task in results if task not in there]
        notes = f"{NOTES}{origins(rows)}"
        if unfinished:
            notes += f"- No complete sweep yet: {'; '.join(unfinished)}.\n"
        parts = {"summary": summary_table(there)}
        parts |= {task.name: task_table(task, some) for task, some in there.items()}
        parts |= {"notes": notes, "methods": methods_table(spec, rows)}
        csv = [line for task, some in there.items() for line in csv_lines(task, some)]
        drawn = [_drawn(task, spec, find, some) for task, some in there.items()]
        pictures = {
            f"{self.name}_regret.png": partial(draw_regrets, drawn),
            f"{self.name}_cost.png": partial(draw_costs, drawn),
        }
        return Rendered(parts, csv, pictures)


@dataclass(frozen=True)
class _Against:
    """What the methods of a task are held against: the sweep's best runs, and the tuned staircase's quality."""

    task: Task
    best: dict[int, Row]
    target: float | None

    def result(self, label: str, rows: Sequence[Row], spent: float, from_rates: tuple[float, ...] = ()) -> Result:
        """Of a method whose runs cost ``spent`` forward equivalents, all that had to be run included."""
        mine, best = by_seed(rows), list(self.best.values())
        reached = [math.inf if self.target is None else cost_to(self.task.progress, self.target, row) for row in rows]
        return Result(
            label, rows, regret(self.task.metric, mine, self.best), regret(TRAIN_LOSS, mine, self.best),
            spent / mean_cost(best), median_seconds(rows) / median_seconds(best),
            statistics.fmean(reached) / mean_cost(best), from_rates,
        )  # fmt: skip


def _rounded(task: Task, one: Result) -> float:
    """Regret as a table shows it: what is equal there stays in the methods' own order."""
    return task.metric.rounded(one.regret.mean) if one.regret else math.inf


def _searches(task: Task, spec: RunSpec) -> dict[str, Search]:
    """The sweep is in every benchmark: without it there is no regret."""
    return {name: kind(task, spec) for name, kind in SEARCHES.items() if name == SWEEP or spec.wants(name)}


def _methods(spec: RunSpec) -> list[Method]:
    return [method for method in METHODS if spec.wants(method.label)]


def _target(task: Task, spec: RunSpec, find: Find) -> float | None:
    """The tuned staircase's quality at the end, its mean over the seeds; None where it was not run."""
    search = _searches(task, spec).get(STAIRCASE)
    rows = search.winner(find) if search is not None else []
    return statistics.fmean(task.progress.loss(row["epochs"][-1]) for row in rows) if rows else None


def _from_rates(method: Method, task: Task, spec: RunSpec, find: Find, best: dict[int, Row]) -> tuple[float, ...]:
    if not method.seeded:
        return ()
    first = spec.range_of_seeds(SEEDS)[0]
    rows = [find(run_of(method, task, spec, first, times)) for times in RATES]
    found = [regret(task.metric, by_seed([row]), best) for row in rows if row is not None]
    means = [difference.mean for difference in found if difference is not None]
    return tuple(means) if len(means) == len(RATES) else ()


def _drawn(task: Task, spec: RunSpec, find: Find, results: Sequence[Result]) -> Drawn:
    first = spec.range_of_seeds(SEEDS)[0]  # the searches' first runs have that seed
    best = score(task, by_seed(results[0].rows)[first])

    def regrets(tried: Sequence[Settings]) -> list[float]:
        return [score(task, row) - best for s in tried if (row := find(s)) is not None]

    optuna = _searches(task, spec).get("Optuna")
    trials = regrets(optuna.tried(find)) if optuna is not None else []
    return Drawn(task.name, task.metric, results, regrets(Grid(task, spec).tried(find)), trials)


BENCHMARK = Benchmark("bench", "Against everyone")
