"""Which peak does `Auto` find, and how far do seeds scatter? Only its search is run: ``python benchmarks/peaks.py``.

Beside it stands the best peak of the tuned sweep, where a record of the benchmark is named with ``--bench``; and how
much further a longer trial came, which tells a network that learns from one that is stuck.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from autolr import Auto, AutoLR
from autolr.bench.contest import SMALL, Contest
from autolr.bench.search import SCHEDULES
from autolr.optimizers import OPTIMIZERS
from autolr.policies.trials import lowest_loss
from autolr.report.search import search_of
from autolr.trace import known
from autolr.workloads import WORKLOADS
from record import markdown, new_record, write_record


def search(contest: Contest, epochs: int, seed: int, data_dir: Path | None) -> dict[str, Any]:
    """One search: the peak, at which step, and what it cost."""
    workload = WORKLOADS[contest.workload]
    train, _ = workload.datasets(data_dir)
    torch.manual_seed(seed)
    model = workload.network(data_dir)
    order = torch.Generator().manual_seed(seed)
    batches = workload.train_batches(train, contest.batch_size or workload.batch_size, order)
    base = OPTIMIZERS[contest.optimizer](
        model.parameters(), workload.rate(contest.optimizer), **workload.options.get(contest.optimizer, {})
    )
    total = epochs * len(batches)
    optimizer = AutoLR(base, model, workload.loss, batches, total, policy=Auto(), seed=seed)
    for batch in itertools.chain.from_iterable(itertools.repeat(batches)):
        optimizer.zero_grad()
        workload.loss(model, batch).backward()  # type: ignore[no-untyped-call]
        if workload.clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), workload.clip)
        optimizer.step()
        if optimizer.phase != "search":
            break
    last = optimizer.history[-1]
    told = search_of(optimizer.history)
    assert told is not None
    return {
        "workload": contest.workload, "optimizer": contest.optimizer, "seed": seed, "total_steps": total,
        "peak": last.lr_after, "step": optimizer._steps, "looks": len(optimizer.history), "reason": last.reason,
        "cost_share": optimizer.cost.share(total), "start": told.start,
        "lengths": [[(rate, known(loss)) for rate, loss in trials] for trials in told.lengths],
    }  # fmt: skip


def best_peaks(record: Path) -> dict[tuple[str, str], float]:
    """Of each contest of a benchmark's record: the peak of its sweep's best run with the first seed."""
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for row in json.loads((record / "record.json").read_text(encoding="utf8"))["rows"]:
        s, accuracy = row["settings"], row["result"].get("test_accuracy")
        if s["schedule"] in SCHEDULES and s["seed"] == 0 and accuracy is not None:
            key = (s["workload"], s["optimizer"])
            found[key] = max(found.get(key, (0.0, 0.0)), (accuracy, s["lr"]))
    return {key: lr for key, (_, lr) in found.items()}


def peaks_table(rows: list[dict[str, Any]], best: dict[tuple[str, str], float]) -> str:
    """A line a contest."""
    lines = []
    for (workload, optimizer), some in itertools.groupby(rows, key=lambda r: (r["workload"], r["optimizer"])):
        each = list(some)
        peaks = sorted(r["peak"] for r in each)
        tuned = best.get((workload, optimizer))
        lines.append([
            f"{workload}, {optimizer}", str(each[0]["total_steps"]), str(len(each)),
            " ".join(f"{p:.2g}" for p in peaks),
            f"{peaks[-1] / peaks[0]:.1f}", "-" if tuned is None else f"{tuned:.2g}",
            f"{statistics.median(r['step'] for r in each):.0f}", f"{100 * max(r['cost_share'] for r in each):.1f} %",
        ])  # fmt: skip
    head = [
        "contest", "steps", "seeds", "peaks found", "largest over smallest", "the sweep's best peak",
        "found at step, median", "cost at most",
    ]  # fmt: skip
    return markdown(head, lines)


def further_table(rows: list[dict[str, Any]]) -> str:
    """A line a contest that has longer trials: the best of the first ones, beside the first that is longer."""
    lines = []
    for (workload, optimizer), some in itertools.groupby(rows, key=lambda r: (r["workload"], r["optimizer"])):
        each = [row for row in some if len(row["lengths"]) > 1]
        if each:
            shares, left = zip(*map(held_against_the_longer, each), strict=True)
            lines.append([
                f"{workload}, {optimizer}", str(each[0]["total_steps"]), str(len(each)),
                " ".join(f"{share:.2f}" for share in shares), " ".join(f"{times:.2f}" for times in left),
                str(sum(len(row["lengths"][1]) > 1 for row in each)),
            ])  # fmt: skip
    head = [
        "contest", "steps", "searches with longer trials", "gained by the best shorter one, of what it gained",
        "left, of what it left", "stuck",
    ]  # fmt: skip
    return markdown(head, lines)


def held_against_the_longer(row: dict[str, Any]) -> tuple[float, float]:
    """What the best shorter trial gained, of the first longer one's gain; and left, of its loss."""
    start = row["start"]
    ended = [[(rate, math.inf if loss is None else loss) for rate, loss in trials] for trials in row["lengths"]]
    short, long = lowest_loss(ended[0], start), lowest_loss(ended[1][:1], start)
    return (start - short) / (start - long) if long < start else math.inf, short / long


def tables(rows: list[dict[str, Any]], best: dict[tuple[str, str], float]) -> str:
    """Both; the second where it was measured."""
    measured = any("lengths" in row for row in rows)
    return peaks_table(rows, best) + ("\n" + further_table(rows) if measured else "")


def main(
    seeds: int = 5,
    scale: float = 1.0,
    workloads: Annotated[str, typer.Option(help="Separated by commas.")] = "digits,fashion-mnist,tiny-imagenet-10",
    data_dir: Annotated[Path | None, typer.Option(envvar="AUTOLR_DATA")] = None,
    bench: Annotated[Path | None, typer.Option(help="A record of the benchmark.")] = None,
) -> None:
    """Measure, print the table, and write a record."""
    torch.set_num_threads(1)
    chosen = [contest for contest in SMALL if contest.workload in workloads.split(",")]
    rows = []
    for contest, seed in itertools.product(chosen, range(seeds)):
        rows.append(search(contest, max(1, round(scale * contest.epochs)), seed, data_dir))
        print(rows[-1], flush=True)
    table = tables(rows, {} if bench is None else best_peaks(bench))
    path = new_record("peaks")
    write_record(path, {"seeds": seeds, "scale": scale, "bench": None if bench is None else bench.name}, rows, table)
    print(table, f"\nRecord: {path}")


if __name__ == "__main__":
    typer.run(main)
