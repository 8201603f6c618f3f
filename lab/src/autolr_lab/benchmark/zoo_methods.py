"""Methods that need no sweep, on the zoo's pairs: one run each, paid by the same number of steps, judged as the grid.

What a method spends beside training comes out of its steps, at 3 forward equivalents each. ``python -m
autolr_lab.benchmark.zoo_methods --folder DIR`` appends one row a run to DIR/methods.jsonl and skips what is there.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from autolr import AutoLR
from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr.numerics.shape import WARM_UP
from autolr_lab.baselines import BASELINES
from autolr_lab.baselines.baseline import ADAM, SGD, TrainingRun
from autolr_lab.baselines.gen import steps_left
from autolr_lab.baselines.lr_finder import suggested
from autolr_lab.baselines.schedules import make_schedule
from autolr_lab.training.paid_search import PaidPeakSearch, steps_after
from autolr_lab.training.stepper import ReplayBatch, Stepper
from autolr_lab.zoo.__main__ import jobs
from autolr_lab.zoo.optimizers import OPTIMIZERS
from autolr_lab.zoo.registry import Pair, side
from autolr_lab.zoo.training import Start, held_out_loss, judged, start

EVERYWHERE = ("find-peak", "fixed", "cosine", "linear", "knee")  # the others stand in for SGD and Adam only


@dataclass(frozen=True)
class MethodRow:
    """One run of a method."""

    method: str
    task: str
    optimizer: str
    seed: int
    steps: int  # that the method may spend, its search among them
    eval_before: float  # held-out loss before the first step
    eval_loss: float  # and after the run; NaN where it broke off
    train_before: float  # training loss on the judging minibatches, likewise
    train_loss: float
    peak: float  # [lr] that it trained with, where it has one
    spent: float  # [forward equivalents] beside its steps
    seconds: float
    notes: str

    @property
    def key(self) -> tuple[str, str, str, int, int]:
        """What tells it from all others."""
        return (self.method, self.task, self.optimizer, self.seed, self.steps)


@dataclass(frozen=True)
class Job:
    """A pair, a seed and a budget, begun anew for one method."""

    pair: Pair
    begun: Start
    steps: int
    model: nn.Module

    def optimizer(self, lr: float) -> Optimizer:
        """The pair's, over the model."""
        made = OPTIMIZERS[self.pair.optimizer](self.model.parameters())
        made.param_groups[0]["lr"] = lr
        return made

    def run(self) -> TrainingRun:
        """As the baselines want it."""
        task = self.pair.task
        return TrainingRun(
            model=self.model, optimizer=self.pair.optimizer, lr=self.pair.customary, options={}, loss=task.loss,
            batches=lambda: task.minibatches(self.begun.seed + 1000),
            steps_per_epoch=len(task.minibatches(self.begun.seed)), total_steps=self.steps, budgeted=True,
        )  # fmt: skip


Method = Callable[[Job], tuple[Stepper, int, float]]  # what takes the steps, how many of them, and the peak


def scheduled(name: str, **options: float) -> Method:
    """One of the usual schedules at the customary rate."""

    def make(job: Job) -> tuple[Stepper, int, float]:
        optimizer = job.optimizer(job.pair.customary)
        return Stepper(optimizer, make_schedule(name, optimizer, job.steps, **options)), job.steps, job.pair.customary

    return make


def searched(policy: PaidPeakSearch) -> Method:
    """AutoLR from the customary rate: its search, checks and trials come out of the steps."""

    def make(job: Job) -> tuple[Stepper, int, float]:
        optimizer, task = job.optimizer(job.pair.customary), job.pair.task
        batches = task.minibatches(job.begun.seed + 1000)
        return Stepper(AutoLR(optimizer, job.model, task.loss, batches, job.steps, policy=policy)), job.steps, math.nan

    return make


def ranged(share: float) -> Method:
    """A range test's suggestion, or a share of it, with a cosine to zero over the steps that are left."""

    def make(job: Job) -> tuple[Stepper, int, float]:
        rate, steps = suggested(job.run())
        left = max(1, job.steps - steps)
        optimizer = job.optimizer(rate * share)
        made = Stepper(optimizer, make_schedule("cosine", optimizer, left))
        made.spent = FORWARDS_PER_STEP * steps
        return made, left, rate * share

    return make


def other(name: str) -> Method:
    """One of the baselines, used as its authors document it."""

    def make(job: Job) -> tuple[Stepper, int, float]:
        return BASELINES[name].make(job.run()), job.steps, math.nan

    return make


