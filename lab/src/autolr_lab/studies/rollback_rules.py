"""When is a loss-drop rate worse than before, and when has it only fallen as it does anyway?

Settles what the paper leaves open in part 2.2 ("leads to a reduction in loss drop rate"), on Fashion-MNIST with the
paper's network. Windows at a held rate are the innocent: a rule that fires on them is wrong. From snapshots of the same
runs, windows at half, 2, 4 and 10 times the rate: where one leaves a much higher loss than the held rate does, a rule
that stays silent is wrong.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

from autolr import ExploreExploit
from autolr.measure.probe import Probe
from autolr.measure.snapshot import Snapshot
from autolr.measure.superbatch import Superbatches
from autolr.numerics.saturation import LossDrop, loss_drop
from autolr.policies.explore_exploit import REMEMBERED, ExploreExploitState
from autolr.policies.window_state import WindowResult
from autolr.runtime.param_group_lrs import ParamGroupLRs
from autolr_lab.runner.markdown import markdown_table
from autolr_lab.runner.results import Row
from autolr_lab.studies.ground import ground
from autolr_lab.studies.study import Study

WINDOW, SUPERBATCH = 469, 46  # AutoLR's defaults for 10 epochs
WINDOWS = 12
BRANCHES = (2, 6, 11)  # windows after which the rate is changed
FACTORS = (0.5, 1.0, 2.0, 4.0, 10.0)
HARMED = 1.5  # times the end loss of the held rate's window: nobody would keep such a change
RULES = (
    "the rate fell (literal)",
    "the rate fell by 3 standard errors",
    "the loss rose",
    "the loss rose by 3 standard errors",
    "the loss rose by 3 times its noise, usual movement included (ours)",
)


def measure(data_dir: Path | None) -> Iterator[Row]:
    """With each of the paper's three optimizers."""
    for name in ("sgd", "momentum", "adam"):
        yield from measure_one(name, data_dir)


def measure_one(name: str, data_dir: Path | None, seed: int = 0) -> Iterator[Row]:
    """Windows at a held rate, and from some of their ends a window at another rate."""
    run = ground("fashion-mnist", name, data_dir, seed=seed)
    probe = Probe(run.model, run.loss, Superbatches(run.batches, SUPERBATCH, seed))
    rates = ParamGroupLRs(run.optimizer)
    numbers = itertools.count(1)

    def window(factor: float) -> Row:
        rates.set(run.lr * factor)
        number = next(numbers)
        start = probe.here(number, SUPERBATCH)[0].tolist()
        run.train(WINDOW)
        end = probe.here(number, SUPERBATCH)[0].tolist()
        row: Row = {"optimizer": name, "factor": factor, "start": sum(start) / len(start), "end": sum(end) / len(end)}
        drop = loss_drop(start, end, WINDOW) if math.isfinite(row["end"]) else LossDrop(math.nan, math.nan)
        return {**row, "rate": drop.rate, "stderr": drop.stderr}

    held: list[Row] = []
    for index in range(WINDOWS):
        if index in BRANCHES:
            snapshot = Snapshot.capture(run.model, run.optimizer)
            for factor in FACTORS:
                yield {**window(factor), "window": index, "branch": True, "before": list(held)}
                snapshot.restore(run.model, run.optimizer)
        row = {**window(1.0), "window": index, "branch": False, "before": list(held)}
        yield row
        held.append({k: row[k] for k in ("rate", "stderr", "start", "end")})


def fired(row: Row) -> dict[str, bool]:
    """Which rules call this window worse than the one before."""
    before = row["before"][-1]
    if not math.isfinite(row["rate"]):
        return dict.fromkeys(RULES, True)
    noise = math.hypot(before["stderr"], row["stderr"])
    state = ExploreExploitState(
        began=before["rate"],
        changed_from=1.0,
        rate_before=before["rate"],
        first_loss=row["before"][0]["start"],
        moves=tuple(abs(b["rate"]) * WINDOW for b in row["before"])[-REMEMBERED:],
    )
    drop = LossDrop(row["rate"], row["stderr"])
    seen = WindowResult(WINDOW, 10 * WINDOW, 1.0, row["start"], row["end"], WINDOW, drop)
    said = (
        row["rate"] < before["rate"],
        before["rate"] - row["rate"] > 3 * noise,
        row["rate"] < 0,
        -row["rate"] > 3 * row["stderr"],
        ExploreExploit().judge(state, seen)[1].verdict == "roll back",
    )
    return dict(zip(RULES, said, strict=True))


def tables(rows: list[Row]) -> dict[str, str]:
    """How often each rule fires: on held windows, and on changed ones by whether the change did harm."""
    judged = [row for row in rows if row["before"]]
    reference = {(r["optimizer"], r["window"]): r["end"] for r in judged if r["branch"] and r["factor"] == 1}
    changed = [row for row in judged if row["branch"] and row["factor"] != 1]
    fine = [row for row in changed if row["end"] <= HARMED * reference[row["optimizer"], row["window"]]]
    harmed = [row for row in changed if row not in fine]  # a NaN is not below anything
    held = [row for row in judged if not row["branch"]]
    groups = {"held rate": held, "changed, no harm": fine, f"changed, loss over {HARMED:g} times": harmed}
    lines = [
        [rule, *(f"{sum(fired(row)[rule] for row in group)} of {len(group)}" for group in groups.values())]
        for rule in RULES
    ]
    return {"table": markdown_table(["rule fires on", *groups], lines)}


ROLLBACK_RULES = Study(
    "rollback-rules", "Which rule tells a window that went wrong", measure, tables,
    {"workload": "fashion-mnist", "window": WINDOW, "superbatch": SUPERBATCH},
)  # fmt: skip
