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
from autolr.integrations.lightning_step import ModuleLoss, train_step_of
from autolr.integrations.lightning_step import lightning as _lightning
from autolr.measure.sources import Batches
from autolr.optimizer import AutoLR
from autolr.peak import Peak
from autolr.peak_search import find_peak
from autolr.policies import Policy
from autolr.runtime.distributed import smallest
from autolr.schedules import PeakSchedule

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    Callback = _lightning().Callback

__all__ = ["AutoLRCallback", "FindPeakCallback"]


class _Door(Callback):
    """What both callbacks know of a fit: its length, its batches, its loss."""

    def __init__(
        self, total_steps: int | None, loss_fn: Callable[[Any, Any], Tensor] | None, batches: Batches | None
    ) -> None:
        self._total_steps, self._loss_fn, self._batches = total_steps, loss_fn, batches
        self._counted = 0  # minibatches until the first optimizer step, where the module optimizes by itself
        self._each = 1  # minibatches of a step

    def _base(self, trainer: Trainer) -> Optimizer | None:
        """The optimizer to tune; None where there is nothing to do."""
        if trainer.fast_dev_run:
            return None
        if len(trainer.optimizers) != 1:
            raise TypeError(
                f"{type(self).__name__} tunes one optimizer; this module has {len(trainer.optimizers)}. Where they "
                "train one loss together, return AutoLR([first, second], ...) from configure_optimizers; a GAN's "
                "losses do not measure progress: set its rates by hand."
            )
        base: Optimizer = trainer.optimizers[0]
        if isinstance(base, AutoLR):
            raise TypeError(
                f"configure_optimizers returns an AutoLR already; got {type(self).__name__} too. Let it return the "
                f"bare {type(base.base).__name__}, or leave the callback out."
            )
        self._each = 1 if self._by_itself(trainer) else int(trainer.accumulate_grad_batches)
        return base

    @staticmethod
    def _by_itself(trainer: Trainer) -> bool:
        return not trainer.lightning_module.automatic_optimization

    def _length(self, trainer: Trainer) -> int:
        """Optimizer steps of the whole fit."""
        if self._total_steps is not None:
            return self._total_steps
        steps = trainer.estimated_stepping_batches
        if not 0 < steps < float("inf"):
            raise ValueError(
                f"The trainer knows no end of this fit: max_epochs={trainer.max_epochs}, max_steps="
                f"{trainer.max_steps}. Set one of them, or pass {type(self).__name__}(total_steps=...)."
            )
        epochs = max(1, trainer.max_epochs or 1)  # -1: max_steps alone ends it
        if self._by_itself(trainer):
            batches = trainer.num_training_batches
            if self._each > 1 and batches != float("inf"):
                steps = min(steps, -(-int(batches) // self._each) * epochs)
        elif epochs > 1 and trainer.max_steps < 0 and any(_adds_an_epoch(one, trainer) for one in trainer.callbacks):
            steps = steps * (epochs - 1) // epochs + 1
        return smallest(int(steps))  # ranks whose loaders differ in length take the same steps

    def _source(self, trainer: Trainer) -> Batches:
        if self._batches is not None:
            return self._batches
        loader = trainer.train_dataloader
        if isinstance(loader, (list, tuple, dict)):
            raise TypeError(
                f"The trainer has several training loaders ({type(loader).__name__} of {len(loader)}). Pass "
                f"{type(self).__name__}(batches=...): an iterable or a function that gives what training_step gets."
            )
        return loader  # type: ignore[no-any-return]

    def _loss(self, trainer: Trainer) -> ModuleLoss:
        return ModuleLoss(trainer, self._loss_fn)

    def _search(self, trainer: Trainer, base: Optimizer, loss: ModuleLoss) -> dict[str, Any]:
        """What `find_peak` is told beside the run."""
        step, also = train_step_of(trainer, base, loss, self._each)
        return {"accumulation": self._each} | ({} if step is None else {"train_step": step, "also": also})

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Count minibatches until the first step."""
        self._counted += 1


def _adds_an_epoch(callback: Any, trainer: Trainer) -> bool:
    """Whether it has the trainer go through the data once more, in one step: for the averaged model's BatchNorm."""
    averages = _lightning().callbacks.StochasticWeightAveraging
    return isinstance(callback, averages) and callback.pl_module_contains_batch_norm(trainer.lightning_module)


class AutoLRCallback(_Door):
    """Wraps the fit's optimizer in `AutoLR`: nothing else is to be changed.

    Where the module has a scheduler, that no longer sets the rate (unless the policy is `Monitor`, which leaves the
    rate alone). Checkpoints hold all of it: a fit with ``ckpt_path`` goes on, also for more epochs, and also from a
    checkpoint of a fit without AutoLR, whose rest is then the run.

    Args:
        policy: as `AutoLR`'s.
        total_steps: optimizer steps of the fit; by default the trainer's own estimate. A module that optimizes by
            itself is watched until its first step: if that comes after four minibatches, there are a quarter as many
            steps as minibatches.
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

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Of a sharded module, the trainer keeps the bare optimizer alone, by torch's own functions."""
        if self.optimizer is not None and is_sharded(pl_module):
            checkpoint["autolr"] = Memory(trainer.strategy.model, self.optimizer).state_dict()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep what is AutoLR's; the trainer itself loads what is the bare optimizer's."""
        states = checkpoint.get("optimizer_states") or [{}]
        self._saved = states[0].get("autolr")
        self._memory = checkpoint.get("autolr")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wrap the optimizer: its state is loaded, and the data is there."""
        self._counted = 0
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

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """At the first step of a module that optimizes by itself: how many minibatches it took."""
        tuned = self.optimizer
        if tuned is None or not self._by_itself(trainer) or self._counted < 2 or tuned.steps_taken:
            self._counted = 0
            return
        self._each, self._counted = self._counted, 0
        tuned.change_length(self._length(trainer))
        tuned.search_with(self._search(trainer, tuned.base, self._tuned_loss))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so if the schedule had not come to its end."""
        if self.optimizer is not None:
            self.optimizer.end_run()


class FindPeakCallback(_Door):
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
        self._settings, self._began, self._due = settings, 0, False
        self.peak: Peak | None = None
        self.schedule: PeakSchedule | None = None

    def state_dict(self) -> dict[str, Any]:
        """The peak, and the step at which its schedule began."""
        return {"peak": None if self.peak is None else self.peak.to_json(), "began": self._began}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Likewise."""
        found = state_dict["peak"]
        self.peak, self._began = None if found is None else Peak.from_json(found), state_dict["began"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Search, unless the first minibatches have to tell first how many of them make a step."""
        self._counted = 0
        if (base := self._base(trainer)) is None:
            return
        if not trainer.global_step:
            self.peak = None  # another fit's
        self._due = self.peak is None and self._by_itself(trainer) and self._total_steps is None
        if not self._due:
            self._follow(trainer, base)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """See `on_train_start`."""
        if self._due:
            self._due, self._each = False, max(1, self._counted)
            self._follow(trainer, trainer.optimizers[0])

    def _follow(self, trainer: Trainer, base: Optimizer) -> None:
        planned = self._length(trainer)
        if self.peak is None:
            if trainer.global_step:
                given_rates(base)
            self._began = trainer.global_step
            loss = self._loss(trainer)
            self.peak = find_peak(
                trainer.strategy.model, base, loss, self._source(trainer), planned - self._began,
                **self._search(trainer, base, loss), **self._settings,
            )  # fmt: skip
        taken = trainer.global_step - self._began
        self.schedule = follow(base, self.peak.lr, planned - self._began, taken)
        replace_schedulers(trainer, base)


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
