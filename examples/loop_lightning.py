"""Lightning. With AutoLR: an import and a callback; the loss is the module's own training_step."""

from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from autolr.integrations.lightning import AutoLRCallback  # +

table = np.loadtxt(Path(__file__).with_name("digits.csv.gz"), delimiter=",", dtype=np.float32)
images, labels = torch.from_numpy(table[:, :64] / 16), torch.from_numpy(table[:, 64]).long()


class Digits(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch, batch_idx):
        inputs, targets = batch
        loss = F.cross_entropy(self.net(inputs), targets)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())


pl.seed_everything(0)
module, tuned = Digits(), AutoLRCallback()
trainer = pl.Trainer(
    max_epochs=6, accelerator="cpu", logger=False, enable_checkpointing=False,
    callbacks=[tuned],  # +
)  # fmt: skip
trainer.fit(module, DataLoader(TensorDataset(images[:1440], labels[:1440]), batch_size=32, shuffle=True))

print(tuned.optimizer.history[0].reason)
print(f"test accuracy {(module.net(images[1440:]).argmax(1) == labels[1440:]).double().mean():.3f}")
