"""A plain loop. With AutoLR: two lines, and no scheduler."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import autolr  # +

table = np.loadtxt(Path(__file__).with_name("digits.csv.gz"), delimiter=",", dtype=np.float32)
images, labels = torch.from_numpy(table[:, :64] / 16), torch.from_numpy(table[:, 64]).long()

torch.manual_seed(0)
loader = DataLoader(TensorDataset(images[:1440], labels[:1440]), batch_size=32, shuffle=True)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.AdamW(model.parameters())
epochs = 6


def loss_fn(model, batch):
    inputs, targets = batch
    return F.cross_entropy(model(inputs), targets)


optimizer = autolr.AutoLR(optimizer, model, loss_fn, loader, total_steps=epochs * len(loader))  # +
for _ in range(epochs):
    for batch in loader:
        optimizer.zero_grad()
        loss_fn(model, batch).backward()
        optimizer.step()

print(optimizer.history[0].reason)
print(f"test accuracy {(model(images[1440:]).argmax(1) == labels[1440:]).double().mean():.3f}")
