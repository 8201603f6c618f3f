"""What a training run is made of, put together from its settings: data, model, minibatches, stepper."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from autolr import AutoLR, PeakSearch
from autolr_lab.baselines import BASELINES
from autolr_lab.baselines.baseline import TrainingRun
from autolr_lab.baselines.schedules import SCHEDULES, make_schedule
from autolr_lab.training.loading import part_of
from autolr_lab.training.measures import MEASURES
from autolr_lab.training.optimizers import OPTIMIZERS
from autolr_lab.training.policies import POLICIES, make_policy
from autolr_lab.training.ranks import Ranks, device_of
from autolr_lab.training.runs import Settings
from autolr_lab.training.stepper import Stepper, Tuned
from autolr_lab.workloads import WORKLOADS, MissingDataError, Workload

PRECISIONS = ("float32", "bfloat16")
OTHERS_SEED = 1_000_003  # times the rank, beside the run's seed
ALONE = Ranks()


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
        ranks: this process among those that train the run.

    Raises:
        TypeError, ValueError: a setting is refused.

    Attributes:
        network: the model itself, to evaluate and to keep.
        model: what is trained, which means the gradients of several processes.
    """

    def __init__(self, settings: Settings, data: Data, decisions: Path, ranks: Ranks = ALONE) -> None:
        self.settings, self.data, self.ranks = settings, data, ranks
        _check_ranks(settings, ranks)
        self.workload: Workload = WORKLOADS[settings.workload]
        self.device = torch.device(device_of(resolve_device(settings.device).type))
        self.data_dir = _path(settings)
        self.notice = " ".join(filter(None, (self.workload.notice, getattr(data.train, "notice", ""))))
        for name, value, allowed in (
            ("precision", settings.precision, PRECISIONS),
            ("measure", settings.measure, ("", *MEASURES)),
            ("schedule", settings.schedule, (*POLICIES, *SCHEDULES, *BASELINES)),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(filter(None, allowed))}; got {value!r}.")
        torch.manual_seed(settings.seed)
        self.network = self.workload.network(self.data_dir).to(self.device)
        if self.workload.images:  # the memory layout that convolutions are fastest with
            self.network = self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model = ranks.wrapped(self.network)
        if not ranks.is_first:  # dropout and augmentation are each process's own
            torch.manual_seed(settings.seed + OTHERS_SEED * ranks.rank)
        self.order = torch.Generator().manual_seed(settings.seed)
        self.batches = self._loaded(self.order)
        self.evaluated = self.workload.test_batches(data.evaluated)
        self.total_steps = settings.epochs * len(self.batches)
        self.stepper = self._stepper(decisions)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        with self.autocast():
            return self.workload.loss(model, batch)

    def autocast(self) -> torch.autocast:
        """The precision that a forward pass is in, in training and in evaluation."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16")

    def fresh_batches(self) -> Any:
        """The training minibatches in an order of their own: to go through them moves nothing in the training."""
        return self._loaded(torch.Generator().manual_seed(self.settings.seed + 1))

    def _loaded(self, order: torch.Generator) -> DataLoader[Any]:
        """This process's minibatches of each epoch."""
        s, ranks = self.settings, self.ranks
        whole = self.workload.train_batches(self.data.train, s.batch_size // ranks.size, order)
        if ranks.size == 1 and not s.workers and not s.pinned:
            return whole
        return part_of(whole, rank=ranks.rank, ranks=ranks.size, workers=s.workers or None, pinned=s.pinned or None)

    def _stepper(self, decisions: Path) -> Stepper:
        s, options = self.settings, self.workload.options.get(self.settings.optimizer, {})
        if s.schedule in BASELINES:
            return BASELINES[s.schedule].make(TrainingRun(
                self.network, s.optimizer, s.lr, options, self.loss, self.fresh_batches, len(self.batches),
                self.total_steps, s.equal_budget, s.schedule_options,
            ))  # fmt: skip
        base = OPTIMIZERS[s.optimizer](self.model.parameters(), s.lr, **options)
        if s.schedule in SCHEDULES:
            return Stepper(base, make_schedule(s.schedule, base, self.total_steps, **s.schedule_options))
        policy = make_policy(s.schedule, s.policy)
        if isinstance(policy, PeakSearch) and policy.clip is None:
            policy = dataclasses.replace(policy, clip=self.workload.clip)  # short runs clip as the training does
        return Tuned(AutoLR(
            base, self.model, self.loss, self.batches, self.total_steps, policy=policy, seed=s.seed, trace=decisions
        ))  # fmt: skip


def _check_ranks(settings: Settings, ranks: Ranks) -> None:
    """Raise a ValueError where so many processes cannot train this."""
    if settings.ranks != ranks.size:
        raise ValueError(
            f"This run is trained by {settings.ranks} processes; {ranks.size} are here. Start as many, by "
            f"torchrun --nproc-per-node {settings.ranks} -m autolr_lab.cli.main train ..."
        )
    if ranks.size > 1 and settings.schedule in BASELINES:
        raise ValueError(f"{settings.schedule} trains in one process; got {ranks.size}.")
    if ranks.size > 1 and settings.measure:
        raise ValueError(f"What a run measures ({settings.measure}) is measured in one process; got {ranks.size}.")
    if settings.batch_size % ranks.size:
        raise ValueError(f"A minibatch of {settings.batch_size} cannot be shared evenly by {ranks.size} processes.")


def _path(settings: Settings) -> Path | None:
    return None if settings.data_dir is None else Path(settings.data_dir)
