"""A Lightning module's ``training_step`` as a loss, and as a step of a short run, without anybody hearing of it."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from autolr.integrations.common import loss_in_float, whole_step
from autolr.measure.whole_state import held_tensors

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

PROBED = 1  # batch_idx in a probe: steps that log pictures do so at 0 and at multiples of something


def lightning() -> Any:
    """The package that the user has imported: ``lightning.pytorch``, or ``pytorch_lightning``, which is the same."""
    names = ("lightning.pytorch", "pytorch_lightning")
    for name in (*(name for name in names if name in sys.modules), *names):
        with contextlib.suppress(ModuleNotFoundError):
            return importlib.import_module(name)
    raise ModuleNotFoundError("autolr.integrations.lightning needs Lightning: pip install 'torch-autolr[lightning]'.")


class ModuleLoss:
    """``loss_fn(model, batch)``: what the module's ``training_step`` makes of a batch, or the user's own function.

    Raises:
        TypeError: a step from which no loss can be had.
    """

    def __init__(self, trainer: Trainer, own: Callable[[Any, Any], Tensor] | None) -> None:
        self.trainer, self.own = trainer, own
        names = inspect.signature(trainer.lightning_module.training_step).parameters
        if own is None and "dataloader_iter" in names:
            raise TypeError(
                "A training_step(dataloader_iter) loads its own minibatches, and a probe would take them away from "
                "training. Pass loss_fn= and batches= to the callback."
            )
        self.takes_place = len(names) > 1

    def __call__(self, model: Any, batch: Any) -> Tensor:
        with muted(self.trainer) as heard:
            return loss_in_float(self.of(batch, PROBED, heard))

    def of(self, batch: Any, place: int, heard: Heard) -> Tensor:
        """The loss of a batch as it comes from the loader; call it inside `muted`."""
        trainer = self.trainer
        module = trainer.lightning_module
        batch = trainer.precision_plugin.convert_input(batch)
        batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
        batch = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
        if self.own is not None:
            with trainer.precision_plugin.train_step_context():
                return self.own(module, batch)
        output = (
            trainer.strategy.training_step(batch, place) if self.takes_place else trainer.strategy.training_step(batch)
        )
        if heard.steps > 1:
            raise TypeError(
                f"training_step takes {heard.steps} optimizer steps for one batch: its loss is not that of one step. "
                "Pass loss_fn=lambda module, batch: ... and total_steps= to the callback."
            )
        if heard.losses:
            return sum(heard.losses[1:], heard.losses[0])
        loss = output.get("loss") if isinstance(output, Mapping) else output
        if loss is None and module.automatic_optimization:
            return torch.full((), torch.nan, device=module.device)  # the trainer skips such a batch, and so do we
        if not isinstance(loss, Tensor):
            raise TypeError(
                "training_step gives no loss to measure: it neither calls self.manual_backward(loss) nor returns the "
                "loss. Do one of them, or pass loss_fn=lambda module, batch: ... to the callback."
            )
        return loss


class Heard:
    """What a muted ``training_step`` has asked for."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self.steps = 0


@contextlib.contextmanager
def muted(trainer: Trainer, optimizer: Optimizer | None = None) -> Iterator[Heard]:
    """Inside, the module logs, prints, schedules and clips nothing, and ``manual_backward`` only hears the loss.

    With an ``optimizer``, that one is stepped, and gradients are made and clipped.
    """
    heard = Heard()
    module, loggers = trainer.lightning_module, trainer.loggers
    stands = {
        "log": _nothing, "log_dict": _nothing, "print": _nothing,
        "lr_schedulers": _Idle, "lr_scheduler_step": _nothing,
    }  # fmt: skip
    if not module.automatic_optimization:
        stage = Stage(trainer.optimizers[0] if optimizer is None else optimizer, heard, live=optimizer is not None)
        stands |= {"optimizers": lambda use_pl_optimizer=True: stage, "manual_backward": stage.backward,  # noqa: ARG005
                   "toggle_optimizer": _nothing, "untoggle_optimizer": _nothing}  # fmt: skip
        if optimizer is None:
            stands["clip_gradients"] = _nothing
    own = {name: vars(module)[name] for name in stands if name in vars(module)}
    vars(module).update(stands)
    trainer.loggers = [_dummy_logger() for _ in loggers]
    try:
        yield heard
    finally:
        trainer.loggers = loggers
        for name in stands:
            vars(module).pop(name, None)
        vars(module).update(own)


