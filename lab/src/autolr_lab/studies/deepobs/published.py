"""The published runs: 36 constant rates with seed 42, and ten seeds of the one that its authors found best."""

from __future__ import annotations

import csv
import functools
import io
import math
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autolr_lab.workloads.workload import find_folder, read_file

FILE = "deepobs-baselines.csv"
SOURCE = "https://github.com/fsschneider/DeepOBS_Baselines, put together as problem, optimizer, lr, seed, epoch, losses"
FIRST_SEED = 42
LOSSES = ("train_loss", "test_loss")


@dataclass(frozen=True)
class Published:
    """A run at one epoch; losses are infinite where it diverged."""

    lr: float
    seed: int
    train_loss: float
    test_loss: float
    test_accuracy: float  # NaN where nothing is classified


@functools.cache
def _all(path: Path) -> dict[tuple[str, str, int], list[Published]]:
    found: dict[tuple[str, str, int], list[Published]] = {}
    for row in csv.DictReader(io.StringIO(read_file(path, FILE).decode("utf8"))):
        run = Published(
            float(row["lr"]), int(row["seed"]), _loss(row["train_loss"]), _loss(row["test_loss"]),
            float(row["test_accuracy"] or "nan"),
        )  # fmt: skip
        found.setdefault((row["problem"], row["optimizer"], int(row["epoch"])), []).append(run)
    return found


def _loss(text: str) -> float:
    value = float(text or "inf")
    return value if math.isfinite(value) else math.inf


def at_epoch(data_dir: Path | None, problem: str, optimizer: str, epoch: int) -> list[Published]:
    """All runs of a pair after an epoch.

    Raises:
        ValueError: the file has no losses after that epoch.
        MissingDataError: the file is missing.
    """
    held = _all(find_folder(data_dir, "DeepOBS's published runs", ("sweeps", "."), (FILE,), SOURCE))
    if (problem, optimizer, epoch) not in held:
        there = sorted(e for p, o, e in held if (p, o) == (problem, optimizer))
        raise ValueError(f"{problem} with {optimizer} was published after epochs {there}; got {epoch}.")
    return held[problem, optimizer, epoch]


def best(runs: list[Published]) -> Published:
    """The lowest test loss of the 36 rates, all with the first seed."""
    return min((run for run in runs if run.seed == FIRST_SEED), key=lambda run: run.test_loss)


def at_rate(runs: list[Published], rate: float) -> list[Published]:
    """The runs of all seeds at a rate; the file has six digits of it."""
    return [run for run in runs if math.isclose(run.lr, rate, rel_tol=1e-4)]


def spread(runs: list[Published], name: str) -> tuple[float, float]:
    """Mean and standard deviation of a loss over seeds, NaN for the latter where there is one seed."""
    values = [float(getattr(run, name)) for run in runs]
    return statistics.fmean(values), float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
