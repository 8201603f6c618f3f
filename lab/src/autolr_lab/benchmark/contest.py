"""Contests: what every method is given to train, and which methods there are."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autolr_lab.runner.experiment import Ask, Row
from autolr_lab.baselines import PEERS
from autolr.policies import Auto, ExploreExploit
from autolr_lab.training.runs import Settings
from autolr_lab.workloads import WORKLOADS

WARM_UP = 0.05  # share of the run, of every schedule that is swept and of the same schedules untuned
POINTS = 4  # evaluations in a run at least: steps to a quality are known to a quarter of it
SPREAD = (0.01, 1.0, 100.0)  # seed rates, times a method's own: four decades
SEEDS = 3


@dataclass(frozen=True)
class Metric:
    """A figure of a run, of which more is better or less is."""

    key: str
    title: str
    unit: str
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


ACCURACY = Metric("test_accuracy", "test accuracy, %", "points", times=100.0)
TEST_LOSS = Metric("test_loss", "test loss", "nats", higher=False, form="{:.4f}")
BLEU = Metric("test_bleu", "test BLEU", "BLEU")
F1 = Metric("test_f1", "test F1", "points")
VALID_LOSS = Metric("valid_loss", "validation loss", "nats", higher=False, form="{:.4f}")
TRAIN_LOSS = Metric("final_train_loss", "training loss", "nats", higher=False, form="{:.4g}")  # of `measures`


@dataclass(frozen=True)
class Contest:
    """A workload with an optimizer, for so many epochs: their forward equivalents are everybody's budget."""

    workload: str
    optimizer: str
    epochs: int
    metric: Metric = ACCURACY
    on_the_way: Metric | None = None  # of an evaluation; None: the metric itself is evaluated
    batch_size: int | None = None  # the workload's own

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

    def settings(self, ask: Ask, schedule: str, lr: float, seed: int, **more: Any) -> Settings:
        """A run of it."""
        workload = WORKLOADS[self.workload]
        epochs = max(1, round(ask.scale * self.epochs))
        return Settings(
            workload=self.workload,
            optimizer=self.optimizer,
            schedule=schedule,
            lr=float(f"{lr:.6g}"),
            epochs=epochs,
            batch_size=self.batch_size or workload.batch_size,
            seed=seed,
            device=ask.device,
            data_dir=None if ask.data_dir is None else str(ask.data_dir),
            precision=ask.precision,
            compiled=ask.compiled,
            channels_last=workload.images,
            measure="train_loss",
            evaluations=math.ceil(POINTS / epochs),
            equal_budget=True,
            **more,
        )


@dataclass(frozen=True)
class Entry:
    """A method as somebody uses it who does not tune."""

    label: str
    schedule: str  # or a peer's name, or autolr
    options: Mapping[str, Any] = field(default_factory=dict)
    policy: Auto | ExploreExploit | None = None  # None with autolr: the workload's, from Table 7 where the paper has it there
    overhead: float | None = None
    seeded: bool = True  # whether it is given a seed rate

    def fits(self, contest: Contest) -> bool:
        """Whether it can train this."""
        return self.schedule not in PEERS or contest.optimizer in PEERS[self.schedule].optimizers

    def settings(self, contest: Contest, ask: Ask, seed: int, times: float = 1.0) -> Settings:
        """A run of it, at ``times`` the rate that it is used with."""
        peer, rate = PEERS.get(self.schedule), contest.seed_rate
        if peer is not None:
            rate = peer.rate(contest.optimizer, rate)
        more: dict[str, Any] = {"schedule_options": dict(self.options), "overhead": self.overhead}
        if self.policy is not None or self.schedule == "autolr":
            more["policy"] = dataclasses.asdict(self.policy or WORKLOADS[contest.workload].policy)
        return contest.settings(ask, self.schedule, rate * times, seed, **more)


_WARM = {"warmup": WARM_UP}
OURS = (
    Entry("Auto", "auto", policy=Auto(within=True)),
    Entry("AutoLR", "autolr", policy=ExploreExploit.adaptive(), overhead=0.02),  # what a user gets who says nothing
    Entry("AutoLR, the paper's looks", "autolr"),
)
UNTUNED = (
    Entry("fixed", "fixed"),
    Entry("staircase", "staircase"),
    Entry("cosine", "cosine", _WARM),
    Entry("Knee", "knee", _WARM),
    Entry("one-cycle", "one-cycle"),
)
THEIRS = tuple(Entry(peer.title, name, seeded=peer.seeded) for name, peer in PEERS.items())
ENTRIES = (*OURS, *UNTUNED, *THEIRS)

# Minutes a run on one core.
SMALL = (
    Contest("digits", "momentum", 40),
    Contest("digits", "adam", 40),
    Contest("fashion-mnist", "momentum", 5, batch_size=128),
    Contest("fashion-mnist", "adam", 5, batch_size=128),
    Contest("cifar10-small", "momentum", 5),
    Contest("tiny-imagenet-10", "momentum", 10),
    Contest("shakespeare", "adamw", 1, TEST_LOSS),
    Contest("multi30k", "adamw", 3, BLEU, VALID_LOSS),
    Contest("squad-small", "adamw", 1, F1),
)
# Minutes a run on a GPU.
FULL = (
    Contest("cifar10", "momentum", 50),
    Contest("shakespeare-10m", "adamw", 5, TEST_LOSS),
)
BUDGETS = {"small": SMALL, "full": FULL}


def score(contest: Contest, row: Row) -> float:
    """A run's final metric, the less the better; infinite where it diverged."""
    return contest.metric.loss(row["result"])
