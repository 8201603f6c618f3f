"""Small fits by Lightning whose every bit, and every logged value, can be compared."""

from __future__ import annotations

import warnings
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers.logger import Logger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric

from training_runs import bits

# What Lightning says of fits as small as these, and what a search says that is too short to tell.
NOISE = (
    ".*does not have many workers", ".*ending with epoch", ".*LeafSpec", ".*smaller than the logging interval",
    ".*but have no `val_dataloader`", ".*bf16-true is supported for historical", ".*Checkpoint directory .* exists",
    "AutoLR, step 0: ", ".*find_peak returns the optimizer's own rate", ".*The dirpath has changed",
    "Be aware that when using `ckpt_path`", ".*`dataloader_iter`", "Training ended after 1 of",
)  # fmt: skip


class Kept(Logger):
    """Keeps what is logged, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, str, float]] = []

    @property
    def name(self) -> str:
        return "kept"

    @property
    def version(self) -> str:
        return "0"

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        pass

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows += [(step, name, float(value)) for name, value in metrics.items()]

    def of(self, name: str) -> list[float]:
        return [value for _, key, value in self.rows if key == name]


class Net(pl.LightningModule):
    """Dropout, BatchNorm, a metric with a state, a count of its own, and everything logged."""

    def __init__(self, make: Any = None, scheduler: Any = None) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.net = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
        self.mean, self.calls, self.outputs = MeanMetric(), 0, []
        self.make = make or (lambda parameters: torch.optim.AdamW(parameters, lr=1e-3))
        self.scheduler = scheduler

    def loss(self, batch: Any) -> torch.Tensor:
        inputs, labels = batch
        return F.cross_entropy(self.net(inputs), labels)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch)
        self.calls += 1
        self.mean(loss.detach().float())
        self.outputs.append(loss.item())
        self.log("loss", loss, prog_bar=True)
        self.log("epoch_loss", loss, on_step=False, on_epoch=True)
        self.log("mean", self.mean, on_step=True, on_epoch=True)
        self.log_dict({"calls": float(self.calls), "seen": float(len(self.outputs))})
        self.logger.log_metrics({"by hand": loss.item()}, step=self.global_step)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val", self.loss(batch))

    def configure_optimizers(self) -> Any:
        optimizer = self.make(self.parameters())
        return optimizer if self.scheduler is None else ([optimizer], [self.scheduler(optimizer)])


class Manual(Net):
    """Optimizes by itself, a step after every few minibatches."""

    def __init__(self, each: int = 1, **settings: Any) -> None:
        super().__init__(**settings)
        self.automatic_optimization, self.each = False, each

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        loss = super().training_step(batch, batch_idx)
        self.manual_backward(loss / self.each)
        if (batch_idx + 1) % self.each == 0:
            self.clip_gradients(optimizer, gradient_clip_val=5.0, gradient_clip_algorithm="norm")
            optimizer.step()
            optimizer.zero_grad()


def data(examples: int = 160, seed: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(examples, 6, generator=generator)
    return TensorDataset(inputs, (inputs[:, :3] + 0.3 * torch.randn(examples, 3, generator=generator)).argmax(1))


def loader(batch: int = 16, **settings: Any) -> DataLoader[Any]:
    return DataLoader(data(), batch_size=batch, **settings)


class SeedEachStep(pl.Callback):
    """A resumed fit has the random numbers of the uninterrupted one: Lightning's checkpoints hold none."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        torch.manual_seed(1000 * trainer.current_epoch + batch_idx)


class Rates(pl.Callback):
    """The rate of every optimizer step, read as the optimizer takes it."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.optimizer = optimizer

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.rates.append(float(trainer.optimizers[0].param_groups[0]["lr"]))


def fit(
    module: pl.LightningModule, *callbacks: pl.Callback, epochs: int = 2, seed: int = 0, train: Any = None,
    ckpt_path: Any = None, validate: bool = True, **settings: Any,
) -> tuple[pl.Trainer, Kept]:  # fmt: skip
    pl.seed_everything(seed, verbose=False)
    logger = Kept()
    saves = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    settings = {"max_epochs": epochs, "enable_checkpointing": saves} | settings
    with warnings.catch_warnings():
        for text in NOISE:
            warnings.filterwarnings("ignore", message=text)
        trainer = pl.Trainer(
            accelerator="cpu", logger=logger, enable_progress_bar=False, enable_model_summary=False,
            log_every_n_steps=1, callbacks=[SeedEachStep(), *callbacks], **settings,
        )  # fmt: skip
        trainer.fit(
            module,
            loader(shuffle=True) if train is None else train,
            loader() if validate else None,
            ckpt_path=ckpt_path,
        )
    return trainer, logger


def print_of(module: pl.LightningModule, trainer: pl.Trainer) -> dict[str, str]:
    """Parameters, buffers and the optimizer's state."""
    found = {name: bits(value) for name, value in module.state_dict().items()}
    state = trainer.optimizers[0].state_dict()
    return found | {"optimizer": bits({k: v for k, v in state.items() if k != "autolr"})}
