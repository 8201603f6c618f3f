"""Losses with rare events and heavy tails, bad data, many tasks, and parameters that are not floats."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from autolr_lab.studies.ruined_runs.case import Setup, endless

TASKS = 10


def rare_positives(steps: int) -> Setup:  # noqa: ARG001
    """One example in 200 is positive and weighs 199; what counts is the share of pairs ranked wrongly, in per cent."""
    generator = torch.Generator().manual_seed(9)
    x = torch.randn(12000, 20, generator=generator)
    way = torch.randn(20, generator=generator)
    told = x @ way / way.norm() + 0.3 * torch.sin(3 * x[:, 0]) + 0.2 * torch.randn(12000, generator=generator)
    y = (told > told.quantile(0.995)).float()
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    weight = torch.tensor(199.0)

    def loss(m: nn.Module, batch: Any) -> Tensor:
        return F.binary_cross_entropy_with_logits(m(batch[0])[:, 0], batch[1], pos_weight=weight)

    def error() -> float:
        with torch.no_grad():
            ranks = model(x[8000:])[:, 0].argsort().argsort().double() + 1
        positive = y[8000:] == 1
        n, rest = int(positive.sum()), int((~positive).sum())
        return 100 * (1 - float(ranks[positive].sum() - n * (n + 1) / 2) / (n * rest))

    return Setup(model, DataLoader(TensorDataset(x[:8000], y[:8000]), 32, shuffle=True), loss, error)


class Denoiser(nn.Module):
    """Tells a point on the plane from its noisy version and the time."""

    frequencies: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(18, 96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU(), nn.Linear(96, 2))
        self.register_buffer("frequencies", 2.0 ** torch.arange(8))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Of noisy points and times."""
        angle = time[:, None] / 100 * self.frequencies
        return self.net(torch.cat([x, angle.sin(), angle.cos()], 1))  # type: ignore[no-any-return]


def diffusion(batch: int) -> Callable[[int], Setup]:
    """Few of the times make most of the loss, and each minibatch draws its own."""

    def make(steps: int) -> Setup:  # noqa: ARG001
        generator = torch.Generator().manual_seed(4)
        turn = torch.rand(4000, generator=generator) * 3 * math.pi
        points = torch.stack([turn * turn.cos(), turn * turn.sin()], 1) / (3 * math.pi)
        points += 0.02 * torch.randn(4000, 2, generator=generator)
        kept = torch.cos(torch.linspace(0, math.pi / 2 - 0.05, 100)) ** 2
        model = Denoiser()

        def loss(m: nn.Module, batch: Any, generator: torch.Generator | None = None) -> Tensor:
            x = batch[0]
            time = torch.randint(0, 100, (len(x),), generator=generator)
            share, noise = kept[time][:, None], torch.randn(x.shape, generator=generator)
            off = m(share.sqrt() * x + (1 - share).sqrt() * noise, time) - x
            return torch.mean(off.square() / (1 - share + 1e-3))

        def error() -> float:
            with torch.no_grad():
                return float(loss(model, (points.repeat(5, 1),), torch.Generator().manual_seed(11)))

        return Setup(model, DataLoader(TensorDataset(points), batch, shuffle=True), loss, error)

    return make


def nan_rows(steps: int) -> Setup:  # noqa: ARG001
    """One row in 2,000 holds a NaN; what counts is the loss on the others."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(8000, 16, generator=generator)
    y = ((x @ torch.randn(16, 4, generator=generator)) + torch.sin(2 * x[:, :4])).argmax(1)
    bad = x.clone()
    bad[::2000, 3] = math.nan
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))

    def loss(m: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(m(batch[0]), batch[1])

    data = DataLoader(TensorDataset(bad, y), 64, shuffle=True)
    return Setup(model, data, loss, lambda: float(loss(model, (x, y)).detach()))


class Frames(nn.Module):
    """Tells the symbol of each frame."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.GRU(12, 32, bidirectional=True), nn.Linear(64, 8)

    def forward(self, x: Tensor) -> Tensor:
        """Log probabilities."""
        return self.out(self.rnn(x)[0]).log_softmax(-1)  # type: ignore[no-any-return]


Spoken = tuple[Tensor, Tensor]  # frames and their symbols


