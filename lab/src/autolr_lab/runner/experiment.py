"""What an experiment is: the runs it needs, and what it shows of them."""

from __future__ import annotations

import abc
import dataclasses
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from autolr.policies import ExploreExploit
from autolr_lab.training.runs import Settings
from autolr_lab.workloads import WORKLOADS
from autolr_lab.workloads.workload import Workload

Row = dict[str, Any]  # a whole run, as `store.row` has it
Find = Callable[[Settings], Row | None]
SURE = {"eps": ExploreExploit.adaptive().eps, "confidence": ExploreExploit.adaptive().confidence}  # what a policy within a budget needs


@dataclass(frozen=True)
class Ask:
    """How an experiment is to be made."""

    scale: float = 1.0  # share of the paper's epochs
    seeds: int | None = None  # None: as many as the paper's
    small: bool = False  # the workload's small setting, for two CPU cores
    data_dir: Path | None = None
    device: str = "cpu"
    methods: tuple[str, ...] = ()  # labels of those that are wanted; all where it is empty
    optimizers: tuple[str, ...] = ()  # likewise
    precision: str = "float32"
    compiled: bool = False
    workloads: tuple[str, ...] = ()  # of the benchmark's; all where it is empty
    budget: str = "small"  # of the benchmark

    def wants(self, label: str) -> bool:
        """Whether a method was asked for."""
        return not self.methods or label.lower() in {method.lower() for method in self.methods}

    def wants_optimizer(self, name: str) -> bool:
        """Whether an optimizer was."""
        return not self.optimizers or name in self.optimizers


@dataclass(frozen=True)
class Method:
    """One way to set the learning rate."""

    label: str
    schedule: str
    options: Mapping[str, Any] = field(default_factory=dict)  # of the schedule
    policy: Mapping[str, Any] = field(default_factory=dict)  # AutoLR: what differs from the workload's own settings
    overhead: float | None = None
    times: float = 1.0  # the seed or peak rate, in the workload's rate for the optimizer
    length: float = 1.0  # of the run, in runs of the workload
    validation_eps: tuple[float, ...] = ()
    measure: str = ""  # of the trained network

    def settings(self, workload: Workload, optimizer: str, seed: int, ask: Ask) -> Settings:
        """The run of this method."""
        policy: dict[str, Any] = {}
        if self.schedule == "autolr":
            policy = dataclasses.asdict(dataclasses.replace(workload.policy, **self.policy))
        return Settings(
            workload=workload.name,
            optimizer=optimizer,
            schedule=self.schedule,
            lr=workload.rate(optimizer) * self.times,
            epochs=max(1, round(ask.scale * self.length * workload.epochs)),
            batch_size=workload.batch_size,
            seed=seed,
            device=ask.device,
            data_dir=None if ask.data_dir is None else str(ask.data_dir),
            policy=policy,
            validation_eps=self.validation_eps,
            overhead=self.overhead,
            schedule_options=dict(self.options),
            precision=ask.precision,
            compiled=ask.compiled,
            channels_last=workload.images,
            measure=self.measure,
        )


@dataclass(frozen=True)
class Shown:
    """What an experiment came to."""

    markdown: str
    csv: Sequence[Mapping[str, Any]] = ()  # one mapping a line, all with the same keys
    pictures: Mapping[str, bytes] = field(default_factory=dict)  # file name -> PNG


@dataclass(frozen=True)
class Experiment(abc.ABC):
    """A table or a figure of the paper."""

    name: str
    title: str
    keeps_curves: ClassVar[bool] = True  # whether a record of it holds step logs and decisions

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the methods that `Ask.methods` chooses from."""
        return ()

    @property
    def has_small(self) -> bool:
        """Whether it has a small setting that is another workload."""
        return False

    @property
    def optimizers_of(self) -> tuple[str, ...]:
        """Those that `Ask.optimizers` chooses from."""
        return ()

    def heading(self, ask: Ask) -> str:
        """The title, with what makes it something else than the paper's."""
        parts = [f"{100 * ask.scale:g} % of the epochs"] if ask.scale != 1 else []
        parts += ["small settings"] if ask.small and self.has_small else []
        return f"{self.title} ({', '.join(parts)})" if parts else self.title

    @abc.abstractmethod
    def cells(self, ask: Ask) -> list[Settings]:
        """Every run that it needs, whatever they come to."""

    def known(self, ask: Ask, find: Find) -> list[Settings]:  # noqa: ARG002 - for those that search
        """Every run that it needs, as far as those that are there tell."""
        return self.cells(ask)

    @abc.abstractmethod
    def show(self, ask: Ask, find: Find) -> Shown:
        """Table and pictures of the runs that `find` finds; those that are missing are said to be."""


def pick(workload: str, small: str, ask: Ask) -> Workload:
    """The workload, or its small setting where that is asked for."""
    return WORKLOADS[small if ask.small else workload]


def seeds(ask: Ask, papers: int) -> range:
    """The seeds to run."""
    return range(papers if ask.seeds is None else ask.seeds)


def value(row: Row, key: str) -> float:
    """A figure of a run's result; NaN where it is none (a run that diverged)."""
    found = row["result"].get(key)
    return math.nan if found is None else float(found)


def spread(values: Sequence[float], form: str) -> str:
    """Mean ± standard deviation; of a single value only itself, of none a dash. Runs without the figure are named."""
    known = [v for v in values if not math.isnan(v)]
    if not known:
        return "-"
    told = form.format(statistics.fmean(known))
    if len(known) > 1:
        told += f" ± {form.format(statistics.stdev(known))}"
    return told if len(known) == len(values) else f"{told} ({len(values) - len(known)} of {len(values)} not finite)"


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "".join("| " + " | ".join(line) + " |\n" for line in (head, ["---"] * len(head), *lines))


def certificate(workload: Workload, rows: Sequence[Row], epochs: float) -> str:
    """What was trained and for how long, and `notices`."""
    ran = sorted({row["settings"]["epochs"] for row in rows})
    return f"- Workload `{workload.name}`, {_listed(ran)} epochs (in full: {epochs:g}).\n{notices(rows)}"


def notices(rows: Sequence[Row]) -> str:
    """What has to be said beside results of these runs, and where they were run."""
    said = sorted({notice for row in rows if (notice := (row.get("result") or {}).get("notice"))})
    told = [*said, *(f"{title}: {', '.join(names)}." for title, names in _origins(rows))]
    return "".join(f"- {line}\n" for line in told)


def _listed(values: Sequence[Any]) -> str:
    return " or ".join(map(str, values)) or "no"


def _origins(rows: Sequence[Row]) -> Iterator[tuple[str, list[str]]]:
    parts = [part for row in rows for part in (row["provenance"], *row.get("resumed", []))]
    for title, key in (("Commit", "commit"), ("Machine", "machine"), ("torch", "torch"), ("GPU", "cuda")):
        names = sorted({str(part[key]) for part in parts if part.get(key)})
        if names:
            yield title, names
    threads = sorted({str(part["threads"]) for part in parts if part.get("threads")})
    if threads:
        yield "Threads a run", threads
