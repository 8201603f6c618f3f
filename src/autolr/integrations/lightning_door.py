"""What both of Lightning's callbacks know of a fit: its length, its minibatches, its loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim import Optimizer

from autolr.integrations.lightning_step import ModuleLoss, train_step_of
from autolr.integrations.lightning_step import lightning as _lightning
from autolr.integrations.own_accumulation import OwnAccumulation
from autolr.measure.sources import Batches
from autolr.optimizer import AutoLR
from autolr.runtime.distributed import smallest

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    Callback = _lightning().Callback


class Door(Callback):
    """A callback that does not tune yet."""

    def __init__(
        self, total_steps: int | None, loss_fn: Callable[[Any, Any], Tensor] | None, batches: Batches | None
    ) -> None:
        self._total_steps, self._loss_fn, self._batches = total_steps, loss_fn, batches
        self._own = OwnAccumulation()  # where the module optimizes by itself
        self._fits = True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checkpoints are loaded to validate, test and predict, too: a fit does not go on from those."""
        self._fits = stage == "fit"
        if self._fits and not trainer.global_step:
            self._own = OwnAccumulation()  # what there is was another fit's

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
        return base

    def _each(self, trainer: Trainer) -> int:
        """Minibatches of a step."""
        return self._own.each if self._by_itself(trainer) else int(trainer.accumulate_grad_batches)

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
        epochs, batches = trainer.max_epochs or 1, trainer.num_training_batches
        if self._by_itself(trainer):
            if epochs > 0 and batches != float("inf"):  # -1: max_steps alone ends it
                steps = min(steps, self._own.steps(int(batches), epochs))
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
        each = self._each(trainer)
        step, also = train_step_of(trainer, base, loss, each)
        return {"accumulation": each} | ({} if step is None else {"train_step": step, "also": also})

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Count minibatches from step to step."""
        if self._by_itself(trainer):
            self._own.minibatch(batch_idx)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """The steps of a module that optimizes by itself tell how many there are."""
        if self._by_itself(trainer) and not trainer.fast_dev_run and self._own.step():
            self._replan(trainer)

    def _replan(self, trainer: Trainer) -> None:
        """The coming step has told more of the fit's length."""
        raise NotImplementedError


def _adds_an_epoch(callback: Any, trainer: Trainer) -> bool:
    """Whether it has the trainer go through the data once more, in one step: for the averaged model's BatchNorm."""
    averages = _lightning().callbacks.StochasticWeightAveraging
    return isinstance(callback, averages) and callback.pl_module_contains_batch_norm(trainer.lightning_module)
