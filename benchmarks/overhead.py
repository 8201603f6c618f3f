"""What AutoLR costs in wall-clock beside the bare optimizer, and which part of it is what (paper, appendix C).

``python benchmarks/overhead.py --data-dir DIR``. One full window of Fashion-MNIST's network at the paper's setting
(superbatch 100, 5 samples, window 1,000), with and without AutoLR, in alternating pairs in one process; medians.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from autolr import AutoLR, Paper
from autolr.cost import FORWARDS_PER_STEP
from fixed_rate import FixedRate
from record import markdown, new_record, write_record

WINDOW, SUPERBATCH = 1000, 100
LR = 0.01
PARTS = ("looks", "drop_rate", "snapshots")


def main(data_dir: Annotated[Path, typer.Option(envvar="AUTOLR_DATA")], pairs: int = 5, threads: int = 1) -> None:
    """Measure, print the table, and write a record."""
    torch.set_num_threads(threads)
    rows = [measure(spread, data_dir, bare_first=pair % 2 == 0) for pair in range(pairs) for spread in (1, 20)]
    table = overhead_table(rows)
    path = new_record("overhead")
    settings = {"workload": "fashion-mnist", "window": WINDOW, "superbatch": SUPERBATCH, "pairs": pairs}
    write_record(path, settings | {"threads": threads}, rows, table)
    print(table, f"\nRecord: {path}")


def measure(spread: int, data_dir: Path, *, bare_first: bool) -> dict[str, Any]:
    """One window bare and one with AutoLR, in seconds, and the parts of the difference as AutoLR accounts for them."""
    steps = WINDOW + spread - 1  # from one window's end to the next: a spread look ends `spread` - 1 steps later
    if bare_first:
        bare, _ = _seconds(data_dir, steps, None)
    tuned, optimizer = _seconds(data_dir, steps, spread)
    if not bare_first:
        bare, _ = _seconds(data_dir, steps, None)
    assert optimizer is not None
    row: dict[str, Any] = {
        "spread": spread,
        "steps": steps,
        "bare": bare,
        "tuned": tuned,
        "forwards": optimizer.cost.forwards,
    }
    return row | {part: getattr(optimizer.cost, f"{part}_seconds") for part in PARTS}


def _seconds(data_dir: Path, steps: int, spread: int | None) -> tuple[float, AutoLR | None]:
    run = FixedRate("momentum", data_dir, lr=LR)
    tuned = None
    if spread is not None:
        run.optimizer = tuned = AutoLR(
            run.optimizer, run.model, run.workload.loss, run.batches, 10 * WINDOW,
            policy=Paper(spread=spread), window=WINDOW, superbatch=SUPERBATCH,
        )  # fmt: skip
    # The first step also measures where the first window begins. From behind it on, each window costs the same: its
    # end, its look, and the next one's beginning.
    run.train(1)
    if tuned is not None:
        tuned.cost = type(tuned.cost)()
    start = time.perf_counter()
    run.train(steps)
    return time.perf_counter() - start, tuned


def overhead_table(rows: list[dict[str, Any]]) -> str:
    """Medians over the pairs."""
    lines = []
    for spread in sorted({row["spread"] for row in rows}):
        some = [row for row in rows if row["spread"] == spread]
        bare = statistics.median(row["bare"] for row in some)
        forwards = some[0]["forwards"]
        ratio = statistics.median(row["tuned"] / row["bare"] for row in some)
        lines.append([
            str(spread), str(len(some)), f"{bare:.1f}", f"{ratio:.3f}",
            *(f"{100 * statistics.median(row[part] / row['bare'] for row in some):.2f} %" for part in PARTS),
            str(forwards), f"{100 * forwards / (FORWARDS_PER_STEP * some[0]['steps']):.1f} %",
        ])  # fmt: skip
    head = ["steps a look", "pairs", "bare, s", "AutoLR / bare, wall-clock", "looks", "drop-rate checks", "snapshots",
            "forwards", "of training's forward equivalents"]  # fmt: skip
    return markdown(head, lines)


if __name__ == "__main__":
    typer.run(main)
