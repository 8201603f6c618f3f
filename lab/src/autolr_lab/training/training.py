"""One training run of a workload, from settings to a run folder. A run that was cut off goes on, to the bit."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr.measure.peekable_loader import PeekableLoader
from autolr_lab.training.measures import MEASURES
from autolr_lab.training.optimizers import OPTIMIZERS
from autolr_lab.baselines import PEERS
from autolr_lab.baselines.peer import Task
from autolr.policies import Auto, Monitor, ExploreExploit, Policy, SteeringPolicy
from autolr_lab.training.provenance import provenance
from autolr.measure.rng import random_state, set_random_state
from autolr_lab.training.runs import RunError, RunFolder, Settings, writing
from autolr_lab.baselines.schedules import make_schedule
from autolr_lab.training.stepper import Again, Stepper, Tuned
from autolr.runtime.decision_log import tally
from autolr.optimizer import AutoLR
from autolr_lab.workloads import WORKLOADS

STEPS_PER_LINE = 10  # steps.jsonl holds the mean loss of so many steps a line
CHECKPOINT_SECONDS = 60.0  # from one checkpoint to the next
TUNED = {"autolr": ExploreExploit, "hold": Monitor, "auto": Auto}  # the schedules that are AutoLR's policies
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
        self.train_data, evaluated = self.workload.datasets(self.data_dir)
        notices = (self.workload.notice, getattr(self.train_data, "notice", ""))
        self.notice = " ".join(filter(None, notices))
        self.folder = RunFolder(out, settings, provenance(), resume=resume)
        try:
            torch.manual_seed(settings.seed)
            self.model = self.workload.network(self.data_dir).to(self.device)
            if settings.channels_last:
                self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.called: Any = torch.compile(self.model) if settings.compiled else self.model
            self.order = torch.Generator().manual_seed(settings.seed)
            self.batches: Any = self.workload.train_batches(self.train_data, settings.batch_size, self.order)
            if settings.lend:
                self.batches = PeekableLoader(self.batches)
            self.evaluated = self.workload.test_batches(evaluated)
            self.total_steps = settings.epochs * len(self.batches)
            self.evaluated_at = _between(len(self.batches), settings.evaluations)
            self.stepper = self._stepper()
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

    def _stepper(self) -> Stepper:
        s, options = self.settings, self.workload.options.get(self.settings.optimizer, {})
        if s.schedule in PEERS:
            task = Task(
                self.model, self.called, s.optimizer, s.lr, options, self._loss, self._fresh_batches, len(self.batches),
                self.total_steps, s.equal_budget, s.schedule_options,
            )  # fmt: skip
            return PEERS[s.schedule].make(task)
        base = OPTIMIZERS[s.optimizer](self.model.parameters(), s.lr, **options)
        if s.schedule not in TUNED:
            return Stepper(base, make_schedule(s.schedule, base, self.total_steps, **s.schedule_options))
        policy: Policy | SteeringPolicy = TUNED[s.schedule](**s.policy)
        return Tuned(AutoLR(
            base, self.called, self._loss, self.batches, self.total_steps, policy=policy, window=s.window,
            superbatch=s.superbatch, seed=s.seed, trace=self.folder.decisions, overhead=s.overhead, validation_eps=s.validation_eps,
        ))  # fmt: skip

    def _fresh_batches(self) -> Any:
        """The training minibatches in an order of their own: to go through them moves nothing in the training."""
        order = torch.Generator().manual_seed(self.settings.seed + 1)
        return self.workload.train_batches(self.train_data, self.settings.batch_size, order)

    def _loss(self, model: nn.Module, batch: Any) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
            return self.workload.loss(model, batch)

    def run(self, report: Callable[[Progress], None] | None, every: float) -> dict[str, Any]:
        """Train to the end."""
        clock = _Clock(self.seconds, self.training_seconds, every)
        while self._goes_on():
            for batch in self._rest_of_the_epoch():
                self._step(batch, report)
                if self.settings.equal_budget and not self._goes_on():  # perhaps within an epoch
                    break
                if self.done % len(self.batches) in self.evaluated_at:
                    here = random_state()  # to go through data draws a seed, which training is not to notice
                    self._evaluate(clock)
                    set_random_state(here)
                if clock.due() and self.done % len(self.batches):
                    self._save(clock)
            self._evaluate(clock)
            if clock.due() and self._goes_on():
                self._save(clock)
        self.seconds, self.training_seconds = clock.seconds, clock.training_seconds
        result = self._result()
        self.folder.finish(result)
        return result

    def _goes_on(self) -> bool:
        """Whether there is a step left: of the run, and, where budgets are to be equal, one that it can pay."""
        if not self.settings.equal_budget or not self.done:
            return self.done < self.total_steps
        budget = FORWARDS_PER_STEP * self.total_steps - self.stepper.reserve
        return FORWARDS_PER_STEP * (self.done + 1) + self.stepper.forwards + self.stepper.least <= budget

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
        self.stepper.optimizer.zero_grad()
        again = Again(self.called, self._loss, batch) if self.stepper.goes_again else None
        loss = self._loss(self.called, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.workload.clip is not None and self.stepper.clips:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.workload.clip)
        self.rate = lr = self.stepper.rate
        self.stepper.step(loss.detach(), again)
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
            phase = self.stepper.phase or self.settings.schedule
            report(Progress(self.done, self.total_steps, epoch, lr, value, phase))

    def _evaluate(self, clock: _Clock) -> None:
        """At an epoch's end, at points within one that were asked for, and where a budget ends."""
        clock.pause()
        epochs, within = divmod(self.done, len(self.batches))
        with self.stepper.evaluation(self.model) as model:
            seen = self.workload.evaluate(model, self.evaluated, self.device)
            if self.workload.best is not None and seen[self.workload.best] < self.lowest:
                self.lowest = seen[self.workload.best]
                epoch = self.done / len(self.batches) if within else epochs
                self.folder.save({"model": model.state_dict(), "epoch": epoch, "seen": seen}, "best")
        if not within:
            self.stepper.epoch(seen["loss"])
        self.row = {"epoch": self.done / len(self.batches) if within else epochs, "step": self.done, "lr": self.rate}
        self.row["train_loss"] = self.total / self.weight
        self.row |= {f"{self.workload.evaluated}_{name}": value for name, value in seen.items()}
        self._append("epochs", self.row)
        self.total, self.weight = 0.0, 0
        clock.go_on()

    def _append(self, name: str, row: dict[str, Any]) -> None:
        self.folder.append(name, row)
        self.lines[name] += 1

    def _result(self) -> dict[str, Any]:
        result: dict[str, Any] = {k: v for k, v in self.row.items() if k not in {"epoch", "step", "lr"}}
        with self.stepper.evaluation(self.model) as model:
            if (best := self.folder.load("best")) is not None:
                model.load_state_dict(best["model"])
                result["best_epoch"] = best["epoch"]
                result |= {f"best_{self.workload.evaluated}_{name}": value for name, value in best["seen"].items()}
            result |= self.workload.final(model, self.data_dir, self.device)
            if self.settings.measure:
                result |= MEASURES[self.settings.measure](self._loss, model, self.batches, self.settings.seed)
        result |= {"steps": self.done, "seconds": self.seconds, "training_seconds": self.training_seconds}
        spent = FORWARDS_PER_STEP * self.done + self.stepper.forwards + self.stepper.reserve
        result |= {"forward_equivalents": spent, "notice": self.notice, "cost": None}
        if (peer := PEERS.get(self.settings.schedule)) is not None and peer.package:
            result["package"] = f"{peer.package} {version(peer.package)}"
        if isinstance(self.stepper, Tuned):
            result |= _account(self.stepper.optimizer, self.done, self.training_seconds)
        return result

    # What a checkpoint has to carry, and the way back.

    def _checkpoint(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "stepper": self.stepper.state_dict(),
            "random": random_state(),
            "order": self.order.get_state(),
            "epoch_began": self.epoch_began,
            "progress": {name: getattr(self, name) for name in _PROGRESS},
        }

    def _load(self, checkpoint: dict[str, Any]) -> None:
        if missing := {*_PARTS, "progress"} - checkpoint.keys():
            raise RunError(
                f"{self.folder.path} was cut off under another version of autolr: its checkpoint has no "
                f"{', '.join(sorted(missing))}. Delete its checkpoint.pt, and the run begins again."
            )
        self.model.load_state_dict(checkpoint["model"])
        self.stepper.load_state_dict(checkpoint["stepper"])
        for name, value in checkpoint["progress"].items():
            setattr(self, name, value)
        for name, lines in self.lines.items():
            self.folder.cut(name, lines)
        if isinstance(self.stepper, Tuned) and not self.stepper.optimizer.history:
            self.folder.decisions.write_text("", encoding="utf8")
        self.epoch_began = checkpoint["epoch_began"]
        self.order.set_state(checkpoint["order"])
        set_random_state(checkpoint["random"])

    def _forget(self) -> None:
        """Begin anew a run that was cut off before its first checkpoint."""
        for name in self.lines:
            self.folder.cut(name, 0)
        (self.folder.path / "best.pt").unlink(missing_ok=True)
        if isinstance(self.stepper, Tuned):
            self.folder.decisions.write_text("", encoding="utf8")


_PARTS = ("model", "stepper", "random", "order", "epoch_began")  # of a checkpoint, beside `_PROGRESS`
_PROGRESS = ("done", "total", "weight", "recent", "lines", "row", "rate", "lowest", "seconds", "training_seconds")


def _between(steps: int, evaluations: int) -> frozenset[int]:
    """Steps within an epoch of ``steps`` at which it is evaluated beside its end, ``evaluations`` times in all."""
    return frozenset(round(number * steps / evaluations) for number in range(1, evaluations)) - {0, steps}


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
