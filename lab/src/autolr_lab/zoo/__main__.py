"""The zoo's commands: ``python -m autolr_lab.zoo list | run | status | pack``."""

import argparse
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from autolr_lab.zoo.grid import grid
from autolr_lab.zoo.registry import PAIRS, Pair, side
from autolr_lab.zoo.short_runs import short_runs
from autolr_lab.zoo.store import Store, pack


def jobs(seeds: Sequence[int], tasks: Sequence[str], optimizers: Sequence[str]) -> Iterator[tuple[int, Pair]]:
    """Pairs in an order that is shuffled once and for all, seed by seed, so that a partial result is a fair sample."""
    pairs = list(PAIRS)
    random.Random(0).shuffle(pairs)
    for seed in seeds:
        for pair in pairs:
            if (not tasks or pair.task.name in tasks) and (not optimizers or pair.optimizer in optimizers):
                yield seed, pair


def run(store: Store, todo: Sequence[tuple[int, Pair]]) -> None:
    """Do what is not done yet, one pair and seed after the other."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # units that died would make steps ten times slower
    for number, (seed, pair) in enumerate(todo, start=1):
        began, held = time.perf_counter(), len(store.rows)
        short_runs(store, pair, seed)
        grid(store, pair, seed)
        seconds, new = time.perf_counter() - began, len(store.rows) - held
        print(f"{number}/{len(todo)} seed {seed} {pair.name}: {new} runs, {seconds:.1f} s", flush=True)


def show_pairs() -> None:
    """Every pair with its side of the split and its customary rate."""
    for pair in PAIRS:
        print(f"{side(pair.task):6} {pair.task.kind:10} {pair.name:32} {pair.customary:g}")


def show_status(store: Store) -> None:
    """What the store holds: pairs and runs for each seed, and rows that are out of date."""
    for seed in sorted({row.seed for row in store.rows.values()}):
        rows = [row for row in store.rows.values() if row.seed == seed]
        pairs = {(row.task, row.optimizer) for row in rows if row.run == "grid"}
        print(
            f"seed {seed}: {len(pairs)} of {len(PAIRS)} pairs, {len(rows)} runs, {sum(r.seconds for r in rows):.0f} s"
        )
    print(f"{store.stale} rows of code that has changed since")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="autolr_lab.zoo", description=__doc__)
    parser.add_argument("command", choices=["list", "run", "status", "pack"])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "zoo", help="where the rows go")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--tasks", nargs="+", default=[], help="only these")
    parser.add_argument("--optimizers", nargs="+", default=[], help="only these")
    parser.add_argument("--to", type=Path, default=Path("lab/results/zoo"), help="where packed tables go")
    given = parser.parse_args(arguments)
    if given.command == "list":
        show_pairs()
        return
    store = Store(given.folder / "rows.jsonl")
    if given.command == "run":
        run(store, list(jobs(given.seeds, given.tasks, given.optimizers)))
    elif given.command == "status":
        show_status(store)
    else:
        for name in ("short", "grid"):
            pack((row for row in store.rows.values() if row.run == name), given.to / f"{name}.csv.gz")


if __name__ == "__main__":
    main()
