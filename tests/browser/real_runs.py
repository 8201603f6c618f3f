"""Short runs of a small network on the 8x8 digits, as their logs and points tell them."""

import gzip
import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import autolr

HOSTILE = "</script><b>$x_1"  # a name


def loss_fn(model, batch):
    images, labels = batch
    return F.cross_entropy(model(images), labels)


def load(examples):
    with gzip.open(examples / "digits.csv.gz", "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    images, labels = torch.from_numpy(table[:, :64]) / 16, torch.from_numpy(table[:, 64]).long()
    return TensorDataset(images[:-360], labels[:-360]), (images[-360:], labels[-360:])


def run(folder, data, policy, make, epochs):
    """One run; its log, and its losses each ten steps and each epoch as points."""
    torch.manual_seed(0)
    train, test = data
    loader = DataLoader(train, batch_size=32, shuffle=True)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = base = make(model.parameters())
    folder.mkdir(parents=True)
    if policy is not None:
        trace = folder / "decisions.jsonl"
        optimizer = autolr.AutoLR(base, model, loss_fn, loader, epochs * len(loader), policy=policy, trace=trace)
    step, recent, points = 0, [], []
    for _ in range(epochs):
        for batch in loader:
            optimizer.zero_grad()
            loss = loss_fn(model, batch)
            loss.backward()
            optimizer.step()
            step += 1
            recent.append(loss.item())
            if step % 10 == 0:
                points.append({"step": step, "lr": base.param_groups[0]["lr"], "loss": known(sum(recent[-10:]) / 10)})
        with torch.no_grad():
            told = model(test[0])
        accuracy = float((told.argmax(1) == test[1]).double().mean())
        mean = known(sum(recent[-len(loader) :]) / len(loader))
        loss = known(float(F.cross_entropy(told, test[1])))
        points.append({"step": step, "train_loss": mean, "test_loss": loss, "test_accuracy": accuracy})
    (folder / "points.jsonl").write_text("".join(json.dumps(point) + "\n" for point in points))


def known(value):
    return value if math.isfinite(value) else None


def make_runs(folder):
    data = load(Path(autolr.__file__).parents[2] / "examples")

    def adamw(params):
        return torch.optim.AdamW(params, lr=1e-3)

    def sgd(params):
        return torch.optim.SGD(params, lr=0.05, momentum=0.9)

    def bold(params):  # so much that a rise has to be rolled back
        return torch.optim.SGD(params, lr=1.0, momentum=0.95)

    kept = {"validation_eps": (-0.4, 0.4), "window": 30, "overhead": 0.5}
    run(folder / "AdamW, PeakSearch", data, autolr.PeakSearch(), adamw, 20)
    explore = autolr.ExploreExploit(explore=0.5, saturation=2.0, factor=4.0, epsilon=0.5, **kept)
    run(folder / "SGD, ExploreExploit", data, explore, bold, 12)
    run(folder / "SGD, Monitor", data, autolr.Monitor(window=40), sgd, 8)
    run(folder / "untuned", data, None, adamw, 8)
