"""Try a search for the peak on the zoo's tables, without training: what it would have run, chosen and lost.

The library's own planner asks for short runs and is told what the tables hold. Its peak is then looked up in the grid
of full runs, between two rates by a straight line in the logs. Regret is the log of the held-out loss over the grid's
best; ``paid`` adds what the steps spent on the search would have brought, by the slope of the best loss over the log of
the steps. Look at the learning half only: the other is for reports.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from autolr.numerics.bracket import ShortRun
from autolr.numerics.plan import Plan
from autolr_lab.zoo.registry import BY_NAME, LEARN
from autolr_lab.zoo.store import Row

JUDGES = 8
BROKEN_OFF = 0.5  # of a run's steps, where it diverged: what a real search breaks off


@dataclass
class Table:
    """All runs of a pair and seed."""

    task: str
    optimizer: str
    seed: int
    judges: int = JUDGES  # that a search looks at
    short: dict[int, dict[int, Row]] = field(default_factory=dict)  # by length and octave
    grid: dict[int, dict[int, Row]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Task and optimizer."""
        return f"{self.task}/{self.optimizer}"

    @property
    def customary(self) -> float:
        """The rate that a practitioner would type."""
        return BY_NAME[self.task].rates[self.optimizer]

    @property
    def start(self) -> tuple[float, ...]:
        """The judges' losses before any step."""
        return next(iter(next(iter(self.short.values())).values())).before[: self.judges]

    def final(self, steps: int, octave: float) -> float:
        """Log of the held-out loss after a full run at a rate; a run that broke off is no better than its start."""
        levels = {k: _level(row) for k, row in self.grid[steps].items()}
        place = min(max(octave, min(levels)), max(levels))
        below = max(k for k in levels if k <= place)
        above = min(k for k in levels if k >= place)
        share = 0.0 if above == below else (place - below) / (above - below)
        return (1 - share) * levels[below] + share * levels[above]

    def best(self, steps: int) -> float:
        """Log of the lowest held-out loss of the grid."""
        return min(map(_level, self.grid[steps].values()))

    def best_octave(self, steps: int) -> int:
        """Where it lies."""
        return min(self.grid[steps], key=lambda k: _level(self.grid[steps][k]))

    def slope(self) -> float:
        """Of the log of the best loss over the log of the steps."""
        low, high = min(self.grid), max(self.grid)
        return 0.0 if low == high else min(0.0, (self.best(high) - self.best(low)) / math.log(high / low))

    def run(self, length: int, octave: int) -> ShortRun:
        """What a short run would have told; beyond the table, from its last row."""
        rows = self.short[length]
        row = rows.get(min(max(octave, min(rows)), max(rows)))
        assert row is not None
        before, losses = row.before[: self.judges], row.after[: self.judges]
        if octave < min(rows):  # so low that the gain is in proportion to the rate
            factor = 2.0 ** (octave - min(rows))
            losses = tuple(b + factor * (a - b) for a, b in zip(losses, before, strict=True))
        if octave > max(rows) or not all(map(math.isfinite, losses)):
            return ShortRun(length, 2.0**octave, (), 3 * length * BROKEN_OFF)
        return ShortRun(length, 2.0**octave, losses, 3 * length + len(losses))


def _level(row: Row) -> float:
    bound = math.log(max(row.eval_before, 1e-12))
    return math.log(row.eval_loss) if math.isfinite(row.eval_loss) and row.eval_loss > 0 else max(bound, 0.0) + 1.0


@dataclass(frozen=True)
class Replayed:
    """One search, and what came of it."""

    table: Table
    steps: int
    octave: float  # log2 of the peak
    regret: float
    paid: float
    customary: float  # the regret of the customary rate under the same schedule
    share: float
    runs: tuple[ShortRun, ...]


def replay(table: Table, plan: Plan, choose: Callable[[Plan, tuple[ShortRun, ...]], float | None]) -> Replayed:
    """Run a planner against a table; ``choose`` gives the peak's octaves above the given rate."""
    runs: list[ShortRun] = []
    origin = math.log2(plan.given)
    while (wanted := plan.next(table.start, runs)) is not None:
        length, lr = wanted
        runs.append(table.run(length, round(math.log2(lr))))
    told = choose(plan, tuple(runs))
    octave = origin + (0.0 if told is None else told)
    share = (table.judges + math.fsum(run.cost for run in runs)) / (3 * plan.total_steps)
    regret = table.final(plan.total_steps, octave) - table.best(plan.total_steps)
    paid = regret + table.slope() * math.log(max(1 - share, 0.1))
    usual = table.final(plan.total_steps, math.log2(table.customary)) - table.best(plan.total_steps)
    return Replayed(table, plan.total_steps, octave, regret, paid, usual, share, tuple(runs))


def tables(rows: Iterable[Row], learn: bool = True) -> list[Table]:
    """The pairs of one side of the split whose grids are complete."""
    of_side = by_pair(row for row in rows if (row.task in LEARN) == learn)
    return [t for t in of_side if set(BY_NAME[t.task].horizons) <= t.grid.keys()]


def by_pair(rows: Iterable[Row]) -> list[Table]:
    """The rows of each pair and seed."""
    found: dict[tuple[str, str, int], Table] = {}
    for row in rows:
        table = found.setdefault((row.task, row.optimizer, row.seed), Table(row.task, row.optimizer, row.seed))
        place: Mapping[str, dict[int, dict[int, Row]]] = {"short": table.short, "grid": table.grid}
        place[row.run].setdefault(row.steps, {})[row.octave] = row
    return list(found.values())