def along_the_step(job: Job) -> tuple[Stepper, int, float]:
    """GeN from the customary rate; its parabolas come out of the steps."""
    return BASELINES["gen"].make(job.run()), steps_left(job.steps), math.nan


METHODS: Mapping[str, Method] = {
    "find-peak": searched(PaidPeakSearch()),
    "fixed": scheduled("fixed"),
    "cosine": scheduled("cosine"),
    "linear": scheduled("linear"),
    "knee": scheduled("knee", warmup=WARM_UP),  # AutoLR's own schedule, without its search
    "range-test": ranged(1.0),
    "range-test-tenth": ranged(0.1),
    "gen": along_the_step,
    **{name: other(name) for name in ("schedule-free", "prodigy", "d-adaptation", "momo", "greedy")},
}


def run_method(name: str, pair: Pair, seed: int, steps: int, method: Method | None = None) -> MethodRow:
    """Train once, by the method of that name or by one that is none of `METHODS`; a loss that is no number ends it."""
    begun, task, began = start(pair.task, seed), pair.task, time.perf_counter()
    job = Job(pair, begun, steps, copy.deepcopy(begun.model).train())
    peak, spent, losses, notes = math.nan, 0.0, (math.nan, math.nan), ""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.manual_seed(seed)
        try:
            stepper, left, peak = (method or METHODS[name])(job)
            losses = _trained(job, stepper, left)
            if isinstance(stepper.optimizer, AutoLR):
                peak = stepper.optimizer.history[0].lr_after
            spent = stepper.spent if not isinstance(stepper.optimizer, AutoLR) else (
                stepper.spent + stepper.optimizer.cost.beside_steps
            )  # fmt: skip
        except (ValueError, RuntimeError) as error:
            notes = f"{type(error).__name__}: {error}"[:200]
        notes = "; ".join([notes, *(str(w.message)[:200] for w in caught if "AutoLR" in str(w.message))]).strip("; ")
    return MethodRow(
        name, task.name, pair.optimizer, seed, steps, begun.eval_loss, losses[0],
        statistics.fmean(begun.judge_losses), losses[1], peak, spent, round(time.perf_counter() - began, 3), notes,
    )  # fmt: skip


def is_paid_out(stepper: Stepper, steps: int) -> bool:
    """Whether AutoLR has come to the end of what it may spend, which it knows as it goes."""
    tuned = stepper.optimizer
    return (
        isinstance(tuned, AutoLR)
        and steps_after(tuned.cost.beside_steps, steps, tuned.steps_taken) <= tuned.steps_taken
    )


def _trained(job: Job, stepper: Stepper, steps: int) -> tuple[float, float]:
    """The held-out loss and the training loss after so many steps."""
    task = job.pair.task
    for batch in islice(job.begun.minibatches(), steps):
        if is_paid_out(stepper, steps):
            break
        again = ReplayBatch(job.model, task.loss, batch) if stepper.replays else None
        stepper.optimizer.zero_grad()
        loss = task.loss(job.model, batch)
        if not math.isfinite(loss.item()) and not isinstance(stepper.optimizer, AutoLR):
            return math.nan, math.nan
        loss.backward()  # type: ignore[no-untyped-call]
        stepper.step(loss, again)
    with stepper.evaluation(job.model) as model:
        return held_out_loss(task, model), statistics.fmean(judged(task, model, job.begun.judges))


def _todo(args: argparse.Namespace, done: set[tuple[str, str, str, int, int]]) -> Iterator[tuple[str, Pair, int, int]]:
    for _, pair in jobs([args.seed], args.tasks, []):
        if side(pair.task) != args.side:
            continue
        for steps in pair.task.horizons:
            for name in args.methods:
                fits = name in EVERYWHERE or pair.optimizer in (*SGD, *ADAM)
                if fits and (name, pair.task.name, pair.optimizer, args.seed, steps) not in done:
                    yield name, pair, args.seed, steps


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--side", choices=["learn", "report"], default="report")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--tasks", nargs="+", default=[])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    file = args.folder / "methods.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    done = {MethodRow(**json.loads(line)).key for line in lines}
    for name, pair, seed, steps in _todo(args, done):
        row = run_method(name, pair, seed, steps)
        with file.open("a") as out:
            out.write(json.dumps(asdict(row)) + "\n")
        print(
            f"{row.method:18} {pair.name:32} {steps:5} {row.eval_loss:10.4g} peak {row.peak:.3g} {row.notes[:80]}",
            flush=True,
        )


if __name__ == "__main__":
    main()
