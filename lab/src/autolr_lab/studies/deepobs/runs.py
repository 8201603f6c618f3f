"""The runs: ours, and a constant rate's, which shows that the problem is the published one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from autolr import AutoLR, PeakSearch, find_peak
from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr_lab.runner.results import Row
from autolr_lab.studies.deepobs.images import image_problem
from autolr_lab.studies.deepobs.problem import GIVEN, Problem
from autolr_lab.studies.deepobs.published import LOSSES, at_epoch, at_rate, best, spread
from autolr_lab.studies.deepobs.quadratic import quadratic_deep
from autolr_lab.studies.lines import Lines
from autolr_lab.training.paid_search import steps_after

PROBLEMS = ("quadratic_deep", "mnist_vae", "fmnist_vae", "fmnist_2c2d")
OPTIMIZERS = tuple(GIVEN)
KEY = ("method", "problem", "optimizer", "epochs", "seed", "rate")


def problem_of(name: str, data_dir: Path | None) -> Problem:
    """By its name.

    Raises:
        MissingDataError: its images are missing.
    """
    return quadratic_deep() if name == "quadratic_deep" else image_problem(name, data_dir)


def ours(problem: Problem, optimizer: str, epochs: int, seed: int) -> Row:
    """`find_peak` from a rate that nobody tuned, its schedule over the steps that are left; all within the epochs."""
    steps, model = epochs * problem.steps_per_epoch, problem.start(seed)
    base, batches = problem.optimizer(optimizer, model, GIVEN[optimizer]), problem.minibatches(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peak = find_peak(model, base, problem.loss, batches, steps, progress=False)
        left = steps_after(peak.cost, steps)
        tuned = AutoLR(base, model, problem.loss, batches, left, policy=PeakSearch(peak=peak.lr))
        train(problem, model, tuned, seed, left)
    return {
        "given": GIVEN[optimizer], "peak": peak.lr, "low": peak.low, "high": peak.high, "fallback": peak.fallback,
        "steps": steps, "trained": left, "search_share": peak.share, "peak_json": peak.to_json(),
        "forward_equivalents": FORWARDS_PER_STEP * left + peak.cost + tuned.cost.beside_steps,
        **problem.evaluate(model, seed),
    }  # fmt: skip


def constant(problem: Problem, optimizer: str, rate: float, epochs: int, seed: int, data_dir: Path | None) -> Row:
    """A constant rate, and what was published of it after as many epochs."""
    steps, model = epochs * problem.steps_per_epoch, problem.start(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        train(problem, model, problem.optimizer(optimizer, model, rate), seed, steps)
    told = {"steps": steps, "trained": steps, "forward_equivalents": FORWARDS_PER_STEP * steps}
    runs = at_rate(at_epoch(data_dir, problem.name, optimizer, epochs), rate)
    published = {f"published_{name}": spread(runs, name) for name in LOSSES}
    return {**told, **published, "published_seeds": len(runs), **problem.evaluate(model, seed)}


def train(problem: Problem, model: nn.Module, optimizer: Optimizer, seed: int, steps: int) -> None:
    """So many steps; a constant rate's run goes on whatever its loss is, as the published ones did."""
    model.train()
    for batch in islice(problem.minibatches(seed).endless(), steps):
        optimizer.zero_grad()
        problem.loss(model, batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def reference(problem: str, optimizer: str, epochs: int, data_dir: Path | None) -> Row:
    """The published best after so many epochs, all seeds of it, and the run at the rate that ours begins at."""
    runs = at_epoch(data_dir, problem, optimizer, epochs)
    chosen = best(runs)
    (plain,) = (run for run in at_rate(runs, GIVEN[optimizer]) if run.seed == chosen.seed)
    seeds = at_rate(runs, chosen.lr)
    return {
        "best_rate": chosen.lr, "best_seeds": len(seeds),
        **{f"best_{name}": spread(seeds, name)[0] for name in (*LOSSES, "test_accuracy")},
        **{f"given_{name}": getattr(plain, name) for name in LOSSES},
    }  # fmt: skip


def compared(
    lines: Lines, problem: Problem, optimizer: str, epochs: int | None, seeds: list[int], data_dir: Path | None
) -> Iterator[Row]:
    """Ours with every seed, beside the published best at that epoch."""
    length = problem.epochs if epochs is None else epochs
    beside = reference(problem.name, optimizer, length, data_dir)
    for seed in seeds:
        about = _about("ours", problem, optimizer, length, seed, None)
        yield lines.row(about, lambda seed=seed: {**beside, **ours(problem, optimizer, length, seed)})  # type: ignore[misc]


def checked(
    lines: Lines, problem: Problem, optimizer: str, epochs: int, seeds: list[int], data_dir: Path | None
) -> Iterator[Row]:
    """A constant rate with every seed: the one that was published with ten seeds."""
    runs = at_epoch(data_dir, problem.name, optimizer, epochs)
    rate = next(run.lr for run in runs if len(at_rate(runs, run.lr)) > 1)
    for seed in seeds:
        about = _about("constant", problem, optimizer, epochs, seed, rate)
        yield lines.row(about, lambda seed=seed: constant(problem, optimizer, rate, epochs, seed, data_dir))  # type: ignore[misc]


def _about(method: str, problem: Problem, optimizer: str, epochs: int, seed: int, rate: float | None) -> Row:
    values = (method, problem.name, optimizer, epochs, seed, rate)
    return dict(zip(KEY, values, strict=True))
