"""Does the reach tell anything once the network has settled to its rate? ``python benchmarks/settling.py``.

The reach is the rate at which the loss along the step would be level at twice the step. Here the rate is held, after a
rise of 20 steps from a tenth of it, at several rates around a good one, and the reach is followed by a look at every
step: if it were a property of the network, it would come out the same at each rate.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from autolr.bench.contest import SMALL, Contest
from autolr.line import Line
from autolr.optimizers import OPTIMIZERS
from autolr.policies.auto import HIGHEST, LOWEST
from autolr.probe import Probe
from autolr.snapshot import held_parameters
from autolr.superbatch import Superbatches
from autolr.workloads import WORKLOADS
from record import markdown, new_record, write_record

RATES = {
    ("digits", "momentum"): (0.02, 0.1, 0.3),
    ("digits", "adam"): (0.003, 0.02, 0.1),
    ("fashion-mnist", "momentum"): (0.01, 0.05, 0.15),
    ("cifar10-small", "momentum"): (0.02, 0.1, 0.3),
    ("tiny-imagenet-10", "momentum"): (0.01, 0.03, 0.08),
}
EPOCHS = {"digits": 8, "fashion-mnist": 1, "cifar10-small": 1, "tiny-imagenet-10": 3}
RISE, STEPS = 20, 192
GAIN = 0.08  # decades a look: some ten looks are averaged


def follow(contest: Contest, lr: float, seed: int, data_dir: Path | None) -> list[float]:
    """The reach after each step, over the rate that is held."""
    workload = WORKLOADS[contest.workload]
    train, _ = workload.datasets(data_dir)
    torch.manual_seed(seed)
    model = workload.network(data_dir)
    batches = workload.train_batches(
        train, contest.batch_size or workload.batch_size, torch.Generator().manual_seed(seed)
    )
    base = OPTIMIZERS[contest.optimizer](model.parameters(), lr, **workload.options.get(contest.optimizer, {}))
    probe = Probe(model, workload.loss, Superbatches(batches, 1, seed))
    probe.check()
    reach, found = lr, []
    steps = min(STEPS, EPOCHS[contest.workload] * len(batches))
    for step, batch in zip(range(1, steps + 1), itertools.chain.from_iterable(itertools.repeat(batches)), strict=False):
        rate = lr * min(1.0, 0.1 * 10 ** (step / RISE))
        for group in base.param_groups:
            group["lr"] = rate
        base.zero_grad()
        workload.loss(model, batch).backward()  # type: ignore[no-untyped-call]
        line = Line(held_parameters(base))
        base.step()
        scale = reach / rate
        losses = [row[0] for row in probe.along(line, [-1, scale - 1, 2 * scale - 1], step, 1).tolist()]
        seen = tilt(losses) if all(map(math.isfinite, losses)) else 1.0
        reach = min(HIGHEST, max(LOWEST, reach * 10 ** (-seen * (0.4 / (1 + step / 4) if step < RISE else GAIN))))
        found.append(reach / lr)
    return found


def tilt(losses: Sequence[float]) -> float:
    """Whether the loss falls (-1) or rises (+1) from before a step to twice as far, in between where it does both.

    0 where both ends are level: a parabola then has its bottom in the middle (s* = 1, eps_min = 0). It is the loss's
    difference in units of its way, so that each look counts by its shape: past the reach losses grow without bound.

    Example:
        >>> tilt([3.0, 2.0, 1.0]), tilt([3.0, 2.0, 3.0]), tilt([3.0, 2.0, 6.0])
        (-1.0, 0.0, 0.6)
    """
    before, here, beyond = losses
    way = abs(here - before) + abs(beyond - here)
    return (beyond - before) / way if way else 0.0


def settling_table(rows: list[dict[str, Any]]) -> str:
    """A line a rate: the reach before the network has settled, and the reach over the rate as it does."""
    lines = []
    for row in rows:
        found = row["reach"]
        early = row["lr"] * math.exp(_mean_log(found[5:15]))
        shares = [f"{math.exp(_mean_log(found[a:b])):.2g}" for a, b in ((5, 15), (20, 50), (50, 100))]
        late = f"{math.exp(_mean_log(found[100:])):.2g}" if len(found) > 100 else "-"
        lines.append([f"{row['workload']}, {row['optimizer']}", f"{row['lr']:g}", f"{early:.2g}", *shares, late])
    head = ["contest", "rate held", "reach, steps 6 to 15", "over the rate", "steps 21 to 50", "51 to 100", "101 on"]
    return markdown(head, lines)


def _mean_log(found: list[float]) -> float:
    return statistics.fmean(map(math.log, found))


def main(seed: int = 0, data_dir: Annotated[Path | None, typer.Option(envvar="AUTOLR_DATA")] = None) -> None:
    """Measure, print the table, and write a record."""
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for (workload, optimizer), rates in RATES.items():
        contest = next(c for c in SMALL if (c.workload, c.optimizer) == (workload, optimizer))
        for lr in rates:
            found = follow(contest, lr, seed, data_dir)
            rows.append({"workload": workload, "optimizer": optimizer, "lr": lr, "seed": seed, "reach": found})
            print(settling_table(rows[-1:]), flush=True)
    table = settling_table(rows)
    path = new_record("settling")
    write_record(path, {"seed": seed, "rise": RISE, "steps": STEPS, "gain": GAIN}, rows, table)
    print(table, f"\nRecord: {path}")


if __name__ == "__main__":
    typer.run(main)
