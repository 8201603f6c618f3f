"""How far from the step, with how many samples, and over how many steps should a probe sample the loss?

Settles what the paper leaves open in part 2 ("a few values of epsilon"), on Fashion-MNIST with the paper's network. At
several points of training, for SGD, momentum and Adam, it measures

- losses along single steps on a fine grid of eps, fits the parabola from some of them and judges it by the others (the
  held-out samples of Figures 5-6), for ranges of 0.1 to 1 times the LR and 3 or 5 samples;
- eps_min of each of 20 consecutive steps, and of all of them pooled: the noise of one step's direction.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from autolr.measure.probe import Probe
from autolr.measure.snapshot import held_parameters
from autolr.measure.step_line import StepLine
from autolr.measure.superbatch import Superbatches
from autolr.numerics.quadratic import fit_quadratic
from autolr_lab.runner.markdown import markdown_table
from autolr_lab.runner.results import Row
from autolr_lab.studies.ground import ground
from autolr_lab.studies.study import Study

OPTIMIZERS = ("sgd", "momentum", "adam")
RANGES = (0.1, 0.25, 0.5, 1.0)
FITTED = {3: (-1.0, 0.0, 1.0), 5: (-1.0, -0.5, 0.0, 0.5, 1.0)}  # in units of the range
VALIDATION_EPS = (-0.75, -0.25, 0.25, 0.75)
GRID = tuple(sorted({0.0} | {r * x for r in RANGES for x in (*FITTED[5], *VALIDATION_EPS)}))
POINTS = (469, 1876, 5628)  # steps: half an epoch, two epochs, six
STEPS, COARSE, SHARE = 20, (-0.5, 0.0, 0.5), 20  # consecutive steps, eps and minibatches at each
DEEP_STEPS, DEEP = 2, 50


def measure(data_dir: Path | None) -> Iterator[Row]:
    """With each optimizer."""
    for name in OPTIMIZERS:
        yield from measure_one(name, data_dir)


def measure_one(name: str, data_dir: Path | None, seed: int = 0) -> Iterator[Row]:
    """Train with a fixed rate and look closely at each of POINTS."""
    run = ground("fashion-mnist", name, data_dir, seed=seed)
    probe = Probe(run.model, run.loss, Superbatches(run.batches, DEEP, seed))
    parameters = held_parameters(run.optimizer)
    for step in range(1, POINTS[-1] + STEPS + 1):
        line = StepLine(parameters)
        run.train(1)
        point = max((p for p in POINTS if p < step <= p + STEPS), default=None)
        if point is None:
            continue
        row: Row = {"optimizer": name, "lr": run.lr, "point": point, "step": step}
        row["coarse"] = probe.along(line, COARSE, step, SHARE).tolist()
        if step <= point + DEEP_STEPS:
            row["grid"] = probe.along(line, GRID, step, DEEP).tolist()
        yield row


def tables(rows: list[Row]) -> dict[str, str]:
    """By range and number of samples, and by steps."""
    return {"ranges": range_table(rows), "steps": steps_table(rows)}


def range_table(rows: list[Row]) -> str:
    """Held-out error of the fit and standard error of its minimum, by range and number of samples."""
    lines = []
    for name, r, n in itertools.product(OPTIMIZERS, RANGES, FITTED):
        judged = [judge(row, r, FITTED[n]) for row in rows if row["optimizer"] == name and "grid" in row]
        bottoms = [stderr for _, stderr in judged if stderr is not None]
        lines.append([
            name, f"{r:g}", str(n),
            f"{100 * statistics.median(error for error, _ in judged):.2f} %",
            f"{100 * max(error for error, _ in judged):.2f} %",
            f"{len(bottoms)} of {len(judged)}",
            f"{statistics.median(bottoms):.2f}" if bottoms else "-",
        ])  # fmt: skip
    head = [
        "optimizer", "range / LR", "samples", "held-out error, median", "worst", "has a minimum", "stderr / LR",
    ]  # fmt: skip
    return markdown_table(head, lines)


def judge(row: Row, r: float, fitted: tuple[float, ...]) -> tuple[float, float | None]:
    """Fit some of the grid within ``r``: held-out error relative to the loss's own variation, stderr of the minimum."""
    at = {e: GRID.index(e) for e in GRID}
    fit = fit_quadratic([r * x for x in fitted], [row["grid"][at[r * x]] for x in fitted])
    mean = {x: float(np.mean(row["grid"][at[r * x]])) for x in (*FITTED[5], *VALIDATION_EPS)}
    misfit = np.sqrt(np.mean([(fit(r * x) - mean[x]) ** 2 for x in VALIDATION_EPS]))
    return float(misfit / (max(mean.values()) - min(mean.values()))), fit.stderr


def steps_table(rows: list[Row]) -> str:
    """eps_min of single steps beside the one pooled over them."""
    lines = []
    for name, point in itertools.product(OPTIMIZERS, POINTS):
        steps = [row["coarse"] for row in rows if row["optimizer"] == name and row["point"] == point]
        single = [fit_quadratic(COARSE, step) for step in steps]
        bottoms = [fit.minimum for fit in single if fit.minimum is not None]
        errors = [fit.stderr for fit in single if fit.stderr is not None]
        pooled = fit_quadratic(COARSE, np.mean(steps, axis=2).T.tolist())
        quartiles = np.percentile(bottoms, [25, 75]) if bottoms else (np.nan, np.nan)
        lines.append([
            name, str(point), f"{len(bottoms)} of {len(single)}", f"{quartiles[0]:+.2f} to {quartiles[1]:+.2f}",
            f"{statistics.median(errors):.2f}" if errors else "-", f"{sum(b > 0 for b in bottoms)} of {len(bottoms)}",
            "none" if pooled.minimum is None else f"{pooled.minimum:+.2f} +- {pooled.stderr:.2f}",
        ])  # fmt: skip
    head = [
        "optimizer", "after step", "steps with a minimum", "eps_min / LR of one step, quartiles",
        "its stderr over minibatches", "above 0", f"pooled over {STEPS} steps",
    ]  # fmt: skip
    return markdown_table(head, lines)


FIT_QUALITY = Study(
    "fit-quality", "Where and how often to sample eps", measure, tables,
    {"workload": "fashion-mnist", "points": POINTS, "deep": DEEP, "share": SHARE},
)  # fmt: skip
