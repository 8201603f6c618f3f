"""One training run of a workload, from settings to a run folder. A run that was cut off goes on, to the bit."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from autolr.lending import LendingLoader
from autolr.measures import MEASURES
from autolr.optimizers import OPTIMIZERS
from autolr.policies import Hold, Paper, Policy
from autolr.provenance import provenance
from autolr.randomness import random_state, set_random_state
from autolr.runs import RunFolder, Settings, writing
from autolr.schedules import Schedule, make_schedule
from autolr.trace import tally
from autolr.tuner import AutoLR
from autolr.workloads import WORKLOADS

STEPS_PER_LINE = 10  # steps.jsonl holds the mean loss of so many steps a line
CHECKPOINT_SECONDS = 60.0  # from one checkpoint to the next
TUNED = {"autolr": Paper, "hold": Hold}  # the schedules that are AutoLR's policies
PRECISIONS = ("float32", "bfloat16")


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


def train(
    settings: Settings,
    out: Path,
    report: Callable[[Progress], None] | None = None,
    *,
    resume: bool = False,
    every: float = CHECKPOINT_SECONDS,
) -> dict[str, Any]:
    """Train as ``settings`` say, writing to ``out`` as it goes.

    Args:
        settings: of the run.
        out: the run folder, made here.
        report: called after each step.
        resume: go on where a run in ``out`` was cut off: from its last checkpoint, or from the beginning. All that it
            comes to is, to the bit, what the run would have come to, on a CPU of the kind and with as many threads.
        every: seconds from one checkpoint to the next.

    Returns:
        The result, as in ``result.json``.

    Raises:
        MissingDataError: the workload's data is not there.
        RunError: ``out`` cannot be written, holds a run, or one that this does not continue or another process writes.
        TypeError, ValueError: a setting was refused.
    """
    with writing(out):
        return _Training(settings, out, resume=resume).run(report, every)


class _Clock:
    """Seconds of a run, those of training alone, and when the next checkpoint is due."""

    def __init__(self, before: float, trained: float, every: float) -> None:
        self._every, self._began = every, time.perf_counter()
        self._before, self._trained = before, trained
        self._training_since: float | None = self._began
        self.saved()

    @property
    def seconds(self) -> float:
        """Of all of it."""
        return self._before + time.perf_counter() - self._began

    @property
    def training_seconds(self) -> float:
        """Without evaluation."""
        since = self._training_since
        return self._trained + (0.0 if since is None else time.perf_counter() - since)

    def pause(self) -> None:
        """Evaluation begins."""
        self._trained, self._training_since = self.training_seconds, None

    def go_on(self) -> None:
        """Training goes on."""
        self._training_since = time.perf_counter()

    def saved(self) -> None:
        """A checkpoint was written."""
        self._checkpoint = time.perf_counter()

    def due(self) -> bool:
        """Whether the next one is."""
        return time.perf_counter() - self._checkpoint >= self._every


class _Training:
    """What a run is made of, and how far it has come."""

    def __init__(self, settings: Settings, out: Path, *, resume: bool) -> None:
        self.settings, self.workload = settings, WORKLOADS[settings.workload]
        self.device = resolve_device(settings.device)
        self.data_dir = Path(settings.data_dir) if settings.data_dir else None
        if settings.measure and settings.measure not in MEASURES:
            raise ValueError(f"measure must be one of {', '.join(MEASURES)}; got {settings.measure!r}.")
        train_data, evaluated = self.workload.datasets(self.data_dir)
        notices = (self.workload.notice, getattr(train_data, "notice", ""))
        self.notice = " ".join(filter(None, notices))
        self.folder = RunFolder(out, settings, provenance(), resume=resume)
        try:
            torch.manual_seed(settings.seed)
            self.model = self.workload.network(self.data_dir).to(self.device)
            if settings.channels_last:
                self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.called: Any = torch.compile(self.model) if settings.compiled else self.model
            self.order = torch.Generator().manual_seed(settings.seed)
            self.batches: Any = self.workload.train_batches(train_data, settings.batch_size, self.order)
            if settings.lend:
                self.batches = LendingLoader(self.batches)
            self.evaluated = self.workload.test_batches(evaluated)
            self.total_steps = settings.epochs * len(self.batches)
            options = self.workload.options.get(settings.optimizer, {})
            base = OPTIMIZERS[settings.optimizer](self.model.parameters(), settings.lr, **options)
            self.optimizer, self.schedule = self._rate(base)
        except (TypeError, ValueError):  # a setting was refused: the corrected command may have this folder
            if not resume:
                self.folder.discard()
            raise
        self.done = 0  # optimizer steps
        self.total, self.weight = 0.0, 0  # of the losses in this epoch so far, and what they weigh
        self.recent: list[float] = []  # losses that no line of steps.jsonl holds yet
        self.lines = {"steps": 0, "epochs": 0}
        self.row: dict[str, Any] = {}
        self.rate = settings.lr  # of the last step
        self.lowest = float("inf")  # of the figure that the best model goes by
        self.seconds = self.training_seconds = 0.0  # the second without evaluation, with AutoLR
        self.epoch_began: dict[str, Any] | None = None  # generators where the present epoch's data began
        if resume and (checkpoint := self.folder.load()) is not None:
            self._load(checkpoint)
        elif resume:
            self._forget()

    def _rate(self, base: Optimizer) -> tuple[Optimizer, Schedule | None]:
        s = self.settings
        if s.schedule not in TUNED:
            return base, make_schedule(s.schedule, base, self.total_steps, **s.schedule_options)
        policy: Policy = TUNED[s.schedule](**s.policy)
        return AutoLR(
            base, self.called, self._loss, self.batches, self.total_steps, policy=policy, window=s.window,
            superbatch=s.superbatch, seed=s.seed, trace=self.folder.decisions, overhead=s.overhead, held_out=s.held_out,
        ), None  # fmt: skip

    def _loss(self, model: nn.Module, batch: Any) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
            return self.workload.loss(model, batch)

    def run(self, report: Callable[[Progress], None] | None, every: float) -> dict[str, Any]:
        """Train to the end."""
        clock = _Clock(self.seconds, self.training_seconds, every)
        while self.done < self.total_steps:
            for batch in self._rest_of_the_epoch():
                self._step(batch, report)
                if clock.due() and self.done % len(self.batches):
                    self._save(clock)
            clock.pause()
            self._end_epoch()
            clock.go_on()
            if clock.due() and self.done < self.total_steps:
                self._save(clock)
        self.seconds, self.training_seconds = clock.seconds, clock.training_seconds
        result = self._result()
        self.folder.finish(result)
        return result

    def _save(self, clock: _Clock) -> None:
        clock.pause()
        self.seconds, self.training_seconds = clock.seconds, clock.training_seconds
        self.folder.save(self._checkpoint())
        clock.saved()
        clock.go_on()

    def _rest_of_the_epoch(self) -> Any:
        """The minibatches from where the run is."""
        taken = self.done % len(self.batches)
        if not taken:
            self.epoch_began = {"order": self.order.get_state(), "random": random_state()}
            return iter(self.batches)
        # Once more from the epoch's beginning, the minibatches that were seen passed over; then as it was left.
        assert self.epoch_began is not None
        here = random_state()
        self.order.set_state(self.epoch_began["order"])
        set_random_state(self.epoch_began["random"])
        rest = iter(self.batches)
        for _ in itertools.islice(rest, taken):
            pass
        set_random_state(here)
        return rest

    def _step(self, batch: Any, report: Callable[[Progress], None] | None) -> None:
        self.optimizer.zero_grad()
        loss = self._loss(self.called, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.workload.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.workload.clip)
        self.rate = lr = self.lr
        self.optimizer.step()
        if self.schedule is not None:
            self.schedule.step()
        self.done += 1
        value, weight = loss.item(), self.workload.weight(batch)
        self.total += value * weight
        self.weight += weight
        self.recent.append(value)
        epoch = (self.done - 1) // len(self.batches) + 1
        if self.done % STEPS_PER_LINE == 0:
            mean = sum(self.recent) / len(self.recent)
            self._append("steps", {"step": self.done, "epoch": epoch, "lr": lr, "loss": mean})
            self.recent = []
        if report is not None:
            phase = self.optimizer.phase if isinstance(self.optimizer, AutoLR) else self.settings.schedule
            report(Progress(self.done, self.total_steps, epoch, lr, value, phase))

    def _end_epoch(self) -> None:
        seen = self.workload.evaluate(self.model, self.evaluated, self.device)
        if self.schedule is not None:
            self.schedule.epoch(seen["loss"])
        epoch = self.done // len(self.batches)
        self.row = {"epoch": epoch, "step": self.done, "lr": self.rate, "train_loss": self.total / self.weight}
        self.row |= {f"{self.workload.evaluated}_{name}": value for name, value in seen.items()}
        self._append("epochs", self.row)
        self.total, self.weight = 0.0, 0
        if self.workload.best is not None and seen[self.workload.best] < self.lowest:
            self.lowest = seen[self.workload.best]
            self.folder.save({"model": self.model.state_dict(), "epoch": epoch, "seen": seen}, "best")

    def _append(self, name: str, row: dict[str, Any]) -> None:
        self.folder.append(name, row)
        self.lines[name] += 1

    @property
    def lr(self) -> float:
        """The largest rate over the groups."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    def _result(self) -> dict[str, Any]:
        result: dict[str, Any] = {k: v for k, v in self.row.items() if k not in {"epoch", "step", "lr"}}
        if (best := self.folder.load("best")) is not None:
            self.model.load_state_dict(best["model"])
            result["best_epoch"] = best["epoch"]
            result |= {f"best_{self.workload.evaluated}_{name}": value for name, value in best["seen"].items()}
        result |= self.workload.final(self.model, self.data_dir, self.device)
        if self.settings.measure:
            result |= MEASURES[self.settings.measure](self._loss, self.model, self.batches, self.settings.seed)
        result |= {"steps": self.total_steps, "seconds": self.seconds, "training_seconds": self.training_seconds}
        result |= {"notice": self.notice, "cost": None}
        if isinstance(self.optimizer, AutoLR):
            result |= _account(self.optimizer, self.total_steps, self.training_seconds)
        return result

    # What a checkpoint has to carry, and the way back.

    def _checkpoint(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "random": random_state(),
            "order": self.order.get_state(),
            "epoch_began": self.epoch_began,
            "progress": {name: getattr(self, name) for name in _PROGRESS},
        }

    def _load(self, checkpoint: dict[str, Any]) -> None:
        self.model.load_state_dict(checkpoint["model"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(checkpoint["schedule"])
        for name, value in checkpoint["progress"].items():
            setattr(self, name, value)
        for name, lines in self.lines.items():
            self.folder.cut(name, lines)
        if isinstance(self.optimizer, AutoLR) and not self.optimizer.history:
            self.folder.decisions.write_text("", encoding="utf8")
        self.epoch_began = checkpoint["epoch_began"]
        self.order.set_state(checkpoint["order"])
        set_random_state(checkpoint["random"])

    def _forget(self) -> None:
        """Begin anew a run that was cut off before its first checkpoint."""
        for name in self.lines:
            self.folder.cut(name, 0)
        (self.folder.path / "best.pt").unlink(missing_ok=True)
        if isinstance(self.optimizer, AutoLR):
            self.folder.decisions.write_text("", encoding="utf8")


_PROGRESS = ("done", "total", "weight", "recent", "lines", "row", "rate", "lowest", "seconds", "training_seconds")


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
