"""Tasks: what every method is given to train, and by which figure it is judged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autolr_lab.runner.experiment import Method, RunSpec
from autolr_lab.runner.results import Row
from autolr_lab.training.runs import Settings
from autolr_lab.workloads import WORKLOADS

WARM_UP = 0.05  # share of the run, of every schedule that is swept and of the same schedules untuned
LONG_WARM_UP = 0.1  # a Transformer for translation needs it: Knee to 0.002 comes to 21.8 BLEU (2026-11-25_table6)
POINTS = 4  # evaluations in a run at least: steps to a quality are known to a quarter of it
SEEDS = 3
PEAKS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # times the seed rate: half-decades over four decades


@dataclass(frozen=True)
class Metric:
    """A figure of a run, of which more is better or less is."""

    key: str
    title: str
    unit: str
    margin: float  # a difference that nobody would mind: within it two methods are as good as each other
    higher: bool = True
    times: float = 1.0  # the figure as a table has it
    form: str = "{:.2f}"

    def of(self, found: Mapping[str, Any]) -> float:
        """The figure as a table has it; NaN where there is none: a run that diverged."""
        number = found.get(self.key)
        return math.nan if number is None else self.times * float(number)

    def loss(self, found: Mapping[str, Any]) -> float:
        """The less, the better; infinite for a run that diverged."""
        number = -self.of(found) if self.higher else self.of(found)
        return math.inf if math.isnan(number) else number

    def rounded(self, number: float) -> float:
        """To the digits that a table has: what lies below them ranks nobody."""
        return float(self.form.format(number)) if math.isfinite(number) else number


ACCURACY = Metric("test_accuracy", "test accuracy, %", "points", 0.5, times=100.0)
TEST_LOSS = Metric("test_loss", "test loss", "nats", 0.02, higher=False, form="{:.4f}")
BLEU = Metric("test_bleu", "test BLEU", "BLEU", 0.5)
F1 = Metric("test_f1", "test F1", "points", 0.5)
VALID_LOSS = Metric("valid_loss", "validation loss", "nats", 0.02, higher=False, form="{:.4f}")
# Of `training.measures`, after the run.
TRAIN_LOSS = Metric("final_train_loss", "training loss", "nats", 0.02, higher=False, form="{:.4g}")


@dataclass(frozen=True)
class Task:
    """A workload with an optimizer, for so many epochs: their forward equivalents are everybody's budget."""

    workload: str
    optimizer: str
    epochs: int
    metric: Metric = ACCURACY
    on_the_way: Metric | None = None  # of an evaluation; None: the metric itself is evaluated
    batch_size: int | None = None  # None: the workload's own
    warm_up: float = WARM_UP
    peaks: tuple[float, ...] = PEAKS  # of the sweep, times the seed rate

    @property
    def name(self) -> str:
        """As tables have it."""
        return f"{self.workload}, {self.optimizer}"

    @property
    def progress(self) -> Metric:
        """What an evaluation on the way is judged by."""
        return self.on_the_way or self.metric

    @property
    def seed_rate(self) -> float:
        """The workload's for the optimizer: what somebody begins with who does not tune."""
        return WORKLOADS[self.workload].rate(self.optimizer)

    def settings(self, spec: RunSpec, method: Method, seed: int, rate: float) -> Settings:
        """A run of a method at a rate."""
        workload = WORKLOADS[self.workload]
        epochs = max(1, round(spec.scale * self.epochs))
        return Settings(
            workload=self.workload,
            optimizer=self.optimizer,
            lr=float(f"{rate:.6g}"),
            epochs=epochs,
            batch_size=self.batch_size or workload.batch_size,
            seed=seed,
            device=spec.device,
            data_dir=None if spec.data_dir is None else str(spec.data_dir),
            precision=spec.precision,
            measure="train_loss",
            evaluations=math.ceil(POINTS / epochs),
            equal_budget=True,
            **method.of(workload),
        )


# Minutes a run on one core.
SMALL = (
    Task("digits", "momentum", 40),
    Task("digits", "adam", 40),
    Task("fashion-mnist", "momentum", 5, batch_size=128),
    Task("fashion-mnist", "adam", 5, batch_size=128),
    Task("cifar10-small", "momentum", 5),
    Task("tiny-imagenet-10", "momentum", 10),
    Task("shakespeare", "adamw", 1, TEST_LOSS),
    # The seed rate is the paper's, a tenth of a usual peak; at thirty times it, nothing is learned. Minutes a run.
    Task("multi30k", "adamw", 3, BLEU, VALID_LOSS, warm_up=LONG_WARM_UP, peaks=PEAKS[5:8]),
    Task("squad-small", "adamw", 1, F1),
)
# Minutes a run on a GPU.
FULL = (
    Task("cifar10", "momentum", 50),
    Task("shakespeare-10m", "adamw", 5, TEST_LOSS),
)
BUDGETS = {"small": SMALL, "full": FULL}


def score(task: Task, row: Row) -> float:
    """A run's final metric, the less the better; infinite where it diverged."""
    return task.metric.loss(row["result"])
