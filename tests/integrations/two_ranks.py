"""Run by each of two ranks: trains by one framework and prints what it came to."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

sys.path += [str(Path(__file__).parents[1])]
warnings.simplefilter("ignore")


def by_lightning() -> tuple[Any, Any]:
    import lightning.pytorch as pl
    from lightning_runs import Net, loader

    from autolr.integrations.lightning import AutoLRCallback

    class Shared(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = self.loss(batch)
            self.log("loss", loss, sync_dist=True)
            return loss

    module, callback = Shared(), AutoLRCallback()
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=8, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, callbacks=[callback],
    )  # fmt: skip
    trainer.fit(module, loader(shuffle=True))
    return module, callback.optimizer


def by_accelerate() -> tuple[Any, Any]:
    from accelerate import Accelerator
    from test_accelerate import loader, loss_fn, make, train

    import autolr.integrations.accelerate as ours

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    parts = ours.prepare(accelerator, *make(), loader(), loss_fn, epochs=8)
    train(accelerator, *parts, epochs=8)
    return parts[0], parts[1].optimizer


def by_transformers() -> tuple[Any, Any]:
    from trainer_runs import train

    from autolr.integrations.transformers import AutoLRTrainer

    trainer = train(AutoLRTrainer, tempfile.mkdtemp(), num_train_epochs=8)
    return trainer.model, trainer.optimizer.optimizer


if __name__ == "__main__":
    torch.set_num_threads(1)
    model, optimizer = {"lightning": by_lightning, "accelerate": by_accelerate, "transformers": by_transformers}[
        sys.argv[1]
    ]()
    found = {
        "steps": optimizer.steps_taken, "total": optimizer.total_steps, "lr": optimizer.history[0].lr_after,
        "weights": [float(p.double().sum()) for p in model.parameters()],
    }  # fmt: skip
    rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))
    Path(sys.argv[2], f"{rank}.json").write_text(json.dumps(found))
