"""What longer trials are worth to `Auto` on text, where shorter ones say little: ``python benchmarks/plateaus.py``.

The rules were set while looking at translation and at Shakespeare. There one was once another: a plateau's low end was
the peak also where there is no time for longer trials (the record of 2026-11-26). An epoch of Shakespeare has none:
there nothing differs now.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from ablations import changed
from autolr.bench.contest import SMALL
from held_out import held_out_table, measure
from record import new_record, write_record

SEEDS = {"multi30k": 2, "shakespeare": 5}
RULES = ("as it is", "no longer trials")


def main(
    data_dir: Annotated[Path, typer.Option(envvar="AUTOLR_DATA")],
    folder: Annotated[Path, typer.Option(help="Where runs are kept; those that are there are read.")] = Path(
        "runs/plateaus"
    ),
    workloads: str = "multi30k",
    rules: str = ",".join(RULES),
) -> None:
    """Measure, print the table, and write a record."""
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for workload, rule in itertools.product(workloads.split(","), rules.split(",")):
        contest = next(c for c in SMALL if c.workload == workload)
        for seed in range(SEEDS[workload]):
            with changed(rule, None):
                row = measure(contest, data_dir, folder / rule.replace(" ", "-"), "auto", contest.seed_rate, seed)
            rows.append(row | {"schedule": f"auto, {rule}"})
            print(rule, workload, seed, f"{row['peak']:.3g}", contest.metric.of(row["result"]), flush=True)
    table = held_out_table(rows)
    path = new_record("plateaus")
    write_record(path, {"workloads": workloads, "rules": rules, "seeds": SEEDS}, rows, table)
    print(table, f"\nRecord: {path}")


if __name__ == "__main__":
    typer.run(main)
