"""One training run of a workload, from settings to a run folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from autolr.lending import LendingLoader
from autolr.optimizers import OPTIMIZERS
from autolr.policies import Hold, Paper, Policy
from autolr.provenance import provenance
from autolr.runs import RunFolder, Settings
from autolr.schedules import SCHEDULES
from autolr.trace import tally
from autolr.tuner import AutoLR
from autolr.workloads import WORKLOADS
from autolr.workloads.workload import Workload

STEPS_PER_LINE = 10  # steps.jsonl holds the mean loss of so many steps a line
TUNED = {"autolr": Paper, "hold": Hold}  # the schedules that are AutoLR's policies


@dataclass(frozen=True)
class Progress:
    """Where a run is, for a progress bar."""

    step: int
    total_steps: int
    epoch: int
    lr: float
    loss: float
    phase: str


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


def train(settings: Settings, out: Path, report: Callable[[Progress], None] | None = None) -> dict[str, Any]:
    """Train as ``settings`` say, writing to ``out`` as it goes.

    Args:
        settings: of the run.
        out: the run folder, made here.
        report: called after each step.

    Returns:
        The result, as in ``result.json``.

    Raises:
        MissingDataError: the workload's data is not there.
        RunError: ``out`` cannot be written or holds a run.
    """
    workload = WORKLOADS[settings.workload]
    device = resolve_device(settings.device)
    data_dir = Path(settings.data_dir) if settings.data_dir else None
    train_data, evaluated_data = workload.datasets(data_dir)
    folder = RunFolder(out, settings, provenance())

    torch.manual_seed(settings.seed)
    model = workload.network(data_dir).to(device)
    order = torch.Generator().manual_seed(settings.seed)
    batches: Any = workload.train_batches(train_data, settings.batch_size, order)
    if settings.lend:
        batches = LendingLoader(batches)
    evaluated = workload.test_batches(evaluated_data)
    total_steps = settings.epochs * len(batches)
    try:
        options = workload.options.get(settings.optimizer, {})
        base = OPTIMIZERS[settings.optimizer](model.parameters(), settings.lr, **options)
        optimizer, scheduler = _schedule(settings, base, model, workload, batches, total_steps, folder)
    except (TypeError, ValueError):  # a setting was refused: the corrected command may have this folder
        folder.discard()
        raise

    started = time.perf_counter()
    training_seconds = 0.0  # without evaluation, with AutoLR
    row: dict[str, Any] = {}
    for epoch in range(1, settings.epochs + 1):
        epoch_started = time.perf_counter()
        watch = _Watch(folder, report, epoch, total_steps, settings.schedule)
        train_loss = _train_epoch(workload, model, optimizer, scheduler, batches, watch)
        training_seconds += time.perf_counter() - epoch_started
        seen = workload.evaluate(model, evaluated, device)
        row = {"epoch": epoch, "step": epoch * len(batches), "lr": _rate(optimizer), "train_loss": train_loss}
        row |= {f"{workload.evaluated}_{name}": value for name, value in seen.items()}
        folder.append("epochs", row)

    result: dict[str, Any] = {k: v for k, v in row.items() if k not in {"epoch", "step", "lr"}} | {"steps": total_steps}
    result |= {"seconds": time.perf_counter() - started, "training_seconds": training_seconds, "cost": None}
    if isinstance(optimizer, AutoLR):
        result |= _account(optimizer, total_steps, training_seconds)
    folder.finish(result)
    return result


@dataclass
class _Watch:
    """Writes the step log of one epoch, and tells a progress bar."""

    folder: RunFolder
    report: Callable[[Progress], None] | None
    epoch: int
    total_steps: int
    schedule: str
    recent: list[float] = field(default_factory=list)

    def step(self, number: int, lr: float, loss: float, phase: str | None) -> None:
        """A step of the epoch, ``number`` counted over the run."""
        self.recent.append(loss)
        if number % STEPS_PER_LINE == 0:
            mean = sum(self.recent) / len(self.recent)
            self.folder.append("steps", {"step": number, "epoch": self.epoch, "lr": lr, "loss": mean})
            self.recent = []
        if self.report is not None:
            self.report(Progress(number, self.total_steps, self.epoch, lr, loss, phase or self.schedule))


def _train_epoch(
    workload: Workload,
    model: torch.nn.Module,
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    batches: DataLoader[Any],
    watch: _Watch,
) -> float:
    """The mean loss over the epoch's examples, each as it was when the model trained on it."""
    total, examples = 0.0, 0
    for step, batch in enumerate(batches, start=(watch.epoch - 1) * len(batches) + 1):
        optimizer.zero_grad()
        loss = workload.loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        if workload.clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), workload.clip)
        lr = _rate(optimizer)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        value = loss.item()
        total += value * workload.weight(batch)
        examples += workload.weight(batch)
        watch.step(step, lr, value, optimizer.phase if isinstance(optimizer, AutoLR) else None)
    return total / examples


def _schedule(
    settings: Settings,
    base: Optimizer,
    model: torch.nn.Module,
    workload: Workload,
    batches: Any,
    total_steps: int,
    folder: RunFolder,
) -> tuple[Optimizer, LRScheduler | None]:
    if settings.schedule not in TUNED:
        return base, SCHEDULES[settings.schedule](base, total_steps)
    policy: Policy = TUNED[settings.schedule](**settings.policy)
    return AutoLR(
        base,
        model,
        workload.loss,
        batches,
        total_steps,
        policy=policy,
        window=settings.window,
        superbatch=settings.superbatch,
        seed=settings.seed,
        trace=folder.decisions,
        overhead=settings.overhead,
        held_out=settings.held_out,
    ), None


def _rate(optimizer: Optimizer) -> float:
    return max(float(group["lr"]) for group in optimizer.param_groups)


def _account(optimizer: AutoLR, steps: int, training_seconds: float) -> dict[str, Any]:
    """What AutoLR did and what it cost, beside the training's own cost."""
    cost = optimizer.cost
    return {
        "window": optimizer.window,
        "superbatch": optimizer.superbatch,
        **tally(optimizer.history),
        "cost": cost.to_dict(),
        "cost_forward_equivalents": cost.forward_equivalents,
        "cost_share": cost.share(steps),
        "cost_seconds": cost.seconds,
        "own_seconds": training_seconds - cost.seconds,
    }
