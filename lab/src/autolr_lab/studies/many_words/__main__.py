"""Does the guard save runs on text of many words, and what does it cost where there is nothing to save?

A grid of rates for each pair, and a run of each method beside it, all paid out of the same steps; tasks that were seen
and those kept apart are told of by themselves. ``python -m autolr_lab.studies.many_words --folder DIR`` runs what is
missing, and packs it among the zoo's results. Public texts are wanted: ``AUTOLR_DATA``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from autolr.policies.base import Decision, ProbeResult
from autolr.policies.peak_search import PeakSearchState
from autolr_lab.benchmark.own_grid import OwnGrid, command_line
from autolr_lab.benchmark.zoo_methods import METHODS, Method, MethodRow, searched
from autolr_lab.benchmark.zoo_report import regrets, sweep_best, table
from autolr_lab.studies.many_words.tasks import APART, SEEN, STEPS
from autolr_lab.training.paid_search import PaidPeakSearch
from autolr_lab.zoo.registry import Pair
from autolr_lab.zoo.store import Row
from autolr_lab.zoo.task import Task

OPTIMIZER = "adamw"
SIDES = {"seen": frozenset(task.name for task in SEEN), "apart": frozenset(task.name for task in APART)}


@dataclass(frozen=True, kw_only=True)
class Unaware(PaidPeakSearch):
    """The default policy without the comparison with a lower peak."""

    def decide(self, state: PeakSearchState, result: ProbeResult) -> tuple[PeakSearchState, Decision | None]:
        """Nothing is awaited of the run."""
        state, decision = super().decide(state, result)
        return dataclasses.replace(state, guard=dataclasses.replace(state.guard, awaited=0)), decision


COMPARED: Mapping[str, Method] = {
    "find-peak": METHODS["find-peak"],
    "unaware": searched(Unaware()),
    "knee": METHODS["knee"],
}


def of_steps(name: str, tasks: Iterable[Task], steps: int) -> OwnGrid:
    """These tasks, for so many steps."""
    pairs = (Pair(dataclasses.replace(task, horizons=(steps,)), OPTIMIZER) for task in tasks)
    return OwnGrid(name, tuple(pairs), COMPARED)


BY_LENGTH = {"usual": of_steps("many-words", (*APART, *SEEN), STEPS)}


def tables(grid: OwnGrid, rows: list[Row], methods: list[MethodRow]) -> dict[str, str]:
    """Markdown, of the tasks that were seen and of those kept apart; and by training loss."""
    told = {}
    for side, names in SIDES.items():
        here = [row for row in methods if row.task in names]
        for name, train in ((f"{grid.name}-{side}", False), (f"{grid.name}-{side}-training", True)):
            if here:
                told[name] = table(regrets(here, sweep_best(rows, train=train), train=train)) + "\n"
    return told


def of_folder(folder: Path) -> dict[str, str]:
    """The tables of packed results."""
    return {name: text for one in BY_LENGTH.values() for name, text in tables(one, *one.read(folder)).items()}


if __name__ == "__main__":
    command_line("autolr_lab.studies.many_words", __doc__, BY_LENGTH, tables)
