"""Transformers. With AutoLR: an import, and AutoLRTrainer in the place of Trainer."""

import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import TrainingArguments

from autolr.integrations.transformers import AutoLRTrainer  # +

table = np.loadtxt(Path(__file__).with_name("digits.csv.gz"), delimiter=",", dtype=np.float32)
images, labels = torch.from_numpy(table[:, :64] / 16), torch.from_numpy(table[:, 64]).long()


class Digits(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, images, labels=None):
        logits = self.net(images)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


torch.manual_seed(0)
train = [{"images": x, "labels": y} for x, y in zip(images[:1440], labels[:1440], strict=True)]
args = TrainingArguments(
    tempfile.mkdtemp(), num_train_epochs=6, per_device_train_batch_size=32, learning_rate=1e-3, use_cpu=True,
    save_strategy="no", report_to="none",
)  # fmt: skip
trainer = AutoLRTrainer(Digits(), args, train_dataset=train)  # +
trainer.train()

print(trainer.optimizer.optimizer.history[0].reason)
print(f"test accuracy {(trainer.model.net(images[1440:]).argmax(1) == labels[1440:]).double().mean():.3f}")
