"""Accelerate. With AutoLR: `prepare` in the place of accelerator.prepare, and no scheduler."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from autolr.integrations.accelerate import prepare  # +

table = np.loadtxt(Path(__file__).with_name("digits.csv.gz"), delimiter=",", dtype=np.float32)
images, labels = torch.from_numpy(table[:, :64] / 16), torch.from_numpy(table[:, 64]).long()

torch.manual_seed(0)
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
loader = DataLoader(TensorDataset(images[:1440], labels[:1440]), batch_size=16, shuffle=True)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.AdamW(model.parameters())
epochs = 6


def loss_fn(model, batch):
    inputs, targets = batch
    return F.cross_entropy(model(inputs), targets)


model, optimizer, loader = prepare(accelerator, model, optimizer, loader, loss_fn, epochs=epochs)  # +
for _ in range(epochs):
    for batch in loader:
        with accelerator.accumulate(model):
            accelerator.backward(loss_fn(model, batch))
            optimizer.step()
            optimizer.zero_grad()

print(optimizer.optimizer.history[0].reason)
print(f"test accuracy {(model(images[1440:]).argmax(1) == labels[1440:]).double().mean():.3f}")
