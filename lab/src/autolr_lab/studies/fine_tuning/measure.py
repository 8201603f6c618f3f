"""The runs: a grid of peaks, `find_peak` with either kind of judge, a range test's suggestion and a tenth of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from autolr import find_peak
from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr.schedules import PeakSchedule
from autolr_lab.baselines.baseline import TrainingRun
from autolr_lab.baselines.lr_finder import suggested
from autolr_lab.runner.results import Row
from autolr_lab.studies.fine_tuning.transfer import GIVEN, JUDGES, Transfer, change, mean_loss
from autolr_lab.studies.lines import Lines

KEY = ("task", "method", "steps", "seed", "rate")
FINE = 5e-5  # where fine-tuning usually begins: the default of transformers' Trainer


@dataclass(frozen=True)
class Search:
    """A way to a peak: `find_peak` from a rate, or a share of what a range test suggests."""

    given: float = GIVEN
    kept: bool = False  # whether minibatches that were kept for it judge, and not the training's
    suggested: float | None = None  # share of a range test's suggestion


SEARCHES = {
    "find-peak, training": Search(),
    "find-peak, evaluation": Search(kept=True),
    "find-peak from 5e-5, training": Search(FINE),
    "find-peak from 5e-5, evaluation": Search(FINE, kept=True),
    "range test": Search(suggested=1.0),
    "range test / 10": Search(suggested=0.1),
}


@dataclass(frozen=True)
class Found:
    """What a method came to before the training that follows."""

    rate: float  # the peak
    spent: float  # [forward equivalents]
    told: Row


def grid(lines: Lines, transfer: Transfer, steps: int, seed: int) -> Iterator[Row]:
    """A run from each rate."""
    for rate in transfer.rates:
        about: Row = {"task": transfer.name, "method": "grid", "steps": steps, "seed": seed, "rate": rate}
        yield lines.row(about, lambda rate=rate: run(transfer, rate, steps, steps, seed))  # type: ignore[misc]


def searched(
    lines: Lines, transfer: Transfer, steps: int, seed: int, methods: Iterable[str] = SEARCHES
) -> Iterator[Row]:
    """A run of each method that finds its peak itself, its search paid out of the steps."""
    for method in methods:
        about: Row = {"task": transfer.name, "method": method, "steps": steps, "seed": seed, "rate": None}
        yield lines.row(about, lambda method=method: _search_and_run(transfer, method, steps, seed))  # type: ignore[misc]


def _search_and_run(transfer: Transfer, method: str, steps: int, seed: int) -> Row:
    found = search(transfer, method, steps, seed)
    left = max(1, steps - math.ceil(found.spent / FORWARDS_PER_STEP))
    return {"peak": found.rate, "spent": found.spent, **found.told, **run(transfer, found.rate, steps, left, seed)}


def search(transfer: Transfer, method: str, steps: int, seed: int) -> Found:
    """The peak that a method finds."""
    model, asked = transfer.start(), SEARCHES[method]
    if asked.suggested is None:
        judges = transfer.evaluation if asked.kept else None
        optimizer = torch.optim.AdamW(model.parameters(), asked.given)
        peak = find_peak(
            model, optimizer, transfer.loss, transfer.train, steps, evaluation=judges, seed=seed, progress=False
        )
        told: Row = {"low": peak.low, "high": peak.high, "fallback": peak.fallback, "peak_json": peak.to_json()}
        return Found(peak.lr, peak.cost, told)
    tested = TrainingRun(
        model, "adamw", GIVEN, {}, transfer.loss, lambda: list(transfer.train), len(transfer.train), steps
    )
    rate, taken = suggested(tested)
    return Found(rate * asked.suggested, FORWARDS_PER_STEP * taken, {})


def run(transfer: Transfer, peak: float, budget: int, steps: int, seed: int) -> Row:
    """Train for ``steps`` of the ``budget``, with the schedule of that length: losses, and how far the weights went."""
    model = transfer.start()
    optimizer = torch.optim.AdamW(model.parameters(), GIVEN)
    schedule = PeakSchedule(optimizer, peak, steps)
    order = transfer.order(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        finite = _train(transfer, model, optimizer, schedule, order, steps)
    told: Row = {"trained": steps, "forward_equivalents": FORWARDS_PER_STEP * budget}
    if not finite:
        return {**told, "train": math.nan, "evaluation": math.nan, "held_out": math.nan, "change": math.nan}
    return {**told, **losses(transfer, model), "change": change(model, transfer.model)}


def losses(transfer: Transfer, model: nn.Module) -> Row:
    """On some minibatches of the training, on the judges, and on what is held out."""
    return {
        "train": mean_loss(transfer, model, transfer.train[:JUDGES]),
        "evaluation": mean_loss(transfer, model, transfer.evaluation[:JUDGES]),
        "held_out": mean_loss(transfer, model, transfer.held_out),
    }


def _train(
    transfer: Transfer, model: nn.Module, optimizer: torch.optim.Optimizer, schedule: PeakSchedule,
    order: Iterator[tuple[torch.Tensor, ...]], steps: int,
) -> bool:  # fmt: skip
    """Whether all losses were numbers."""
    for _ in range(steps):
        optimizer.zero_grad()
        loss = transfer.loss(model, next(order))
        if not math.isfinite(loss.item()):
            return False
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return True
