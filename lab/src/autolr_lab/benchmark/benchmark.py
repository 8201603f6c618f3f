"""The benchmark: every method without tuning against the best of a tuned sweep, on the same work."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from autolr_lab.benchmark.contest import (
    BUDGETS,
    ENTRIES,
    SEEDS,
    SPREAD,
    TRAIN_LOSS,
    Contest,
    Entry,
    score,
)
from autolr_lab.runner.experiment import Ask, Experiment, Find, Row, Shown, notices, seeds
from autolr_lab.benchmark.regret import Standing, by_seed, cost_to, profile, regret
from autolr_lab.benchmark.regret_pictures import Drawn, draw_costs, draw_profile, draw_regrets, draw_seed_rates
from autolr_lab.benchmark.regret_tables import NOTES, contest_table, csv_lines, methods_table, summary_table
from autolr_lab.runner.search import SEARCHES, Grid, Search
from autolr_lab.training.runs import Settings

SWEEP, STAIRCASE = "sweep", "tuned staircase"


@dataclass(frozen=True)
class Benchmark(Experiment):
    """The table of regrets, a page for a contest, and its pictures."""

    keeps_curves: ClassVar[bool] = False

    @property
    def labels(self) -> tuple[str, ...]:
        """Of everything that `Ask.methods` chooses from."""
        return (*SEARCHES, *(entry.label for entry in ENTRIES))

    @property
    def optimizers_of(self) -> tuple[str, ...]:
        """Of all contests."""
        return tuple(dict.fromkeys(contest.optimizer for some in BUDGETS.values() for contest in some))

    def heading(self, ask: Ask) -> str:
        """The title, with the budget and the scale."""
        return f"{self.title} ({ask.budget} budget, {100 * ask.scale:g} % of its epochs)"

    def contests(self, ask: Ask) -> list[Contest]:
        """Those that are wanted."""
        return [
            contest for contest in BUDGETS[ask.budget]
            if (not ask.workloads or contest.workload in ask.workloads) and ask.wants_optimizer(contest.optimizer)
        ]  # fmt: skip

    def cells(self, ask: Ask) -> list[Settings]:
        """What is known beforehand: the grids, and every entry."""
        cells = []
        for contest in self.contests(ask):
            cells += Grid(contest, ask).tried(lambda _: None)
            for entry in _entries(contest, ask):
                cells += [entry.settings(contest, ask, seed) for seed in seeds(ask, SEEDS)]
                if entry.seeded:
                    cells += [entry.settings(contest, ask, seeds(ask, SEEDS)[0], times) for times in SPREAD]
        return cells

    def known(self, ask: Ask, find: Find) -> list[Settings]:
        """With what the searches ask for next."""
        searched = [
            settings
            for contest in self.contests(ask)
            for search in _searches(contest, ask).values()
            for settings in search.wanted(find)
        ]
        return [*self.cells(ask), *searched]

    def standings(self, contest: Contest, ask: Ask, find: Find) -> list[Standing]:
        """Every method of which there is a run, the sweep's best first, then by regret; none without the sweep."""
        best = by_seed(Grid(contest, ask).winner(find))
        if not best:
            return []
        plain = statistics.fmean(row["result"]["forward_equivalents"] for row in best.values())
        seconds = statistics.median(row["result"]["training_seconds"] for row in best.values())
        target = _target(contest, ask, find)
        found = []
        for name, search in _searches(contest, ask).items():
            if rows := search.winner(find):
                found.append(self._standing(contest, name, rows, best, search.spent(find) / plain, seconds, target, ()))
        for entry in _entries(contest, ask):
            rows = [row for seed in seeds(ask, SEEDS) if (row := find(entry.settings(contest, ask, seed))) is not None]
            if rows:
                cost = statistics.fmean(row["result"]["forward_equivalents"] for row in rows) / plain
                away = _from_seeds(contest, entry, ask, find, best)
                found.append(self._standing(contest, entry.label, rows, best, cost, seconds, target, away))
        return sorted(found, key=lambda s: (s.label != SWEEP, s.regret.mean if s.regret else math.inf))

    @staticmethod
    def _standing(
        contest: Contest, label: str, rows: Sequence[Row], best: dict[int, Row], cost: float, seconds: float,
        target: float | None, from_seeds: tuple[float, ...],
    ) -> Standing:  # fmt: skip
        mine = by_seed(rows)
        plain = statistics.fmean(row["result"]["forward_equivalents"] for row in best.values())
        reached = [math.inf if target is None else cost_to(contest.progress, target, row) / plain for row in rows]
        return Standing(
            label, rows, regret(contest.metric, mine, best), regret(TRAIN_LOSS, mine, best), cost,
            statistics.median(row["result"]["training_seconds"] for row in rows) / seconds,
            statistics.fmean(reached), from_seeds,
        )  # fmt: skip

    def show(self, ask: Ask, find: Find) -> Shown:
        """A summary over the contests, then each of them; those whose sweep is not whole are named."""
        tables = {contest: self.standings(contest, ask, find) for contest in self.contests(ask)}
        whole = {contest: standings for contest, standings in tables.items() if standings}
        if not whole:
            return Shown("No sweep is whole yet: there is nothing to hold a method against.\n")
        costs = _problems(whole, ask, find)
        told = "".join(contest_table(contest, standings) for contest, standings in whole.items())
        unfinished = [contest.name for contest in tables if contest not in whole]
        rows = [row for standings in whole.values() for standing in standings for row in standing.rows]
        notes = f"{NOTES}{notices(rows)}"
        if unfinished:
            notes += f"- No whole sweep yet: {'; '.join(unfinished)}.\n"
        csv = [line for contest, standings in whole.items() for line in csv_lines(contest, standings)]
        drawn = [_drawn(contest, ask, find, standings) for contest, standings in whole.items()]
        pictures = {
            f"{self.name}_regret.png": draw_regrets(drawn),
            f"{self.name}_cost.png": draw_costs(drawn),
            f"{self.name}_seed_rates.png": draw_seed_rates(drawn, SPREAD),
        }
        if costs:
            pictures[f"{self.name}_profile.png"] = draw_profile(profile(costs))
        return Shown(f"{summary_table(whole)}\n{told}{notes}\n{methods_table(ask, rows)}", csv, pictures)


