"""Classification and regression on rows of a table: linear models and small perceptrons."""

from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autolr_lab.zoo.blocks import classify, mlp, regress
from autolr_lab.zoo.data import digits, drawing, embedded, hold_out
from autolr_lab.zoo.task import Batch, Data, Task, usual

LONG = (300, 2400)  # these steps are cheap


@cache
def wine() -> Data:
    """Three classes of 178 wines."""
    return hold_out(embedded("wine"), 60, "wine")


@cache
def cancer() -> Data:
    """569 tumours, two classes."""
    return hold_out(embedded("breast_cancer"), 190, "cancer")


@cache
def diabetes(scale: float | None = 1.0) -> Data:
    """442 patients; the target's standard deviation is ``scale``, or as it was recorded (some 77) if None."""
    x, y = embedded("diabetes")
    y = y.float()[:, None]
    return hold_out((x, y if scale is None else scale * (y - y.mean()) / y.std()), 142, "diabetes")


@cache
def friedman() -> Data:
    """Friedman's first function of five of ten inputs, with noise."""
    generator = drawing("friedman")
    x = torch.rand(9000, 10, generator=generator)
    y = 10 * (torch.pi * x[:, 0] * x[:, 1]).sin() + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    y = (y - 14.4) / 4.9 + 0.1 * torch.randn(9000, generator=generator)
    return hold_out((x, y[:, None]), 1000, "friedman")


@cache
def teacher(classes: int) -> Data:
    """Gaussian inputs, classified by a random two-layer net."""
    generator = drawing(f"teacher {classes}")
    x = torch.randn(33000, 20, generator=generator)
    hidden = (x @ torch.randn(20, 40, generator=generator) / 20**0.5).relu()
    scores = hidden @ torch.randn(40, classes, generator=generator)
    return hold_out((x, (scores - scores.mean(0)).argmax(1)), 1000, "teacher")


@cache
def noisy_classes(noise: float = 0.3) -> Data:
    """Ten overlapping Gaussian classes; a share ``noise`` of the labels is drawn at random."""
    generator = drawing("noisy classes")
    y = torch.randint(10, (9000,), generator=generator)
    x = torch.randn(10, 20, generator=generator)[y] + 0.8 * torch.randn(9000, 20, generator=generator)
    wrong = torch.rand(9000, generator=generator) < noise
    y = torch.where(wrong, torch.randint(10, (9000,), generator=generator), y)
    return hold_out((x, y), 1000, "noisy classes")


@cache
def rare_class() -> Data:
    """Two classes, one in twenty positive: inside a shell."""
    generator = drawing("rare class")
    x = torch.randn(21000, 12, generator=generator)
    score = (x[:, :6] ** 2).sum(1) - x[:, 6] * x[:, 7] + torch.randn(21000, generator=generator)
    return hold_out((x, (score > score.quantile(0.95)).float()), 1000, "rare class")


@cache
def two_targets() -> Data:
    """A class and a number, from the same hidden features."""
    generator = drawing("two targets")
    x = torch.randn(13000, 16, generator=generator)
    hidden = torch.tanh(x @ torch.randn(16, 24, generator=generator) / 3)
    label = (hidden @ torch.randn(24, 5, generator=generator)).argmax(1)
    number = hidden @ torch.randn(24, 1, generator=generator) / 3
    return hold_out((x, label, number), 1000, "two targets")


def weighted_binary(model: nn.Module, batch: Batch) -> Tensor:
    """Binary cross-entropy in which a positive counts as much as the nineteen negatives beside it."""
    x, y = batch
    return F.binary_cross_entropy_with_logits(model(x)[:, 0], y, pos_weight=torch.tensor(19.0))


def class_and_number(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of the first five outputs plus squared error of the sixth."""
    x, label, number = batch
    out = model(x)
    return F.cross_entropy(out[:, :5], label) + F.mse_loss(out[:, 5:], number)


def huber(model: nn.Module, batch: Batch) -> Tensor:
    """Huber's loss, linear for errors above a half."""
    x, y = batch
    return F.huber_loss(model(x), y, delta=0.5)


table = partial(Task, kind="tabular", horizons=LONG)

TASKS = (
    table(
        name="digits-softmax",
        data=digits,
        build=partial(mlp, 64, 10),
        loss=classify,
        batch_size=32,
        rates=usual(adagrad=1e-2),
    ),
    table(
        name="cancer-logistic",
        data=cancer,
        build=partial(mlp, 30, 2),
        loss=classify,
        batch_size=32,
        rates=usual(),
    ),
    table(
        name="digits-mlp",
        data=digits,
        build=partial(mlp, 64, 64, 10),
        loss=classify,
        batch_size=32,
        rates=usual(momentum=0.1, rmsprop=1e-3),
    ),
    table(
        name="teacher-large-batch",
        data=partial(teacher, 10),
        build=partial(mlp, 20, 64, 64, 10),
        loss=classify,
        batch_size=512,
        rates=usual(momentum=0.1, lion=1e-4),
    ),
    table(
        name="digits-dropout",
        data=digits,
        build=partial(mlp, 64, 128, 64, 10, dropout=0.4),
        loss=classify,
        batch_size=64,
        rates=usual(nadam=1e-3),
    ),
    table(
        name="label-noise",
        data=noisy_classes,
        build=partial(mlp, 20, 64, 32, 10),
        loss=classify,
        batch_size=64,
        rates=usual(),
    ),
    table(
        name="wine-mlp",
        data=wine,
        build=partial(mlp, 13, 16, 3, activation=nn.Tanh),
        loss=classify,
        batch_size=16,
        rates=usual(),
    ),
    table(
        name="cancer-tanh",
        data=cancer,
        build=partial(mlp, 30, 32, 32, 2, activation=nn.Tanh),
        loss=classify,
        batch_size=32,
        rates=usual(rmsprop=1e-3),
    ),
    table(
        name="diabetes-mlp",
        data=diabetes,
        build=partial(mlp, 10, 32, 1),
        loss=regress,
        batch_size=32,
        rates=usual(sgd=0.01),
    ),
    table(
        name="friedman-huber",
        data=friedman,
        build=partial(mlp, 10, 64, 64, 1),
        loss=huber,
        batch_size=64,
        rates=usual(adagrad=1e-2),
    ),
    table(
        name="large-targets",
        data=partial(diabetes, None),
        build=partial(mlp, 10, 32, 1),
        loss=regress,
        batch_size=32,
        rates=usual(sgd=1e-3, momentum=1e-4, adamw=1e-2),
    ),
    table(
        name="tiny-targets",
        data=partial(diabetes, 1e-3),
        build=partial(mlp, 10, 32, 1),
        loss=regress,
        batch_size=32,
        rates=usual(),
    ),
    table(
        name="rare-class",
        data=rare_class,
        build=partial(mlp, 12, 48, 48, 1),
        loss=weighted_binary,
        batch_size=128,
        rates=usual(),
    ),
    table(
        name="two-targets",
        data=two_targets,
        build=partial(mlp, 16, 48, 48, 6, activation=nn.SiLU),
        loss=class_and_number,
        batch_size=64,
        rates=usual(nadam=1e-3),
    ),
    table(
        name="digits-small-batch",
        data=digits,
        build=partial(mlp, 64, 32, 10),
        loss=classify,
        batch_size=4,
        rates=usual(sgd=0.01),
    ),
)
