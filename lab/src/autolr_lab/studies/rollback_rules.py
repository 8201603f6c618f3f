"""When is a loss-drop rate worse than before, and when has it only fallen as it does anyway?

Settles what the paper leaves open in part 2.2 ("leads to a reduction in loss drop rate"), on Fashion-MNIST with the
paper's network: ``python benchmarks/rollback_rules.py --data-dir DIR``. Windows at a held rate are the innocent: a rule
that fires on them is wrong. From snapshots of the same runs, windows at half, 2, 4 and 10 times the rate: where one
leaves a much higher loss than the held rate does, a rule that stays silent is wrong.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from autolr.policies import ExploreExploit, Window
from autolr.policies.explore_exploit import REMEMBERED, ExploreExploitState
from autolr.measure.probe import Probe
from autolr.runtime.param_group_lrs import ParamGroupLRs
from autolr.numerics.saturation import LossDrop, loss_drop
from autolr.measure.snapshot import Snapshot
from autolr.measure.superbatch import Superbatches
from autolr_lab.studies.fixed_rate import FixedRate
from autolr_lab.studies.record import markdown, new_record, write_record

WINDOW, SUPERBATCH = 469, 46  # AutoLR's defaults for 10 epochs
WINDOWS = 12
BRANCHES = (2, 6, 11)  # windows after which the rate is changed
FACTORS = (0.5, 1.0, 2.0, 4.0, 10.0)
HARMED = 1.5  # times the end loss of the held rate's window: nobody would keep such a change


def main(data_dir: Annotated[Path, typer.Option(envvar="AUTOLR_DATA")], seed: int = 0, threads: int = 1) -> None:
    """Measure, print the table, and write a record."""
    torch.set_num_threads(threads)
    rows = [row for name in ("sgd", "momentum", "adam") for row in measure(name, data_dir, seed)]
    table = rule_table(rows)
    settings = {"workload": "fashion-mnist", "seed": seed, "window": WINDOW, "superbatch": SUPERBATCH}
    path = new_record("rollback-rules")
    write_record(path, settings, rows, table)
    print(table, f"\nRecord: {path}")


def measure(name: str, data_dir: Path, seed: int) -> Iterator[dict[str, Any]]:
    """Windows at a held rate, and from some of their ends a window at another rate."""
    run = FixedRate(name, data_dir, seed)
    probe = Probe(run.model, run.workload.loss, Superbatches(run.batches, SUPERBATCH, seed))
    rates = ParamGroupLRs(run.optimizer)
    numbers = itertools.count(1)

    def window(factor: float) -> dict[str, Any]:
        rates.set(run.lr * factor)
        number = next(numbers)
        start = probe.here(number, SUPERBATCH)[0].tolist()
        run.train(WINDOW)
        end = probe.here(number, SUPERBATCH)[0].tolist()
        row: dict[str, Any] = {"optimizer": name, "factor": factor, "start": sum(start) / len(start)}
        row |= {"end": sum(end) / len(end), "rate": math.nan, "stderr": math.nan}
        if math.isfinite(row["end"]):
            drop = loss_drop(start, end, WINDOW)
            row |= {"rate": drop.rate, "stderr": drop.stderr}
        return row

    held: list[dict[str, Any]] = []
    for index in range(WINDOWS):
        if index in BRANCHES:
            snapshot = Snapshot.capture(run.model, run.optimizer)
            for factor in FACTORS:
                yield {**window(factor), "window": index, "branch": True, "before": list(held)}
                snapshot.restore(run.model, run.optimizer)
        row = {**window(1.0), "window": index, "branch": False, "before": list(held)}
        yield row
        held.append({k: row[k] for k in ("rate", "stderr", "start", "end")})


def rules(row: dict[str, Any]) -> dict[str, bool]:
    """Which rules call this window worse than the one before."""
    before = row["before"][-1]
    if not math.isfinite(row["rate"]):
        return dict.fromkeys(RULES, True)
    noise = math.hypot(before["stderr"], row["stderr"])
    moves = tuple(abs(b["rate"]) * WINDOW for b in row["before"])[-REMEMBERED:]
    state = ExploreExploitState(
        began=before["rate"],
        changed_from=1.0,
        rate_before=before["rate"],
        first_loss=row["before"][0]["start"],
        moves=moves,
    )
    drop = LossDrop(row["rate"], row["stderr"])
    seen = Window(WINDOW, 10 * WINDOW, 1.0, row["start"], row["end"], WINDOW, drop)
    fired = (
        row["rate"] < before["rate"],
        before["rate"] - row["rate"] > 3 * noise,
        row["rate"] < 0,
        -row["rate"] > 3 * row["stderr"],
        ExploreExploit().judge(state, seen)[1].verdict == "roll back",
    )
    return dict(zip(RULES, fired, strict=True))


RULES = (
    "the rate fell (literal)",
    "the rate fell by 3 standard errors",
    "the loss rose",
    "the loss rose by 3 standard errors",
    "the loss rose by 3 times its noise, usual movement included (ours)",
)


def rule_table(rows: list[dict[str, Any]]) -> str:
    """How often each rule fires: on held windows, and on changed ones by whether the change did harm."""
    judged = [row for row in rows if row["before"]]
    held = [row for row in judged if not row["branch"]]
    reference = {(r["optimizer"], r["window"]): r["end"] for r in judged if r["branch"] and r["factor"] == 1}
    changed = [row for row in judged if row["branch"] and row["factor"] != 1]
    fine = [row for row in changed if row["end"] <= HARMED * reference[row["optimizer"], row["window"]]]
    harmed = [row for row in changed if row not in fine]  # a NaN is not below anything
    groups = {"held rate": held, "changed, no harm": fine, f"changed, loss over {HARMED:g} times": harmed}
    lines = []
    for rule in RULES:
        fired = [f"{sum(rules(row)[rule] for row in group)} of {len(group)}" for group in groups.values()]
        lines.append([rule, *fired])
    return markdown(["rule fires on", *groups], lines)


if __name__ == "__main__":
    typer.run(main)