def utterances(*, cut: bool) -> list[Spoken]:
    """800 of them; where ``cut``, one in a hundred has fewer frames than symbols, and no finite loss."""
    rng = np.random.default_rng(0)
    symbols = rng.normal(size=(8, 12))
    made = []
    for i in range(800):
        drawn = rng.integers(1, 8, int(rng.integers(3, 6)))
        told = np.array([s for k, s in enumerate(drawn) if k == 0 or s != drawn[k - 1]])
        frames = np.repeat(symbols[told], 3, axis=0) + 0.8 * rng.normal(size=(3 * len(told), 12))
        if cut and i % 100 == 37:
            frames = frames[:1]
        made.append((torch.tensor(frames, dtype=torch.float32), torch.tensor(told)))
    return made


def collate(items: list[Spoken]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Padded frames, their lengths, all symbols, their lengths."""
    frames, told = zip(*items, strict=True)
    lengths = [torch.tensor([len(part) for part in parts]) for parts in (frames, told)]
    return nn.utils.rnn.pad_sequence(list(frames)), lengths[0], torch.cat(told), lengths[1]


def ctc(steps: int) -> Setup:  # noqa: ARG001
    """One example in a hundred has an infinite loss for ever."""
    model = Frames()

    def loss(m: nn.Module, batch: Any) -> Tensor:
        x, frames, told, symbols = batch
        return F.ctc_loss(m(x), told, frames, symbols)

    def error() -> float:
        with torch.no_grad():
            return float(loss(model, collate(utterances(cut=False))))

    data: DataLoader[Any] = DataLoader(utterances(cut=True), 16, shuffle=True, collate_fn=collate)  # type: ignore[arg-type]
    return Setup(model, data, loss, error)


def squared(model: nn.Module, batch: Any) -> Tensor:
    """Mean squared error of a minibatch."""
    return F.mse_loss(model(batch[0]), batch[1])


def tasks(steps: int) -> Setup:  # noqa: ARG001
    """Ten regressions in one network."""
    way = torch.randn(20, TASKS) / 4
    x = torch.randn(2000, 20)
    y = torch.tanh(x @ way) + 0.05 * torch.randn(2000, TASKS)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, TASKS))

    data = DataLoader(TensorDataset(x, y), 50, shuffle=True)
    return Setup(model, data, squared, lambda: float(squared(model, (x, y)).detach()))


def surgery(setup: Setup, optimizer: Optimizer, after: Callable[[], object], steps: int) -> None:
    """Each task's gradient after a ``zero_grad`` of its own; what points against another's is taken off (PCGrad)."""
    batches, held = endless(setup.data), list(setup.model.parameters())
    for _ in range(steps):
        x, y = next(batches)
        losses, gradients = (setup.model(x) - y).square().mean(0), []
        for task in losses:
            optimizer.zero_grad()
            task.backward(retain_graph=True)
            gradients.append(torch.cat([p.grad.flatten() for p in held if p.grad is not None]))
        total = torch.zeros_like(gradients[0])
        for i in range(TASKS):
            own = gradients[i].clone()
            for j in np.random.permutation(TASKS):  # noqa: NPY002 - as public implementations draw it
                if (against := own @ gradients[j]) < 0:
                    own -= against / (gradients[j] @ gradients[j]) * gradients[j]
            total += own / TASKS
        for p, part in zip(held, torch.split(total, [p.numel() for p in held]), strict=True):
            p.grad = part.view_as(p).clone()
        optimizer.step()
        setup.after()
        after()


class Adapted(nn.Module):
    """A frozen layer of any kind, with a low-rank adapter in float32."""

    def __init__(self, frozen: Tensor) -> None:
        super().__init__()
        self.frozen = nn.Parameter(frozen, requires_grad=False)
        self.down, self.up = nn.Parameter(0.1 * torch.randn(16, 4)), nn.Parameter(torch.zeros(4, 16))

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both."""
        base = self.frozen.float()
        base = base if self.frozen.is_floating_point() else (base - base.mean()) / 500
        return x @ (base + self.down @ self.up)


def frozen(kind: torch.dtype) -> Callable[[int], Setup]:
    """A frozen weight of that kind, handed to the optimizer beside those that train."""

    def make(steps: int) -> Setup:  # noqa: ARG001
        generator = torch.Generator().manual_seed(5)
        x = torch.randn(1000, 16, generator=generator).cumsum(1) / 4
        y = torch.roll(x, 3, 1) * 0.7 + x.diff(dim=1, prepend=x[:, :1])
        weight = torch.randn(16, 16) / 4 if kind.is_floating_point else torch.randint(0, 120, (16, 16))
        model = Adapted(weight.to(kind))

        data = DataLoader(TensorDataset(x, y), 50, shuffle=True)
        return Setup(model, data, squared, lambda: float(squared(model, (x, y)).detach()))

    return make