def _searches(contest: Contest, ask: Ask) -> dict[str, Search]:
    """The sweep is in every benchmark: without it there is no regret."""
    return {name: kind(contest, ask) for name, kind in SEARCHES.items() if name == SWEEP or ask.wants(name)}


def _entries(contest: Contest, ask: Ask) -> list[Entry]:
    return [entry for entry in ENTRIES if ask.wants(entry.label) and entry.fits(contest)]


def _target(contest: Contest, ask: Ask, find: Find) -> float | None:
    """The tuned staircase's quality at the end, its mean over the seeds; None where it was not run."""
    search = _searches(contest, ask).get(STAIRCASE)
    rows = search.winner(find) if search is not None else []
    if not rows:
        return None
    return statistics.fmean(contest.progress.loss(row["epochs"][-1]) for row in rows)


def _from_seeds(contest: Contest, entry: Entry, ask: Ask, find: Find, best: dict[int, Row]) -> tuple[float, ...]:
    if not entry.seeded:
        return ()
    first = seeds(ask, SEEDS)[0]
    rows = [find(entry.settings(contest, ask, first, times)) for times in SPREAD]
    found = [regret(contest.metric, by_seed([row]), best) for row in rows if row is not None]
    whole = [difference.mean for difference in found if difference is not None]
    return tuple(whole) if len(whole) == len(SPREAD) else ()


def _drawn(contest: Contest, ask: Ask, find: Find, standings: Sequence[Standing]) -> Drawn:
    best = score(contest, by_seed(standings[0].rows)[seeds(ask, SEEDS)[0]])  # the searches' first runs have that seed

    def regrets(tried: Sequence[Settings]) -> list[float]:
        return [score(contest, row) - best for s in tried if (row := find(s)) is not None]

    optuna = _searches(contest, ask).get("Optuna")
    trials = regrets(optuna.tried(find)) if optuna is not None else []
    return Drawn(contest.name, contest.metric, standings, regrets(Grid(contest, ask).tried(find)), trials)


def _problems(whole: dict[Contest, list[Standing]], ask: Ask, find: Find) -> dict[str, list[float]]:
    """Cost to the tuned staircase's quality, of the methods that ran in every contest with every seed."""
    costs: dict[str, list[float]] = {}
    targets = {contest: _target(contest, ask, find) for contest in whole}
    known = {contest: target for contest, target in targets.items() if target is not None}
    problems = len(known) * len(seeds(ask, SEEDS))
    for label in dict.fromkeys(standing.label for contest in known for standing in whole[contest]):
        each = []
        for contest, target in known.items():
            rows = [row for standing in whole[contest] if standing.label == label for row in standing.rows]
            each += [cost_to(contest.progress, target, row) for row in rows]
        if len(each) == problems:
            costs[label] = each
    # A problem that nobody solves tells nobody apart.
    solved = [i for i in range(problems) if any(math.isfinite(each[i]) for each in costs.values())]
    return {label: [each[i] for i in solved] for label, each in costs.items()} if solved else {}


BENCHMARK = Benchmark("bench", "Against everyone")
