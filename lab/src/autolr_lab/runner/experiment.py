"""What an experiment is: the runs that it needs, and what it makes of them."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from autolr import ExploreExploit
from autolr_lab.runner.store import Find
from autolr_lab.training.runs import Settings
from autolr_lab.workloads.workload import Workload


@dataclass(frozen=True)
class RunSpec:
    """How an experiment is to be carried out."""

    scale: float = 1.0  # share of the full number of epochs
    seeds: int | None = None  # None: as many as the paper's, or the benchmark's
    small: bool = False  # the workload's small setting, for two CPU cores
    data_dir: Path | None = None
    device: str = "cpu"
    methods: tuple[str, ...] = ()  # labels of those that are wanted; all where it is empty
    optimizers: tuple[str, ...] = ()  # likewise
    precision: str = "float32"
    ranks: int = 1  # processes that train each run together
    workers: int = 0  # processes that load, of each; 0: the workload's
    workloads: tuple[str, ...] = ()  # of the benchmark's; all where it is empty
    budget: str = "small"  # of the benchmark

    def wants(self, label: str) -> bool:
        """Whether a method is wanted."""
        return not self.methods or label.lower() in {method.lower() for method in self.methods}

    def wants_optimizer(self, name: str) -> bool:
        """Whether an optimizer is."""
        return not self.optimizers or name in self.optimizers

    def range_of_seeds(self, usual: int) -> range:
        """The seeds to run, ``usual`` where nothing else is asked for."""
        return range(usual if self.seeds is None else self.seeds)

    def to_json(self) -> dict[str, Any]:
        """As a record has it: without the places."""
        kept = {k: v for k, v in dataclasses.asdict(self).items() if k not in {"data_dir", "device"}}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in kept.items()}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> RunSpec:
        """From a record."""
        has = {f.name for f in dataclasses.fields(cls)}
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in kept.items() if k in has}
        return cls(**fields)


@dataclass(frozen=True)
class Method:
    """One way to set the learning rate."""

    label: str
    schedule: str  # of a run's settings: a schedule, a baseline, or a policy of AutoLR's
    options: Mapping[str, Any] = field(default_factory=dict)  # of the schedule or baseline
    policy: Mapping[str, Any] = field(default_factory=dict)  # settings of AutoLR's policy
    table_7: bool = False  # whether AutoLR's policy has the workload's settings of Table 7 where `policy` has none
    times: float = 1.0  # the seed or peak rate, in that which it is used with
    length: float = 1.0  # of the run, in runs of the workload
    measure: str = ""  # of the trained network
    seeded: bool = True  # whether it is given a seed rate that its user has to choose

    def of(self, workload: Workload) -> dict[str, Any]:
        """The run settings that are the method's own."""
        policy = {**(_not_default(workload.policy) if self.table_7 else {}), **self.policy}
        return {"schedule": self.schedule, "schedule_options": dict(self.options), "policy": policy}


def _not_default(policy: ExploreExploit) -> dict[str, Any]:
    usual = ExploreExploit()
    values = {f.name: getattr(policy, f.name) for f in dataclasses.fields(policy)}
    return {name: value for name, value in values.items() if value != getattr(usual, name)}


@dataclass(frozen=True)
class Rendered:
    """What an experiment came to: Markdown by its parts, lines of a table, pictures."""

    parts: Mapping[str, str]
    csv: Sequence[Mapping[str, Any]] = ()  # one mapping a line, all with the same keys
    pictures: Mapping[str, Callable[[], bytes]] = field(default_factory=dict)  # file name -> what draws the PNG

    @property
    def markdown(self) -> str:
        """All parts, one after the other."""
        return "\n".join(self.parts.values())


@dataclass(frozen=True)
class Experiment(abc.ABC):
    """A table or a figure."""

    name: str
    title: str
    keeps_curves: ClassVar[bool] = True  # whether the results need step logs and decisions of its runs

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the methods that `RunSpec.methods` chooses from."""
        return ()

    @property
    def has_small(self) -> bool:
        """Whether it has a small setting that is another workload."""
        return False

    @property
    def optimizers_of(self) -> tuple[str, ...]:
        """Those that `RunSpec.optimizers` chooses from."""
        return ()

    def heading(self, spec: RunSpec) -> str:
        """The title, with what makes it something else than the paper's."""
        parts = [f"{100 * spec.scale:g} % of the epochs"] if spec.scale != 1 else []
        parts += ["small settings"] if spec.small and self.has_small else []
        return f"{self.title} ({', '.join(parts)})" if parts else self.title

    @abc.abstractmethod
    def runs(self, spec: RunSpec) -> list[Settings]:
        """Every run that it needs, whatever they come to."""

    def runs_so_far(self, spec: RunSpec, find: Find) -> list[Settings]:  # noqa: ARG002 - for those that search
        """Every run that it needs, as far as those that are there tell."""
        return self.runs(spec)

    def shown_runs(self, spec: RunSpec, find: Find) -> list[Settings]:
        """Every run that it shows: its own, unless it is about those of others."""
        return self.runs_so_far(spec, find)

    @abc.abstractmethod
    def render(self, spec: RunSpec, find: Find) -> Rendered:
        """Table and pictures of the runs that `find` finds; those that are missing are named."""
