"""``python -m autolr_lab.studies.fine_tuning --task texts --folder DIR``: what is missing is run, then the tables."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from autolr_lab.runner.results import Results
from autolr_lab.studies.fine_tuning.measure import KEY, SEARCHES, grid, searched
from autolr_lab.studies.fine_tuning.study import FINE_TUNING, TASKS
from autolr_lab.studies.fine_tuning.tables import tables
from autolr_lab.studies.fine_tuning.texts import texts
from autolr_lab.studies.lines import Lines
from autolr_lab.studies.study import keep

METHODS = ("grid", *SEARCHES)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="autolr_lab.studies.fine_tuning", description=__doc__)
    parser.add_argument("--task", choices=list(TASKS), default="texts")
    parser.add_argument("--steps", type=int, default=None, help="300 of texts, 240 of questions")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--folder", type=Path, required=True, help="where the rows go; what is there is not run again")
    parser.add_argument("--record", action="store_true", help="keep all rows of the folder among the results")
    parser.add_argument("--data-dir", type=Path, default=None, help="else AUTOLR_DATA")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    lines = Lines(asked.folder / "fine_tuning.jsonl", KEY)
    make, usual = TASKS[asked.task]
    steps = asked.steps or usual
    transfer = texts(asked.data_dir, kept=asked.folder / "gpt.pt") if make is texts else make(asked.data_dir)
    for method in asked.methods:
        for seed in asked.seeds:
            one = (lines, transfer, steps, seed)
            for row in grid(*one) if method == "grid" else searched(*one, [method]):
                rate = row["rate"] or row["peak"]
                print(
                    f"{row['method']:24} {rate:9.3g} held out {row['held_out']:.4f} {row['seconds']:.0f} s", flush=True
                )
    print("\n".join(tables(lines.rows).values()))
    if asked.record:
        print(f"Record: {keep(FINE_TUNING, lines.rows, Results()).name}")


if __name__ == "__main__":
    main()
