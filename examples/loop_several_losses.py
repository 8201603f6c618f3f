"""Several losses and a GradScaler of one's own: find_peak is told the loop's step, and the loop keeps its scheduler."""

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
model = nn.ModuleDict({"body": nn.Linear(64, 32), "digit": nn.Linear(32, 10), "image": nn.Linear(32, 64)})
optimizer = torch.optim.AdamW(model.parameters())
scaler = torch.amp.GradScaler("cpu")
epochs = 6


def loss_fn(model, batch):  # what progress is measured by: the sum, as it is trained
    inputs, targets = batch
    hidden = model["body"](inputs).relu()
    return F.cross_entropy(model["digit"](hidden), targets) + F.mse_loss(model["image"](hidden), inputs)


def train_step(batch):
    optimizer.zero_grad()
    loss = loss_fn(model, batch)
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
    return loss


total = epochs * len(loader)
peak = autolr.find_peak(model, optimizer, loss_fn, loader, total, train_step=train_step, also=[scaler])  # +
scheduler = peak.scheduler(optimizer)  # +
for _ in range(epochs):
    for batch in loader:
        train_step(batch)
        scheduler.step()

print(peak)
guessed = model["digit"](model["body"](images[1440:]).relu()).argmax(1)
print(f"test accuracy {(guessed == labels[1440:]).double().mean():.3f}")
