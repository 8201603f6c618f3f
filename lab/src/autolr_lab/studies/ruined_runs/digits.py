"""Classifiers of scikit-learn's digits: plain and deep ReLU nets, and what happens to them while they train."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, TensorDataset

from autolr_lab.studies.ruined_runs.case import Setup, cosine, endless, momentum, train

TRAINING = 1300  # of 1797 images; the rest tests
LATE = 0.7  # of the run, where something goes wrong "in the second half"


def images() -> tuple[Tensor, Tensor]:
    """All of them and their digits."""
    digits = load_digits()
    return torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)


def relu_net(hidden: int = 1, width: int = 64) -> nn.Sequential:
    """With so many layers beyond the first, without normalisation."""
    sizes = [64] + [width] * hidden
    layers = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def cross_entropy(model: nn.Module, batch: Any) -> Tensor:
    """Of a minibatch."""
    return F.cross_entropy(model(batch[0]), batch[1])


def classifier(hidden: int = 1, scale: float = 1.0, batch: int = 32) -> Callable[[int], Setup]:
    """A ReLU net on digits, its loss in other units by ``scale``; what counts is the test error in per cent."""

    def make(steps: int) -> Setup:  # noqa: ARG001
        x, y = images()
        model = relu_net(hidden)
        data = DataLoader(TensorDataset(x[:TRAINING], y[:TRAINING]), batch, shuffle=True)
        return Setup(model, data, lambda m, b: scale * cross_entropy(m, b), lambda: test_error(model))

    return make


def test_error(model: nn.Module) -> float:
    """Share of the images that it takes for another digit, in per cent."""
    x, y = images()
    with torch.no_grad():
        return 100 * float((model(x[TRAINING:]).argmax(1) != y[TRAINING:]).float().mean())


test_error.__test__ = False  # type: ignore[attr-defined]


def resumed(steps: int) -> Setup:  # noqa: ARG001
    """A net that was trained to the end before, on labels of which a quarter are wrong; what counts is its loss."""
    x, y = (part[:TRAINING] for part in images())
    generator = torch.Generator().manual_seed(3)
    wrong = torch.rand(TRAINING, generator=generator) < 0.3
    y = torch.where(wrong, torch.randint(0, 10, (TRAINING,), generator=generator), y)
    model = relu_net(width=32)
    data = DataLoader(TensorDataset(x, y), 16, shuffle=True)
    setup = Setup(model, data, cross_entropy, lambda: float(cross_entropy(model, (x, y)).detach()))
    optimizer = momentum(model.parameters(), 0.05)
    train(setup, optimizer, cosine(optimizer, 400).step, 400)
    return setup


def averaged(steps: int) -> Setup:
    """A deep net whose weights are averaged beside training; what counts is the average's test error."""
    setup = classifier(hidden=4)(steps)
    average = AveragedModel(setup.model, avg_fn=lambda kept, new, _: kept.lerp(new, 0.01))
    setup.after = lambda: average.update_parameters(setup.model)
    setup.error = lambda: test_error(average.module)
    return setup


def changed(change: Callable[[nn.Sequential], object]) -> Callable[[int], Setup]:
    """A model that gets new parameters and buffers at 30 % of the run."""

    def make(steps: int) -> Setup:
        setup = classifier(hidden=2)(steps)
        model = setup.model
        assert isinstance(model, nn.Sequential)
        setup.events[int(0.3 * steps)] = lambda: change(model)
        return setup

    return make


def pruned(model: nn.Sequential) -> None:
    """Four fifths of two layers' weights are masked."""
    for layer in (model[0], model[2]):
        prune.l1_unstructured(layer, "weight", 0.8)  # type: ignore[no-untyped-call]


def spectral(model: nn.Sequential) -> None:
    """A layer's weights are divided by their largest singular value."""
    parametrizations.spectral_norm(model[2])


def second_objective(steps: int) -> Setup:
    """A term is added to the loss at 30 % of the run, and doubles it or more."""
    setup, weight = classifier(hidden=2)(steps), [0.0]

    def loss(model: nn.Module, batch: Any) -> Tensor:
        assert isinstance(model, nn.Sequential)
        hidden: Tensor = model[:-1](batch[0])
        return cross_entropy(model[-1], (hidden, batch[1])) + weight[0] * (0.5 + hidden.square().mean())

    setup.loss = loss
    setup.events[int(0.3 * steps)] = lambda: weight.__setitem__(0, 3.0)
    return setup


def poisoned(steps: int) -> Setup:
    """One gradient is NaN in the second half of the run, and the loop steps with it."""
    setup = classifier()(steps)
    setup.skips = False
    first = next(setup.model.parameters())

    poisoned = [False]

    def poison(gradient: Tensor) -> Tensor:
        poisoned[0], bad = False, poisoned[0]
        return gradient * torch.nan if bad else gradient

    first.register_hook(poison)  # type: ignore[no-untyped-call]
    setup.events[int(LATE * steps)] = lambda: poisoned.__setitem__(0, True)
    return setup


def accumulating(setup: Setup, optimizer: Optimizer, after: Callable[[], object], steps: int) -> None:
    """The gradients of four minibatches make a step."""
    batches = endless(setup.data)
    for _ in range(steps):
        optimizer.zero_grad()
        for _ in range(4):
            (setup.loss(setup.model, next(batches)) / 4).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        setup.after()
        after()


def scheduled(setup: Setup, optimizer: Optimizer, after: Callable[[], object], steps: int) -> None:
    """The user's own scheduler steps the same optimizer, whoever else sets its rate."""
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, max(1, steps // 3))
    setup.after = scheduler.step
    train(setup, optimizer, after, steps)
