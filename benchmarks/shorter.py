"""`Auto` in seven tenths of the steps, beside the tuned staircase in all of them: ``python benchmarks/shorter.py``.

The published claims of its kind are of this form: LRTuner (Iyer et al. 2021) and AutoLRS (Jin et al. 2021) reach what
the hand-tuned schedule does in 0.7 to 0.8 of its steps. The staircases are read from a record of the benchmark.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import statistics
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from autolr.bench.contest import SMALL, Contest
from autolr.bench.experiment import Ask
from autolr.bench.regret import by_seed, regret
from autolr.bench.search import Staircase
from autolr.bench.store import Store
from kept import kept_run
from record import markdown, new_record, write_record

STAIRCASE, AUTO = "tuned staircase", "Auto"


def tuned_staircases(record: Path) -> dict[str, list[dict[str, Any]]]:
    """Of each contest at the scale of a benchmark's record: the rows of the tuned staircase, as the benchmark has it.

    The records beside it count as well, as they do there.
    """
    asked = json.loads((record / "record.json").read_text(encoding="utf8"))["settings"]
    find = Store(record, record.parent).find
    searches = {contest.name: Staircase(contest, Ask(scale=asked["scale"])) for contest in SMALL}
    return {name: rows for name, search in searches.items() if (rows := search.winner(find))}


def shortened(contest: Contest, like: dict[str, Any], share: float, data_dir: Path | None, folder: Path) -> Any:
    """`Auto`'s result with the seed of a staircase's row, in ``share`` of its epochs, rounded down."""
    s = like["settings"]
    settings = contest.settings(Ask(data_dir=data_dir), "auto", contest.seed_rate, s["seed"], policy={"within": True})
    epochs = int(share * s["epochs"])
    if not epochs:
        raise ValueError(f"{share:g} of the {s['epochs']} epochs of {contest.name} is not one: give a longer run.")
    out = folder / f"{contest.workload}-{contest.optimizer}-{epochs}-{s['seed']}"
    result, run = kept_run(dataclasses.replace(settings, epochs=epochs, evaluations=1), out)
    return result | {"commit": run.provenance["commit"]}


def shorter_table(rows: list[dict[str, Any]]) -> str:
    """A line a contest."""
    contests = {contest.name: contest for contest in SMALL}
    lines = []
    for name, some in itertools.groupby(rows, key=lambda r: r["contest"]):
        metric, each = contests[name].metric, list(some)
        theirs, ours = ([r for r in each if r["method"] == method] for method in (STAIRCASE, AUTO))
        costs = [statistics.fmean(r["result"]["forward_equivalents"] for r in some) for some in (theirs, ours)]
        lost = regret(metric, by_seed(ours), by_seed(theirs))
        assert lost is not None, "the seeds are the same"
        lines.append([
            name, metric.title, str(len(ours)), *(f"{cost / 3:.0f}" for cost in costs), f"{costs[1] / costs[0]:.2f}",
            *(metric.form.format(statistics.fmean(metric.of(r["result"]) for r in some)) for some in (theirs, ours)),
            f"{-lost.mean:+.2f} ± {lost.half:.2f}" if metric.higher else f"{lost.mean:+.4f} ± {lost.half:.4f}",
        ])  # fmt: skip
    head = [
        "contest", "metric", "seeds", "staircase's cost, steps", "Auto's, all counted", "share", "tuned staircase",
        "Auto", "difference",
    ]  # fmt: skip
    return markdown(head, lines)


def main(
    bench: Annotated[Path, typer.Option(help="A record of the benchmark, with tuned staircases.")],
    data_dir: Annotated[Path | None, typer.Option(envvar="AUTOLR_DATA")] = None,
    folder: Annotated[Path, typer.Option(help="Where runs are kept; those that are there are read.")] = Path(
        "runs/shorter"
    ),
    share: Annotated[float, typer.Option(help="Of the staircase's epochs, at most.")] = 0.7,
    record: bool = True,
) -> None:
    """Measure, print the table, and write a record."""
    torch.set_num_threads(1)
    tuned = tuned_staircases(bench)
    rows = []
    for contest in SMALL:
        for method in (STAIRCASE, AUTO):
            for like in tuned.get(contest.name, []):
                result = like["result"]
                if method == AUTO:
                    result = shortened(contest, like, share, data_dir, folder)
                    print(contest.name, like["settings"]["seed"], contest.metric.of(result), flush=True)
                seed = {"seed": like["settings"]["seed"]}
                rows.append({"contest": contest.name, "method": method, "settings": seed, "result": result})
    table = shorter_table(rows)
    print(table)
    if record:
        path = new_record("shorter")
        write_record(path, {"bench": bench.name, "share": share}, rows, table)
        print("Record:", path)


if __name__ == "__main__":
    typer.run(main)
