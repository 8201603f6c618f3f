"""Prints the table: ``python -m autolr_lab.studies.ruined_runs [--seeds 3] [--only digits]``."""

from __future__ import annotations

import argparse
import math

import torch

from autolr_lab.studies.ruined_runs.cases import CASES
from autolr_lab.studies.ruined_runs.compare import by_hand, fixed, tuned, values, verdict

COLUMNS = ("case", "counts", "hand-set cosine", "fixed rate", "AutoLR", "its peaks", "beside the cosine", "told")
# What AutoLR warns of, by words of the warning.
KINDS = {
    "too little": "guess", "it diverged": "diverged", "units died": "died", "peak is too high": "too high",
    "other code": "foreign rate",
}  # fmt: skip


def main() -> None:
    """Every case whose name has ``--only`` in it."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--only", default="")
    chosen = arguments.parse_args()
    torch.set_num_threads(1)
    print(f"| {' | '.join(COLUMNS)} |\n| {' | '.join('---' for _ in COLUMNS)} |")
    for case in CASES:
        if chosen.only not in case.name:
            continue
        hand, rate, ours = ([run(case, seed) for seed in range(chosen.seeds)] for run in (by_hand, fixed, tuned))
        found = verdict([o.error for o in hand], [o.error for o in ours])
        peaks = " ".join(f"{outcome.peak:.2g}" for outcome in ours if math.isfinite(outcome.peak))
        back = sum(outcome.rolled_back for outcome in ours)
        told = ", ".join(dict.fromkeys(_kind(text) for outcome in ours for text in outcome.told))
        print(
            f"| {case.name}, {case.steps} steps | {case.measure} | {values(hand)} | {values(rate)} | {values(ours)} "
            f"| {peaks} | {found}{f', {back} rollbacks' if back else ''} | {told} |",
            flush=True,
        )


def _kind(text: str) -> str:
    """The kind of a warning; one that is not known in its own words."""
    return next((kind for words, kind in KINDS.items() if words in text), text.replace("|", "/")[:100])


main()
