"""AutoLR beside the fixed rate it starts from, over several seeds: the small-scale form of the paper's Tables 8 and 9.

``python benchmarks/compare.py fashion-mnist --epochs 10 --data-dir DIR``. Each run is what `autolr train` does. Runs
are kept under ``--runs``, and one that is there, finished, and of the same settings is not run again: a comparison that
was cut off goes on where it stopped. With the last one it writes a record, which names the commit of each run.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import re
import shutil
import statistics
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from autolr_lab.runner.experiment import SURE
from autolr_lab.training.runs import Run, Settings, read_run
from autolr_lab.training.training import train
from autolr_lab.workloads import WORKLOADS
from autolr_lab.studies.record import markdown, new_record, write_record

OPTIMIZERS = ("sgd", "momentum", "adam")
ONE_STEP = {"spread": 1}  # a look along a single step, as the paper has it
VARIANTS: dict[str, dict[str, Any] | None] = {
    "fixed": None,
    "autolr": {},
    "autolr, one step a look": ONE_STEP,
    "autolr within 2 %": SURE,
}
OVERHEAD = {"autolr within 2 %": 0.02}


def main(
    workload: str,
    data_dir: Annotated[Path | None, typer.Option(envvar="AUTOLR_DATA")] = None,
    epochs: int = 10,
    seeds: int = 3,
    jobs: int = 2,
    runs: Path = Path("runs/compare"),
    variants: Annotated[str, typer.Option(help="A part of the variants, separated by ;")] = ";".join(VARIANTS),
) -> None:
    """Run what is missing, print the table, and write a record."""
    chosen = [name.strip() for name in variants.split(";")]
    cells = list(itertools.product(range(seeds), OPTIMIZERS, chosen))
    with concurrent.futures.ProcessPoolExecutor(jobs) as pool:
        work = [pool.submit(run_cell, workload, epochs, data_dir, runs, *cell) for cell in cells]
        for number, done in enumerate(concurrent.futures.as_completed(work), start=1):
            print(f"{number} of {len(work)}: {done.result()}", flush=True)
    read = {cell: read_run(folder(workload, epochs, runs, *cell)) for cell in cells}
    table = comparison(read, seeds, chosen)
    rows = [{"variant": cell[2], **row(run)} for cell, run in read.items()]
    path = new_record(f"{workload}-{epochs}-epochs")
    write_record(path, {"workload": workload, "epochs": epochs, "seeds": seeds, "threads a run": 1}, rows, table)
    print(table, f"\nRecord: {path}")


def folder(workload: str, epochs: int, runs: Path, seed: int, optimizer: str, variant: str) -> Path:
    """Where a cell's run is kept."""
    return runs / f"{workload}-{optimizer}-{re.sub(r'[^a-z0-9]+', '-', variant).strip('-')}-{epochs}-seed{seed}"


def run_cell(
    workload: str, epochs: int, data_dir: Path | None, runs: Path, seed: int, optimizer: str, variant: str
) -> Path:
    """One run, unless it is there; a run that was cut off begins again."""
    out = folder(workload, epochs, runs, seed, optimizer, variant)
    torch.set_num_threads(1)
    chosen = WORKLOADS[workload]
    changed = VARIANTS[variant]
    policy = {} if changed is None else dataclasses.asdict(dataclasses.replace(chosen.policy, **changed))
    settings = Settings(
        workload=workload,
        optimizer=optimizer,
        schedule="fixed" if changed is None else "autolr",
        lr=chosen.rate(optimizer),
        epochs=epochs,
        batch_size=chosen.batch_size,
        seed=seed,
        data_dir=None if data_dir is None else str(data_dir),
        policy=policy,
        overhead=OVERHEAD.get(variant),
    )
    if not ((out / "result.json").exists() and read_run(out).settings == settings):
        shutil.rmtree(out, ignore_errors=True)
        train(settings, out)
    return out


def row(run: Run) -> dict[str, Any]:
    """A run's line in the record, with where its numbers come from."""
    return {
        "settings": {k: v for k, v in dataclasses.asdict(run.settings).items() if k != "data_dir"},
        "provenance": run.provenance,
        "result": run.result,
        "epochs": run.epochs,
        "lr": [[d.step, d.lr_after] for d in run.decisions],
        # What each look asked for, and its standard error, in multiples of the LR it looked at.
        "asked": [[d.step, over(d.eps_min, d.lr_before), over(d.eps_min_stderr, d.lr_before)] for d in run.decisions],
    }


def over(eps: float | None, lr: float) -> float | None:
    """``eps / lr``; None where there is none."""
    return None if eps is None else eps / lr


def comparison(read: dict[tuple[int, str, str], Run], seeds: int, variants: list[str]) -> str:
    """Mean and standard deviation over the seeds."""
    lines = []
    for optimizer, variant in itertools.product(OPTIMIZERS, variants):
        results = [read[seed, optimizer, variant].result for seed in range(seeds)]
        known = [result for result in results if result is not None]
        lines.append([
            optimizer, variant, str(len(known)),
            spread([r["train_loss"] for r in known], "{:.4f}"),
            spread([r["test_loss"] for r in known], "{:.4f}"),
            spread([100 * r["test_accuracy"] for r in known], "{:.2f}"),
            spread([r.get("changes", 0) for r in known], "{:.1f}"),
            spread([r.get("rollbacks", 0) for r in known], "{:.1f}"),
            spread([100 * r.get("cost_share", 0) for r in known], "{:.1f}"),
        ])  # fmt: skip
    head = ["optimizer", "rate", "n", "train loss", "test loss", "test accuracy, %", "changes", "rollbacks",
            "cost, % of training's forward equivalents"]  # fmt: skip
    return markdown(head, lines)


def spread(values: list[float], form: str) -> str:
    """Mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{form.format(statistics.mean(values))} ± {form.format(deviation)}"


if __name__ == "__main__":
    typer.run(main)
