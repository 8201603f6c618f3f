"""Does the best peak rate show in a run of a dozen steps? ``python benchmarks/in_small.py --data-dir DIR``.

Runs of several lengths, each a whole one in small (`autolr.policies.trials`), from a grid of peaks and the same start;
judged, as `Auto` does, where they end, in training mode, on minibatches that are the same for all. Beside them stands
the best peak of the tuned sweep, where records of the benchmark are named.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from autolr.bench.contest import SMALL, Contest
from autolr.optimizers import OPTIMIZERS
from autolr.policies.trials import in_small
from autolr.workloads import WORKLOADS
from peaks import best_peaks
from record import markdown, new_record, write_record

LENGTHS = (6, 12, 25, 50)
GRIDS = {"momentum": (0.01, 0.03, 0.06, 0.12, 0.25, 0.5), "adam": (0.001, 0.003, 0.006, 0.012, 0.025, 0.05)}
GRIDS["adamw"] = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016)
LARGE = {"shakespeare": 25, "multi30k": 50, "squad-small": 12}  # workloads: the longest run that is worth its time
JUDGES = 8


def ends(contest: Contest, steps: int, seed: int, data_dir: Path | None) -> dict[float, float]:
    """The loss where a run of so many steps ends, by its peak; infinite where it diverged."""
    workload = WORKLOADS[contest.workload]
    data, _ = workload.datasets(data_dir)
    torch.manual_seed(seed)
    model = workload.network(data_dir)
    size = contest.batch_size or workload.batch_size
    start = copy.deepcopy(model.state_dict())
    judges = list(itertools.islice(workload.train_batches(data, size, torch.Generator().manual_seed(999)), JUDGES))
    losses = {}
    for peak in GRIDS[contest.optimizer]:
        model.load_state_dict(start)
        torch.manual_seed(seed)
        order = torch.Generator().manual_seed(seed)
        base = OPTIMIZERS[contest.optimizer](model.parameters(), peak, **workload.options.get(contest.optimizer, {}))
        batches = itertools.chain.from_iterable(itertools.repeat(workload.train_batches(data, size, order)))
        for step, batch in enumerate(itertools.islice(batches, steps), 1):
            for group in base.param_groups:
                group["lr"] = peak * in_small(step, steps)
            base.zero_grad()
            workload.loss(model, batch).backward()  # type: ignore[no-untyped-call]
            if workload.clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), workload.clip)
            base.step()
        losses[peak] = _mean_loss(workload.loss, model, judges)
    return losses


@torch.no_grad()
def _mean_loss(loss_fn: Any, model: nn.Module, batches: list[Any]) -> float:
    torch.manual_seed(0)  # one dropout mask for all peaks
    loss = sum(float(loss_fn(model, batch)) for batch in batches) / len(batches)
    return loss if math.isfinite(loss) else math.inf


def in_small_table(rows: list[dict[str, Any]], best: dict[tuple[str, str], float]) -> str:
    """A line a contest: the best peak of each length and seed."""
    lengths = list(dict.fromkeys(row["steps"] for row in rows))
    lines = []
    for key, some in itertools.groupby(rows, key=lambda row: (row["workload"], row["optimizer"])):
        each = list(some)
        found = [" ".join(f"{_best(row):g}" for row in each if row["steps"] == steps) or "-" for steps in lengths]
        lines.append([", ".join(key), *found, f"{best[key]:g}" if key in best else "-"])
    return markdown(["contest", *(f"{steps} steps" for steps in lengths), "the sweep's best"], lines)


def _best(row: dict[str, Any]) -> float:
    # A record has no infinity: a run that diverged has no loss there.
    return min((math.inf if loss is None else float(loss), float(peak)) for peak, loss in row["losses"])[1]


def main(
    data_dir: Annotated[Path | None, typer.Option(envvar="AUTOLR_DATA")] = None,
    seeds: int = 2,
    workloads: Annotated[str | None, typer.Option(help="Separated by commas; all of the small benchmark's.")] = None,
    bench: Annotated[list[Path] | None, typer.Option(help="A record of the benchmark.")] = None,
) -> None:
    """Measure, print the table, and write a record."""
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for contest in SMALL:
        if workloads is not None and contest.workload not in workloads.split(","):
            continue
        for steps, seed in itertools.product(LENGTHS, range(seeds)):
            if steps > LARGE.get(contest.workload, steps):
                continue
            losses = ends(contest, steps, seed, data_dir)
            rows.append({
                "workload": contest.workload, "optimizer": contest.optimizer, "steps": steps, "seed": seed,
                "losses": sorted(losses.items()),
            })  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
    best: dict[tuple[str, str], float] = {}
    for record in bench or []:
        best |= best_peaks(record)
    table = in_small_table(rows, best)
    path = new_record("in-small")
    settings = {"seeds": seeds, "workloads": workloads, "bench": [record.name for record in bench or []]}
    write_record(path, settings, rows, table)
    print(table, f"\nRecord: {path}")


if __name__ == "__main__":
    typer.run(main)
