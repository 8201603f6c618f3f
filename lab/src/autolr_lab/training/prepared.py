"""What a training run is made of, put together from its settings: data, model, minibatches, stepper."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autolr import AutoLR
from autolr_lab.baselines import BASELINES
from autolr_lab.baselines.baseline import TrainingRun
from autolr_lab.baselines.schedules import SCHEDULES, make_schedule
from autolr_lab.training.measures import MEASURES
from autolr_lab.training.optimizers import OPTIMIZERS
from autolr_lab.training.policies import POLICIES, make_policy
from autolr_lab.training.runs import Settings
from autolr_lab.training.stepper import Stepper, Tuned
from autolr_lab.workloads import WORKLOADS, MissingDataError, Workload

PRECISIONS = ("float32", "bfloat16")


def resolve_device(name: str) -> torch.device:
    """``"auto"`` is the GPU where there is one.

    Raises:
        ValueError: another name, or CUDA was asked for and is not there.
    """
    if name not in {"cpu", "cuda", "auto"}:
        raise ValueError(f"--device must be cpu, cuda or auto; got {name!r}.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: this torch finds no CUDA device. Use --device cpu, or install a CUDA build.")
    return torch.device(name)


@dataclass(frozen=True)
class Data:
    """What a run trains on and what it is evaluated on."""

    train: Any
    evaluated: Any

    @classmethod
    def load(cls, settings: Settings) -> Data:
        """Read the workload's files.

        Raises:
            MissingDataError: a file is missing or is not what it should be.
        """
        try:
            return cls(*WORKLOADS[settings.workload].datasets(_path(settings)))
        except MissingDataError:
            raise
        except Exception as error:  # a damaged file leads numpy, Pillow, zipfile, ... to errors of a dozen kinds
            raise MissingDataError(
                f"The data of {settings.workload} cannot be read ({type(error).__name__}: {error}). Fetch it again."
            ) from error


class PreparedRun:
    """A run before its first step; what is random in it depends on the seed alone.

    Args:
        settings: of the run.
        data: to train and to evaluate on.
        decisions: the file for AutoLR's decision log.

    Raises:
        TypeError, ValueError: a setting is refused.
    """

    def __init__(self, settings: Settings, data: Data, decisions: Path) -> None:
        self.settings, self.data = settings, data
        self.workload: Workload = WORKLOADS[settings.workload]
        self.device, self.data_dir = resolve_device(settings.device), _path(settings)
        self.notice = " ".join(filter(None, (self.workload.notice, getattr(data.train, "notice", ""))))
        for name, value, allowed in (
            ("precision", settings.precision, PRECISIONS),
            ("measure", settings.measure, ("", *MEASURES)),
            ("schedule", settings.schedule, (*POLICIES, *SCHEDULES, *BASELINES)),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(filter(None, allowed))}; got {value!r}.")
        torch.manual_seed(settings.seed)
        self.model = self.workload.network(self.data_dir).to(self.device)
        if self.workload.images:  # the memory layout that convolutions are fastest with
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.order = torch.Generator().manual_seed(settings.seed)
        self.batches = self.workload.train_batches(data.train, settings.batch_size, self.order)
        self.evaluated = self.workload.test_batches(data.evaluated)
        self.total_steps = settings.epochs * len(self.batches)
        self.stepper = self._stepper(decisions)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
            return self.workload.loss(model, batch)

    def fresh_batches(self) -> Any:
        """The training minibatches in an order of their own: to go through them moves nothing in the training."""
        order = torch.Generator().manual_seed(self.settings.seed + 1)
        return self.workload.train_batches(self.data.train, self.settings.batch_size, order)

    def _stepper(self, decisions: Path) -> Stepper:
        s, options = self.settings, self.workload.options.get(self.settings.optimizer, {})
        if s.schedule in BASELINES:
            return BASELINES[s.schedule].make(TrainingRun(
                self.model, s.optimizer, s.lr, options, self.loss, self.fresh_batches, len(self.batches),
                self.total_steps, s.equal_budget, s.schedule_options,
            ))  # fmt: skip
        base = OPTIMIZERS[s.optimizer](self.model.parameters(), s.lr, **options)
        if s.schedule in SCHEDULES:
            return Stepper(base, make_schedule(s.schedule, base, self.total_steps, **s.schedule_options))
        asked = dict(s.policy)
        if s.schedule == "find-peak" and self.workload.clip is not None:
            asked.setdefault("clip", self.workload.clip)  # short runs clip as the training does
        policy = make_policy(s.schedule, asked)
        return Tuned(AutoLR(
            base, self.model, self.loss, self.batches, self.total_steps, policy=policy, seed=s.seed, trace=decisions
        ))  # fmt: skip


def _path(settings: Settings) -> Path | None:
    return None if settings.data_dir is None else Path(settings.data_dir)
