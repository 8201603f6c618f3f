"""One training run of a workload, from settings to a run folder. A run that was cut off goes on, to the bit."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from autolr import AutoLR
from autolr.measure.rng import random_state, set_random_state
from autolr.measure.superbatch import count_batches
from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr.policies.base import Run
from autolr.policies.window_plan import WindowSettings, plan_of
from autolr.runtime.decision_log import tally
from autolr_lab.baselines import BASELINES
from autolr_lab.training.access import RunError, locked
from autolr_lab.training.loading import part_of
from autolr_lab.training.measures import MEASURES
from autolr_lab.training.position import Position, UnreadLosses
from autolr_lab.training.prepared import Data, PreparedRun
from autolr_lab.training.provenance import provenance
from autolr_lab.training.ranks import joined
from autolr_lab.training.runs import OthersFolder, RunFolder, Settings
from autolr_lab.training.stepper import ReplayBatch, Tuned

STEPS_PER_LINE = 10  # steps.jsonl has the mean loss of so many steps a line
CHECKPOINT_SECONDS = 60.0  # between checkpoints


@dataclass(frozen=True)
class Progress:
    """Where a run is, for a progress bar."""

    step: int
    total_steps: int
    epoch: int
    lr: float
    loss: float
    phase: str


Report = Callable[[Progress], None]


def train(
    settings: Settings,
    out: Path,
    report: Report | None = None,
    *,
    resume: bool = False,
    every: float = CHECKPOINT_SECONDS,
) -> dict[str, Any]:
    """Train as ``settings`` say, writing to ``out`` as it goes.

    Args:
        settings: of the run.
        out: the run folder.
        report: told of every step.
        resume: go on with the run that was cut off in ``out``, or begin where there is none. Its end is that of an
            uninterrupted run, to the bit.
        every: seconds from one checkpoint to the next.

    Returns:
        The result, as ``result.json`` has it.

    Raises:
        MissingDataError: the workload's data is not there or damaged.
        RunError: ``out`` cannot be written or holds a run that this does not continue.
        TypeError, ValueError: a setting is refused.
    """
    data = Data.load(settings)
    with joined() as ranks, locked(out) if ranks.is_first else contextlib.nullcontext():
        # A first process that cannot have the folder ends, and its process group with it.
        folder = RunFolder(out, settings, provenance(), resume=resume) if ranks.is_first else OthersFolder(out)
        ranks.of_first(None)
        try:
            run = PreparedRun(settings, data, folder.decisions, ranks)
        except (TypeError, ValueError):  # a setting is refused: the corrected command may have this folder
            if not resume:
                folder.discard()
            raise
        training = _Training(run, folder, report, every)
        if resume:
            training.resume()
        return training.run()


class _Training:
    """The loop over the steps."""

    def __init__(self, parts: PreparedRun, folder: RunFolder, report: Report | None, every: float) -> None:
        self._parts, self._folder, self._report, self._every = parts, folder, report, every
        self._settings, self._workload, self._stepper = parts.settings, parts.workload, parts.stepper
        self._per_epoch = len(parts.batches)
        often = self._settings.evaluations  # an epoch
        self._evaluated_at = {round(n * self._per_epoch / often) for n in range(1, often)} - {0, self._per_epoch}
        self._at = Position(rate=self._settings.lr)
        self._epoch_began: dict[str, Any] | None = None  # the generators where the present epoch's data began
        self._unread = UnreadLosses()

    def run(self) -> dict[str, Any]:
        self._began = time.perf_counter() - self._at.seconds
        self._checkpointed = time.perf_counter()
        while self._goes_on():
            for batch in self._rest_of_the_epoch():
                self._step(batch)
                if self._settings.equal_budget and not self._goes_on():  # perhaps within an epoch
                    break
                if self._at.done % self._per_epoch in self._evaluated_at:
                    here = random_state()  # to go through data draws a seed, which training is not to notice
                    self._evaluate()
                    set_random_state(here)
                if self._at.done % self._per_epoch:
                    self._save_if_due()
            self._evaluate()
            if self._goes_on():
                self._save_if_due()
        self._at.seconds = time.perf_counter() - self._began
        result = self._result()
        self._folder.finish(result)
        return result

    def _goes_on(self) -> bool:
        """Whether a step is left: of the run, and, where budgets are equal, one that it can pay."""
        done, total = self._at.done, self._parts.total_steps
        if not self._settings.equal_budget or not done:
            return done < total
        budget = FORWARDS_PER_STEP * total - self._stepper.reserve
        return FORWARDS_PER_STEP * (done + 1) + self._stepper.forwards + self._stepper.least <= budget

    @contextlib.contextmanager
    def _aside(self) -> Iterator[None]:
        """Time that is not training."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._at.aside += time.perf_counter() - start

    def _rest_of_the_epoch(self) -> Any:
        """The minibatches from where the run is."""
        taken = self._at.done % self._per_epoch
        if not taken:
            self._epoch_began = {"order": self._parts.order.get_state(), "random": random_state()}
            return iter(self._parts.batches)
        # The epoch's order again, without what was seen of it, which is not read; then everything as it was.
        assert self._epoch_began is not None
        here = random_state()
        self._parts.order.set_state(self._epoch_began["order"])
        set_random_state(self._epoch_began["random"])
        rest = iter(part_of(self._parts.batches, taken=taken))
        set_random_state(here)
        return rest

    def _step(self, batch: Any) -> None:
        parts, stepper, at = self._parts, self._stepper, self._at
        stepper.optimizer.zero_grad()
        replay = ReplayBatch(parts.model, parts.loss, batch) if stepper.replays else None
        loss = parts.loss(parts.model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        if self._workload.clip is not None and stepper.clips:
            nn.utils.clip_grad_norm_(parts.model.parameters(), self._workload.clip)
        at.rate = stepper.rate
        stepper.step(loss.detach(), replay)
        at.done += 1
        self._unread.add(loss, self._workload.weight(batch))
        epoch = (at.done - 1) // self._per_epoch + 1
        if at.done % STEPS_PER_LINE == 0:
            self._unread.read(self._at, self._parts.ranks)
            mean = sum(at.recent) / len(at.recent)
            self._append("steps", {"step": at.done, "epoch": epoch, "lr": at.rate, "loss": mean})
            at.recent = []
        if self._report is not None:
            phase = stepper.phase or self._settings.schedule
            self._report(Progress(at.done, parts.total_steps, epoch, at.rate, at.last, phase))

    def _evaluate(self) -> None:
        """At an epoch's end, at the points within one that were asked for, and where a budget ends."""
        at, workload = self._at, self._workload
        self._unread.read(self._at, self._parts.ranks)
        epochs, within = divmod(at.done, self._per_epoch)
        epoch = at.done / self._per_epoch if within else epochs
        with self._aside(), self._stepper.evaluation(self._parts.network) as model:
            seen = self._seen(model)
            if workload.best is not None and seen[workload.best] < at.lowest:
                at.lowest = seen[workload.best]
                self._folder.save({"model": model.state_dict(), "epoch": epoch, "seen": seen}, "best")
        if not within:
            self._stepper.epoch(seen["loss"])
        at.row = {"epoch": epoch, "step": at.done, "lr": at.rate, "train_loss": at.total / at.weight}
        at.row |= {f"{workload.evaluated}_{name}": value for name, value in seen.items()}
        self._append("epochs", at.row)
        at.total, at.weight = 0.0, 0

    def _seen(self, model: nn.Module) -> dict[str, float]:
        """Of the data to evaluate on; by the first process, for all."""
        seen: dict[str, float] = {}
        if self._parts.ranks.is_first:
            with self._parts.autocast():
                seen = self._workload.evaluate(model, self._parts.evaluated, self._parts.device)
        return self._parts.ranks.of_first(seen)

    def _append(self, name: str, row: dict[str, Any]) -> None:
        self._folder.append(name, row)
        self._at.lines[name] += 1

    def _result(self) -> dict[str, Any]:
        parts, settings, at = self._parts, self._settings, self._at
        result: dict[str, Any] = {k: v for k, v in at.row.items() if k not in {"epoch", "step", "lr"}}
        result["first_loss"] = at.first
        parts.ranks.of_first(None)  # the best model is written
        with self._stepper.evaluation(parts.network) as model:
            if (best := self._folder.load("best")) is not None:
                model.load_state_dict(best["model"])
                result["best_epoch"] = best["epoch"]
                result |= {f"best_{self._workload.evaluated}_{name}": value for name, value in best["seen"].items()}
            result |= self._workload.final(model, parts.data_dir, parts.device)
            if settings.measure:
                result |= MEASURES[settings.measure](parts.loss, model, parts.batches, settings.seed)
        training_seconds = at.seconds - at.aside
        result |= {"steps": at.done, "seconds": at.seconds, "training_seconds": training_seconds}
        spent = FORWARDS_PER_STEP * at.done + self._stepper.forwards + self._stepper.reserve
        result |= {"forward_equivalents": spent, "notice": parts.notice, "cost": None}
        if (baseline := BASELINES.get(settings.schedule)) is not None and baseline.package:
            result["package"] = f"{baseline.package} {version(baseline.package)}"
        if isinstance(self._stepper, Tuned):
            result |= _account(self._stepper.optimizer, parts, at.done, training_seconds)
        return result

    # What a checkpoint carries, and the way back.

    def _save_if_due(self) -> None:
        ranks = self._parts.ranks
        if ranks.size > 1 and self._at.done % STEPS_PER_LINE:  # to agree costs a message
            return
        if not ranks.of_first(time.perf_counter() - self._checkpointed >= self._every):
            return
        with self._aside():
            self._unread.read(self._at, self._parts.ranks)
            self._at.seconds = time.perf_counter() - self._began
            self._folder.save({
                "model": self._parts.network.state_dict(),
                "stepper": self._stepper.state_dict(),
                "random": ranks.of_each(random_state()),
                "order": self._parts.order.get_state(),
                "epoch_began": ranks.of_each(self._epoch_began),
                "position": dataclasses.asdict(self._at),
            })  # fmt: skip
        self._checkpointed = time.perf_counter()

    def resume(self) -> None:
        """Go on from the folder's checkpoint; from the start where there is none."""
        checkpoint = self._folder.load()
        if checkpoint is not None and "position" not in checkpoint:
            raise RunError(
                f"The checkpoint in {self._folder.path} is another version's. Delete it, and the run begins again."
            )
        if checkpoint is not None:
            self._parts.network.load_state_dict(checkpoint["model"])
            self._stepper.load_state_dict(checkpoint["stepper"])
            self._at = Position(**checkpoint["position"])
            rank = self._parts.ranks.rank
            self._epoch_began = checkpoint["epoch_began"][rank]
            self._parts.order.set_state(checkpoint["order"])
            set_random_state(checkpoint["random"][rank])
        elif self._parts.ranks.is_first:
            (self._folder.path / "best.pt").unlink(missing_ok=True)
        for name, lines in self._at.lines.items():
            self._folder.cut(name, lines)
        first = self._parts.ranks.is_first
        if first and isinstance(self._stepper, Tuned) and not self._stepper.optimizer.history:
            self._folder.decisions.write_text("", encoding="utf8")


def _account(optimizer: AutoLR, parts: PreparedRun, steps: int, training_seconds: float) -> dict[str, Any]:
    """What AutoLR did and what it cost, beside the training's own cost."""
    cost, policy = optimizer.cost, optimizer.policy
    plan = {}
    if isinstance(policy, WindowSettings):
        planned = plan_of(policy, Run(parts.total_steps, count_batches(parts.batches)))
        plan = {"window": planned.window, "superbatch": planned.superbatch}
    return {
        **plan,
        **tally(optimizer.history),
        "cost": cost.to_dict(),
        "cost_forward_equivalents": cost.forward_equivalents,
        "cost_share": cost.share(steps),
        "cost_seconds": cost.seconds,
        "own_seconds": training_seconds - cost.seconds,
    }
