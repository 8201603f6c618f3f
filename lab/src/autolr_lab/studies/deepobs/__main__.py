"""``python -m autolr_lab.studies.deepobs --folder DIR``: what is missing is run, at full length, then the tables."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from autolr_lab.runner.results import Results
from autolr_lab.studies.deepobs.published import FIRST_SEED
from autolr_lab.studies.deepobs.runs import KEY, OPTIMIZERS, PROBLEMS, checked, compared, problem_of
from autolr_lab.studies.deepobs.study import DEEPOBS
from autolr_lab.studies.deepobs.tables import tables
from autolr_lab.studies.lines import Lines
from autolr_lab.studies.study import keep


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="autolr_lab.studies.deepobs", description=__doc__)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    parser.add_argument(
        "--epochs", type=int, default=None, help="fewer than the published ones; one that they have; 0 checks the start"
    )
    parser.add_argument("--seeds", type=int, default=1, help=f"how many, from {FIRST_SEED}")
    parser.add_argument("--check", action="store_true", help="train with a published constant rate instead")
    parser.add_argument("--folder", type=Path, required=True, help="where the rows go; what is there is not run again")
    parser.add_argument("--record", action="store_true", help="keep all rows of the folder among the results")
    parser.add_argument("--data-dir", type=Path, default=None, help="else AUTOLR_DATA")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    lines = Lines(asked.folder / "deepobs.jsonl", KEY)
    seeds = list(range(FIRST_SEED, FIRST_SEED + asked.seeds))
    for name in asked.problems:
        problem = problem_of(name, asked.data_dir)
        epochs = problem.epochs if asked.epochs is None else asked.epochs
        for optimizer in asked.optimizers:
            if asked.check:
                rows = checked(lines, problem, optimizer, epochs, seeds, asked.data_dir)
            else:
                rows = compared(lines, problem, optimizer, epochs, seeds, asked.data_dir)
            for row in rows:
                at = row.get("peak") or row["rate"]
                print(f"{row['method']} {name} {optimizer} {at:.3g} test {row['test_loss']:.5g}", flush=True)
    print("\n".join(tables(lines.rows).values()))
    if asked.record:
        print(f"Record: {keep(DEEPOBS, lines.rows, Results()).name}")


if __name__ == "__main__":
    main()
