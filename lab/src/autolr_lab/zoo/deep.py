"""Deep nets without normalisation, and nets that fit a function: sinusoidal ones, Fourier features, an equation."""

import math
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autolr_lab.zoo.blocks import classify, kaiming, mlp, regress, sinusoids
from autolr_lab.zoo.data import digits, drawing, hold_out
from autolr_lab.zoo.task import Batch, Data, Task, usual

LONG = (300, 2400)  # these steps are cheap


def deep_relu(*widths: int) -> nn.Module:
    """A deep ReLU net with He's initial weights."""
    return kaiming(mlp(*widths))


@cache
def teacher_values() -> Data:
    """Numbers that a random deep net gives to Gaussian inputs, standardised."""
    generator = drawing("teacher values")
    x = torch.randn(17000, 16, generator=generator)
    hidden = x
    for _ in range(3):
        hidden = (hidden @ torch.randn(hidden.shape[1], 32, generator=generator) / 4).relu()
    y = hidden @ torch.randn(32, 1, generator=generator)
    return hold_out((x, (y - y.mean()) / y.std()), 1000, "teacher values")


@cache
def spirals() -> Data:
    """Three spirals that are wound into each other, a class each."""
    generator = drawing("spirals")
    y = torch.randint(3, (9000,), generator=generator)
    radius = torch.rand(9000, generator=generator)
    angle = 5 * radius + y * 2 * torch.pi / 3 + 0.15 * torch.randn(9000, generator=generator)
    return hold_out((2 * torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), y), 1000, "spirals")


class Sine(nn.Module):
    """A layer of a sinusoidal net (Sitzmann 2020): sin(30 (Wx + b)), with its initial weights."""

    def __init__(self, before: int, after: int, first: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(before, after)
        bound = 1 / before if first else math.sqrt(6 / before) / 30
        nn.init.uniform_(self.linear.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """(n, before) to (n, after)."""
        return torch.sin(30 * self.linear(x))


def siren(inputs: int, width: int) -> nn.Module:
    """A sinusoidal net of two hidden layers and one output."""
    return nn.Sequential(Sine(inputs, width, first=True), Sine(width, width), nn.Linear(width, 1))


@cache
def picture() -> Data:
    """The brightness of a drawn picture, at random places of the square from -1 to 1."""
    xy = torch.rand(20000, 2, generator=drawing("picture")) * 2 - 1
    x, y = xy[:, :1], xy[:, 1:]
    rings = torch.sin(12 * (x**2 + y**2))
    disc = torch.sigmoid(20 * (0.3 - ((x - 0.3) ** 2 + (y + 0.2) ** 2)))
    return hold_out((xy, rings * (1 - disc) + disc * torch.sin(10 * x)), 2000, "picture")


@cache
def sound() -> Data:
    """A sound of five tones that fades, at random times between -1 and 1."""
    generator = drawing("sound")
    time = torch.rand(9000, 1, generator=generator) * 2 - 1
    tones, phases = 10 + 50 * torch.rand(5, generator=generator), 6 * torch.rand(5, generator=generator)
    return hold_out((time, torch.exp(-time) * torch.sin(time * tones + phases).mean(1, keepdim=True)), 1000, "sound")


@cache
def steps_curve() -> Data:
    """A curve with jumps and waves between 0 and 1, as sines and cosines of the place, with a little noise."""
    generator = drawing("steps")
    x = torch.rand(9000, 1, generator=generator)
    y = torch.sign(torch.sin(9 * x)) * 0.5 + torch.sin(40 * x * x)
    y = y + 0.05 * torch.randn(9000, 1, generator=generator)
    return hold_out((sinusoids(x, 6), y), 1000, "steps")


@cache
def times() -> Data:
    """Moments between 0 and 4 at which an equation has to hold."""
    return hold_out((torch.rand(9000, 1, generator=drawing("times")) * 4,), 1000, "times")


def oscillator(model: nn.Module, batch: Batch) -> Tensor:
    """Residual of the damped, driven oscillator u' = v, v' = -4u - v/2 + cos t from (1, 0).

    Derivatives are central differences, so that the loss can also be taken without gradients.
    """
    (t,) = batch
    h = 0.01
    # The factor t makes the start exact.
    u, before, after = (torch.tensor([1.0, 0.0]) + s * model(s / 2 - 1) for s in (t, t - h, t + h))
    slope = (after - before) / (2 * h)
    wanted = torch.stack([u[:, 1], -4 * u[:, 0] - u[:, 1] / 2 + t[:, 0].cos()], dim=1)
    return F.mse_loss(slope, wanted)


deep = partial(Task, kind="deep", horizons=LONG)

TASKS = (
    deep(
        name="deep-relu-digits",
        data=digits,
        build=partial(deep_relu, 64, *[48] * 8, 10),
        loss=classify,
        batch_size=32,
        rates=usual(lion=1e-4),
    ),
    deep(
        name="deep-relu-teacher",
        data=teacher_values,
        build=partial(deep_relu, 16, *[48] * 6, 1),
        loss=regress,
        batch_size=64,
        rates=usual(sgd=0.01, rmsprop=1e-3),
    ),
    deep(
        name="deep-tanh-spirals",
        data=spirals,
        build=partial(mlp, 2, *[32] * 6, 3, activation=nn.Tanh),
        loss=classify,
        batch_size=64,
        rates=usual(),
    ),
    deep(
        name="deep-default-spirals",
        data=spirals,
        build=partial(mlp, 2, *[64] * 4, 3),
        loss=classify,
        batch_size=128,
        rates=usual(nadam=1e-3),
    ),
    deep(
        name="siren-picture",
        data=picture,
        build=partial(siren, 2, 48),
        loss=regress,
        batch_size=256,
        rates=usual(sgd=0.01, momentum=1e-3, adamw=1e-4),
    ),
    deep(
        name="siren-sound",
        data=sound,
        build=partial(siren, 1, 64),
        loss=regress,
        batch_size=64,
        rates=usual(sgd=0.01, momentum=1e-3, adamw=1e-4),
    ),
    deep(
        name="fourier-curve",
        data=steps_curve,
        build=partial(mlp, 12, 64, 64, 1),
        loss=regress,
        batch_size=64,
        rates=usual(),
    ),
    deep(
        name="oscillator-equation",
        data=times,
        build=partial(mlp, 1, 48, 48, 2, activation=nn.Tanh),
        loss=oscillator,
        batch_size=64,
        rates=usual(sgd=0.01, momentum=1e-3),
    ),
)