class Stage:
    """The optimizer that a muted ``training_step`` of manual optimization gets: it steps only where it is ``live``."""

    def __init__(self, optimizer: Optimizer, heard: Heard, *, live: bool) -> None:
        self._optimizer, self._heard, self._live = optimizer, heard, live

    def step(self, closure: Callable[[], Any] | None = None, **_: Any) -> None:
        """Run the closure; step."""
        if closure is not None:
            closure()
        self._heard.steps += 1
        if self._live:
            self._optimizer.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Only where it is live."""
        if self._live:
            self._optimizer.zero_grad(set_to_none)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """In place of ``manual_backward``."""
        self._heard.losses.append(loss.detach() if self._live else loss)
        if self._live:
            loss.backward(*args, **kwargs)  # type: ignore[no-untyped-call]

    def toggle_model(self, sync_grad: bool = True) -> contextlib.AbstractContextManager[None]:
        """There is only one optimizer."""
        return contextlib.nullcontext()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._optimizer, name)


def train_step_of(
    trainer: Trainer, base: Optimizer, loss: ModuleLoss, each: int
) -> tuple[Callable[[Any], Any] | None, list[Any]]:
    """A short run's step where it is more than ``backward`` and ``step``, and what else that changes."""
    module = trainer.lightning_module
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    if not module.automatic_optimization and loss.own is None:
        if scaler is not None:
            raise TypeError(
                "A search cannot step a module that optimizes by itself with a GradScaler. Train in bf16-mixed, or "
                "pass loss_fn=lambda module, batch: ... to the callback."
            )
        return _manual_step(trainer, base, loss), []
    kind = lightning().LightningModule
    clips = bool(trainer.gradient_clip_val) or _overrides(module, kind, "configure_gradient_clipping")
    if scaler is None and not (clips and module.automatic_optimization):
        return None, []

    def clip() -> None:
        with muted(trainer):
            module.configure_gradient_clipping(
                base, gradient_clip_val=trainer.gradient_clip_val,
                gradient_clip_algorithm=trainer.gradient_clip_algorithm,
            )  # fmt: skip

    step = whole_step(base, lambda batch: loss(module, batch), each, scaler, clip)
    return step, [] if scaler is None else [scaler]


def _manual_step(trainer: Trainer, base: Optimizer, loss: ModuleLoss) -> Callable[[Any], Tensor]:
    """The module's own step. It counts its minibatches from one optimizer step to the next."""
    seen = [0]

    def step(batch: Any) -> Tensor:
        if all(p.grad is None for p in held_tensors(base)):
            seen[0] = 0  # a short run begins
        with muted(trainer, base) as heard:
            measured = loss.of(batch, seen[0], heard)
            seen[0] = 0 if heard.steps else seen[0] + 1
        return measured.detach()

    return step


def _overrides(module: LightningModule, kind: type, name: str) -> bool:
    return getattr(type(module), name) is not getattr(kind, name)


class _Idle:
    """In place of the schedulers of a module: whatever is called does nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return _nothing

    def __getitem__(self, place: int) -> _Idle:
        return self


def _nothing(*_: Any, **__: Any) -> None:
    pass


def _dummy_logger() -> Any:
    package = lightning().__name__
    return importlib.import_module(f"{package}.loggers.logger").DummyLogger()
