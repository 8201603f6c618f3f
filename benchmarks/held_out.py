"""`Auto` where its constants were not set: ``python benchmarks/held_out.py --data-dir DIR``.

Shakespeare's plays, a small GPT with AdamW, an epoch: beside Knee from a few rates. The small part of a contest that
`autolr bench --workloads shakespeare` is the whole of.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from autolr.bench.contest import SMALL, WARM_UP
from autolr.bench.experiment import Ask
from kept import highest_rate, kept_run
from record import markdown, new_record, write_record

RUNS = (("auto", 1e-3, 0), ("auto", 1e-3, 1), ("knee", 1e-3, 0), ("knee", 3e-3, 0), ("knee", 1e-2, 0))


def measure(data_dir: Path, folder: Path, schedule: str, lr: float, seed: int) -> dict[str, Any]:
    """One run; one that is there already is read."""
    contest = next(c for c in SMALL if c.workload == "shakespeare")
    more: dict[str, Any] = {"policy": {"within": True}}
    if schedule != "auto":
        more = {"schedule_options": {"warmup": WARM_UP}}
    settings = contest.settings(Ask(data_dir=data_dir), schedule, lr, seed, **more)
    out = folder / f"{schedule}-{lr:g}-{seed}"
    result, run = kept_run(dataclasses.replace(settings, evaluations=1), out)
    return {
        "schedule": schedule, "lr": lr, "seed": seed, "peak": highest_rate(run), "commit": run.provenance["commit"],
        "result": result,
    }  # fmt: skip


def held_out_table(rows: list[dict[str, Any]]) -> str:
    """A line a run."""
    lines = []
    for row in rows:
        given = "-" if row["schedule"] == "auto" else f"{row['lr']:g}"
        losses = [f"{row['result'][key]:.3f}" for key in ("test_loss", "final_train_loss")]
        lines.append([row["schedule"], given, str(row["seed"]), f"{row['peak']:.2g}", *losses])
    return markdown(["method", "rate given", "seed", "highest rate", "test loss", "training loss"], lines)


def main(
    data_dir: Annotated[Path, typer.Option(envvar="AUTOLR_DATA")],
    folder: Annotated[Path, typer.Option(help="Where runs are kept; those that are there are read.")] = Path(
        "runs/held-out"
    ),
) -> None:
    """Measure, print the table, and write a record."""
    torch.set_num_threads(1)
    rows = [measure(data_dir, folder, *run) for run in RUNS]
    table = held_out_table(rows)
    path = new_record("held-out")
    write_record(path, {"contest": "shakespeare, adamw", "epochs": 1}, rows, table)
    print(table, f"\nRecord: {path}")


if __name__ == "__main__":
    typer.run(main)
