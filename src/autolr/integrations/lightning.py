"""AutoLR and `find_peak` for Lightning: one callback each, ``Trainer(callbacks=[...])``.

The loss is the module's own ``training_step``, run as the trainer runs it: its precision plugin, its transfer of the
batch to the device, its strategy. What the step logs, prints or optimizes is left out, so that a run's logged values
are its own.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim import Optimizer

from autolr.integrations.checkpoint import Memory, is_sharded
from autolr.integrations.common import ReportedRate, continue_run, follow, given_rates
from autolr.integrations.lightning_door import Door
from autolr.measure.sources import Batches
from autolr.optimizer import AutoLR
from autolr.peak import Peak
from autolr.peak_search import find_peak
from autolr.policies import Policy
from autolr.schedules import PeakSchedule

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

__all__ = ["AutoLRCallback", "FindPeakCallback"]


class AutoLRCallback(Door):
    """Wraps the fit's optimizer in `AutoLR`: nothing else is to be changed.

    Where the module has a scheduler, that no longer sets the rate (unless the policy is `Monitor`, which leaves the
    rate alone). Checkpoints hold all of it: a fit with ``ckpt_path`` goes on, also for more epochs, and also from a
    checkpoint of a fit without AutoLR, whose rest is then the run.

    Args:
        policy: as `AutoLR`'s.
        total_steps: optimizer steps of the fit; by default the trainer's own estimate. A module that optimizes by
            itself is watched until its first step: if that comes after four minibatches, there are a quarter as many
            steps as minibatches. What it does with those that an epoch leaves over, the second epoch tells.
        loss_fn: ``loss_fn(module, batch)`` in place of ``training_step``.
        batches: in place of the trainer's training loader.
        seed: as `AutoLR`'s.
        trace: likewise.

    Attributes:
        optimizer: the `AutoLR`, once training has begun.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        total_steps: int | None = None,
        loss_fn: Callable[[Any, Any], Tensor] | None = None,
        batches: Batches | None = None,
        seed: int = 0,
        trace: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(total_steps, loss_fn, batches)
        self._settings: dict[str, Any] = {"policy": policy, "seed": seed, "trace": trace}
        self._saved: dict[str, Any] | None = None
        self._memory: dict[str, Any] | None = None
        self.optimizer: AutoLR | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """What was loaded before is none of this call's."""
        super().setup(trainer, pl_module, stage)
        self._saved = self._memory = None

    def state_dict(self) -> dict[str, Any]:
        """What was counted; the rest is in the optimizer's."""
        return self._own.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Likewise."""
        if self._fits:
            self._own.load_state_dict(state_dict)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Of a sharded module, the trainer keeps the bare optimizer alone, by torch's own functions."""
        if self.optimizer is not None and is_sharded(pl_module):
            checkpoint["autolr"] = Memory(trainer.strategy.model, self.optimizer).state_dict()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep what is AutoLR's; the trainer itself loads what is the bare optimizer's."""
        if not self._fits:
            return
        states = checkpoint.get("optimizer_states") or [{}]
        self._saved = states[0].get("autolr")
        self._memory = checkpoint.get("autolr")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wrap the optimizer: its state is loaded, and the data is there."""
        if (base := self._base(trainer)) is None:
            return
        loss = self._loss(trainer)
        self._tuned_loss, planned = loss, self._length(trainer)
        tuned = AutoLR(
            base, trainer.strategy.model, loss, self._source(trainer), planned,
            search=self._search(trainer, base, loss), **self._settings,
        )  # fmt: skip
        if self._memory is not None:
            self._saved = Memory(trainer.strategy.model, tuned).read(self._memory)
        if trainer.global_step:
            saved = {} if self._saved is None else {"autolr": self._saved}
            continue_run(tuned, {**base.state_dict(), **saved}, trainer.global_step, planned)
        self.optimizer, self._saved, self._memory = tuned, None, None
        trainer.optimizers = [tuned]
        if tuned.policy.foreign_rate != "ignored":
            replace_schedulers(trainer, base)

    def _replan(self, trainer: Trainer) -> None:
        tuned = self.optimizer
        assert tuned is not None
        length = self._length(trainer) - (trainer.global_step - tuned.steps_taken)  # less what was trained without us
        if tuned.steps_taken < length != tuned.total_steps:
            tuned.change_length(length)
        tuned.search_with(self._search(trainer, tuned.base, self._tuned_loss))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so if the schedule had not come to its end."""
        if self.optimizer is not None:
            self.optimizer.end_run()


class FindPeakCallback(Door):
    """Searches the peak rate where a fit begins, and sets its schedule: warm-up, hold, a line to zero.

    The schedule takes the place of the module's own scheduler, where it has one. A fit with ``ckpt_path`` goes on with
    the peak that was found; from a checkpoint of another callback's fit it is searched for the steps that are left.

    Args:
        total_steps: optimizer steps of the fit, see `AutoLRCallback`.
        loss_fn: likewise.
        batches: likewise.
        **settings: further arguments of `find_peak`: ``budget``, ``evaluation``, ``seed``, ``progress``.

    Attributes:
        peak: what was found.
    """

    def __init__(
        self,
        *,
        total_steps: int | None = None,
        loss_fn: Callable[[Any, Any], Tensor] | None = None,
        batches: Batches | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(total_steps, loss_fn, batches)
        self._settings, self._began = settings, 0
        self.peak: Peak | None = None
        self.schedule: PeakSchedule | None = None

    def state_dict(self) -> dict[str, Any]:
        """The peak, the step at which its schedule began, and what was counted."""
        found = None if self.peak is None else self.peak.to_json()
        return {"peak": found, "began": self._began, "accumulation": self._own.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Likewise."""
        if not self._fits:
            return
        found = state_dict["peak"]
        self.peak, self._began = None if found is None else Peak.from_json(found), state_dict["began"]
        if counted := state_dict["accumulation"]:
            self._own.load_state_dict(counted)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Search, unless the first minibatches have to tell first how many of them make a step."""
        if (base := self._base(trainer)) is None:
            return
        if not trainer.global_step:
            self.peak = None  # another fit's
        told = self._own.known or self._total_steps is not None or not self._by_itself(trainer)
        if told or self.peak is not None:
            self._begin(trainer, base)

    def _replan(self, trainer: Trainer) -> None:
        base = trainer.optimizers[0]
        if self.peak is None or self.schedule is None:
            self._begin(trainer, base)
        elif self.schedule.total_steps != self._length(trainer) - self._began:
            self._follow(trainer, base, self.peak)

    def _begin(self, trainer: Trainer, base: Optimizer) -> None:
        if self.peak is None:
            if trainer.global_step:
                given_rates(base)
            self._began = trainer.global_step
            loss = self._loss(trainer)
            self.peak = find_peak(
                trainer.strategy.model, base, loss, self._source(trainer), self._length(trainer) - self._began,
                **self._search(trainer, base, loss), **self._settings,
            )  # fmt: skip
        self._follow(trainer, base, self.peak)
        replace_schedulers(trainer, base)

    def _follow(self, trainer: Trainer, base: Optimizer, peak: Peak) -> None:
        self.schedule = follow(base, peak.lr, self._length(trainer) - self._began, trainer.global_step - self._began)


def replace_schedulers(trainer: Trainer, base: Optimizer) -> None:
    """The module's schedulers set nothing from here on; their names stay, and tell the rate that holds."""
    for config in trainer.lr_scheduler_configs:
        warnings.warn(
            f"The module's {type(config.scheduler).__name__} no longer sets the learning rate: this callback does. "
            "Take it out of configure_optimizers.",
            stacklevel=2,
        )
        config.scheduler = ReportedRate(base, config.scheduler)
        config.interval, config.frequency, config.reduce_on_plateau = "step", 1, False
