"""Is a searched peak worse than the customary rate on some task, by more than the noise? Over seeds, without the grid.

Beside `find-peak`, which pays its search and its guard out of the run, stands `knee` at the customary rate: the same
schedule over all of the steps. A difference is of the logs of their final losses, paired by seed, above 0 where the
search ends worse. Noise is what seeds scatter about the mean of their own cell (pair and length); cells scatter by
different amounts. All tasks are asked together (Holm). With three seeds and one cell in five that scatters eight times
as much as the others, one family of 28 tasks in five would have a wrong verdict; three times as much does no harm.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from autolr_lab.benchmark.inference import CONFIDENCE, holm
from autolr_lab.benchmark.zoo_methods import MethodRow
from autolr_lab.benchmark.zoo_report import Losses
from autolr_lab.runner.markdown import markdown_table

SEARCHED, USUAL = "find-peak", "knee"
FAR = 0.1  # [log of the loss] a difference that somebody would mind


@dataclass(frozen=True)
class Beside:
    """A task's differences: of each cell those of its seeds, two or more."""

    task: str
    cells: tuple[tuple[float, ...], ...]

    @property
    def mean(self) -> float:
        """Over the cells, each of which counts once."""
        return statistics.fmean(map(statistics.fmean, self.cells))

    @property
    def stderr(self) -> float:
        """Of the mean, by the scatter of seeds within each cell."""
        return math.sqrt(math.fsum(map(_of_mean, self.cells))) / len(self.cells)

    @property
    def freedom(self) -> float:
        """Degrees of freedom of that (Welch, Satterthwaite): where one cell scatters most, hardly more than its own."""
        parts = [(_of_mean(cell), len(cell) - 1) for cell in self.cells]
        squares = math.fsum(part**2 / count for part, count in parts)
        return math.fsum(part for part, _ in parts) ** 2 / squares if squares else math.inf

    @property
    def half(self) -> float:
        """Half of the interval at `CONFIDENCE`."""
        return float(stats.t.ppf((1 + CONFIDENCE) / 2, self.freedom)) * self.stderr

    @property
    def p(self) -> float:
        """Two-sided: of a mean so far from 0 where the search is as good."""
        if self.stderr == 0:  # no scatter at all, as where every run is broken off
            return float(self.mean == 0)
        return float(2 * stats.t.sf(abs(self.mean) / self.stderr, self.freedom))


def _of_mean(cell: Sequence[float]) -> float:
    """The variance of a cell's mean."""
    return statistics.variance(cell) / len(cell)


def by_task(rows: Iterable[MethodRow], *, train: bool = False) -> list[Beside]:
    """The tasks whose cells have two seeds or more of both methods, worst first; by held-out or by training loss."""
    levels: dict[tuple[str, str, int, int], dict[str, float]] = defaultdict(dict)
    for row in rows:
        if row.method in (SEARCHED, USUAL):
            cell = (row.task, row.optimizer, row.steps, row.seed)
            losses = (row.train_before, row.train_loss) if train else (row.eval_before, row.eval_loss)
            levels[cell][row.method] = Losses(*losses).level
    cells: dict[str, dict[tuple[str, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    for (task, optimizer, steps, _), of in sorted(levels.items()):
        if len(of) == 2:
            cells[task][optimizer, steps].append(of[SEARCHED] - of[USUAL])
    found = []
    for task, of_task in cells.items():
        if several := tuple(tuple(values) for values in of_task.values() if len(values) > 1):
            found.append(Beside(task, several))
    return sorted(found, key=lambda one: -one.mean)


def verdicts(tasks: Sequence[Beside]) -> list[str]:
    """``worse`` or ``better`` where that is sure when all tasks are asked at once; else nothing."""
    sure = [p < 1 - CONFIDENCE for p in holm([one.p for one in tasks])]
    return [("worse" if one.mean > 0 else "better") if yes else "" for one, yes in zip(tasks, sure, strict=True)]


def table(rows: Sequence[MethodRow]) -> str:
    """Markdown: a row a task, worst first by held-out loss; below it, how many are what by either loss."""
    told = {train: _told(by_task(rows, train=train)) for train in (False, True)}
    head = (
        "task", "cells", "seeds", "behind, held-out loss", "95 % interval", "verdict", "behind, training loss",
        "95 % interval", "verdict",
    )  # fmt: skip
    lines = []
    for task, (one, _) in told[False].items():
        seeds = "/".join(map(str, sorted({len(cell) for cell in one.cells})))
        both = [text for train in (False, True) for text in _cells(*told[train][task])]
        lines.append((task, str(len(one.cells)), seeds, *both))
    counts = [f"By {name} loss {_counts(told[train])}." for name, train in (("held-out", False), ("training", True))]
    return f"{markdown_table(head, lines)}\n{' '.join(counts)}\n"


def _told(tasks: Sequence[Beside]) -> dict[str, tuple[Beside, str]]:
    return {one.task: (one, verdict) for one, verdict in zip(tasks, verdicts(tasks), strict=True)}


def _cells(one: Beside, verdict: str) -> tuple[str, str, str]:
    interval = f"{one.mean - one.half:+.3f} to {one.mean + one.half:+.3f}"
    return f"{one.mean:+.3f}", interval, verdict or "cannot tell"


def _counts(told: Mapping[str, tuple[Beside, str]]) -> str:
    sure = [verdict for _, verdict in told.values()]
    means = [statistics.fmean(cell) for one, _ in told.values() for cell in one.cells]
    behind, ahead = (sum(sign * mean > FAR for mean in means) for sign in (1, -1))
    return (
        f"{sure.count('worse')} of {len(sure)} tasks are surely worse and {sure.count('better')} surely better; of "
        f"{len(means)} cells {behind} are more than {FAR} behind on the average of their seeds, and {ahead} ahead"
    )
