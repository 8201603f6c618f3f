"""`Auto` where its constants were not set, or not until it failed: ``python benchmarks/held_out.py --data-dir DIR``.

Question answering (SQuAD's development set) and translation (Multi30k), both with AdamW, at the benchmark's full small
budget: beside Knee from each rate of a grid. The small part of contests that ``autolr bench --workloads
multi30k,squad-small`` is the whole of. `Auto`'s longer trials were made while looking at translation. Shakespeare in
runs that are long enough for them is ``--workloads shakespeare --scale 3``.
"""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from autolr.bench.contest import SMALL, TRAIN_LOSS, WARM_UP, Contest
from autolr.bench.experiment import Ask, spread
from kept import highest_rate, kept_run
from record import markdown, new_record, write_record

GRIDS = {
    "squad-small": [3e-4, 1e-3, 3e-3, 1e-2],
    "multi30k": [3e-4, 1e-3, 3e-3],
    "shakespeare": [3e-4, 1e-3, 3e-3],
}


def measure(
    contest: Contest, data_dir: Path, folder: Path, schedule: str, lr: float, seed: int, scale: float = 1.0
) -> dict[str, Any]:
    """One run; one that is there already is read."""
    more: dict[str, Any] = {"schedule_options": {"warmup": WARM_UP}}
    if schedule == "auto":
        more = {"policy": {"within": True}}
    settings = contest.settings(Ask(scale=scale, data_dir=data_dir), schedule, lr, seed, **more)
    times = "" if scale == 1 else f"-{settings.epochs}-epochs"
    result, run = kept_run(settings, folder / f"{contest.workload}-{schedule}-{lr:g}-{seed}{times}")
    return {
        "contest": contest.name, "epochs": settings.epochs, "schedule": schedule, "lr": lr, "seed": seed,
        "peak": highest_rate(run), "commit": run.provenance["commit"], "result": result,
    }  # fmt: skip


def held_out_table(rows: list[dict[str, Any]]) -> str:
    """A line a method and rate, a block a contest."""
    metrics = {contest.name: contest.metric for contest in SMALL}
    lines = []
    for (name, schedule, lr), some in itertools.groupby(rows, key=lambda r: (r["contest"], r["schedule"], r["lr"])):
        each = list(some)
        metric, epochs = metrics[name], each[0].get("epochs")  # earlier rows have none
        lines.append([
            name if epochs is None else f"{name}, {epochs} epoch{'s' * (epochs > 1)}", schedule,
            "-" if schedule.startswith("auto") else f"{lr:g}", str(len(each)),
            " ".join(f"{r['peak']:.2g}" for r in each),
            f"{spread([metric.of(r['result']) for r in each], metric.form)} ({metric.title.removeprefix('test ')})",
            spread([TRAIN_LOSS.of(r["result"]) for r in each], TRAIN_LOSS.form),
            f"{100 * statistics.fmean(r['result'].get('cost_share', 0.0) for r in each):.1f} %",
        ])  # fmt: skip
    return markdown(
        ["contest", "method", "rate given", "seeds", "highest rate", "test", "training loss", "looks and trials"], lines
    )


def main(
    data_dir: Annotated[Path, typer.Option(envvar="AUTOLR_DATA")],
    folder: Annotated[Path, typer.Option(help="Where runs are kept; those that are there are read.")] = Path(
        "runs/held-out"
    ),
    workloads: str = "squad-small,multi30k",
    scale: Annotated[float, typer.Option(help="Times the benchmark's epochs.")] = 1.0,
    seeds: Annotated[int, typer.Option(help="Of Auto; Knee has one a rate.")] = 2,
    record: bool = True,
) -> None:
    """Measure, print the table, and write a record."""
    torch.set_num_threads(1)
    rows = []
    for workload in workloads.split(","):
        contest = next(c for c in SMALL if c.workload == workload)
        wanted = [("knee", lr, 0) for lr in GRIDS[workload]]
        wanted += [("auto", contest.seed_rate, seed) for seed in range(seeds)]
        for schedule, lr, seed in wanted:
            rows.append(measure(contest, data_dir, folder, schedule, lr, seed, scale))
            peak, figure = rows[-1]["peak"], contest.metric.of(rows[-1]["result"])
            print(workload, schedule, lr, seed, f"{peak:.3g}", figure, flush=True)
    table = held_out_table(rows)
    print(table)
    if record:
        path = new_record("held-out")
        write_record(path, {"workloads": workloads, "scale": scale, "seeds": seeds, "rates": GRIDS}, rows, table)
        print("Record:", path)


if __name__ == "__main__":
    typer.run(main)
