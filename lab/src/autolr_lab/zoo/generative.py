"""Models that make data: autoencoders, variational ones, diffusion and flows. All draw noise in their loss."""

from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autolr_lab.zoo.blocks import mlp, sinusoids
from autolr_lab.zoo.data import digits, drawing, hold_out, shifted_digits
from autolr_lab.zoo.task import Batch, Data, Task, usual


def reconstruct(model: nn.Module, batch: Batch) -> Tensor:
    """Squared error between what goes in and what comes out."""
    return F.mse_loss(model(batch[0]), batch[0])


def denoise(model: nn.Module, batch: Batch) -> Tensor:
    """Squared error between the image and what the model makes of it with noise added."""
    return F.mse_loss(model(batch[0] + 0.4 * torch.randn_like(batch[0])), batch[0])


def conv_autoencoder() -> nn.Module:
    """Down to 4 by 4 places and up again, for images of 8 by 8."""
    down = (nn.Conv2d(1, 12, 3, stride=2, padding=1), nn.GELU(), nn.Conv2d(12, 16, 3, padding=1), nn.GELU())
    return nn.Sequential(*down, nn.ConvTranspose2d(16, 12, 2, stride=2), nn.GELU(), nn.Conv2d(12, 1, 3, padding=1))


class Variational(nn.Module):
    """A variational autoencoder: an encoder to means and log variances, a decoder from a draw."""

    def __init__(self, inputs: int, width: int, code: int) -> None:
        super().__init__()
        self.encode = mlp(inputs, width, 2 * code)
        self.decode = mlp(code, width, inputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What comes out of a draw of the code, and the code's means and log variances."""
        mean, log_variance = self.encode(x).chunk(2, dim=1)
        code = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return self.decode(code), mean, log_variance


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """How far the code is from a standard normal one: Kullback-Leibler, mean over the batch."""
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean()


def binary_bound(model: nn.Module, batch: Batch) -> Tensor:
    """The negative evidence lower bound per pixel, for values between 0 and 1."""
    x = batch[0]
    out, mean, log_variance = model(x)
    per_row = F.binary_cross_entropy_with_logits(out, x, reduction="none").sum(1).mean()
    return (per_row + divergence(mean, log_variance)) / x.shape[1]


def gaussian_bound(model: nn.Module, batch: Batch) -> Tensor:
    """The negative evidence lower bound for Gaussian errors of standard deviation .3, without its constant."""
    x = batch[0]
    out, mean, log_variance = model(x)
    squares: Tensor = (out - x).square().sum(1).mean()
    return squares / (2 * 0.3**2) + divergence(mean, log_variance)


@cache
def moons() -> Data:
    """Two interleaved half circles in the plane, with noise."""
    generator = drawing("moons")
    angle, noise = torch.rand(17000, generator=generator) * torch.pi, torch.randn(17000, 2, generator=generator)
    upper = torch.rand(17000, generator=generator) < 0.5
    x = torch.where(upper, angle.cos(), 1 - angle.cos()) - 0.5
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin()) - 0.25
    return hold_out((1.3 * torch.stack([x, 2 * y], dim=1) + 0.05 * noise,), 2000, "moons")


@cache
def ring_signals() -> Data:
    """Signals of 24 places that a point on a ring makes: a low-dimensional surface, bent."""
    generator = drawing("ring signals")
    angle = 2 * torch.pi * torch.rand(9000, 1, generator=generator)
    size = 0.5 + torch.rand(9000, 1, generator=generator)
    place = torch.arange(24) / 4
    clean = size * torch.sin(place + angle) + torch.cos(2 * place - angle) / 2
    return hold_out((clean + 0.1 * torch.randn(9000, 24, generator=generator),), 1000, "ring signals")


class TimedNet(nn.Module):
    """A perceptron of a point and a moment between 0 and 1."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.layers = mlp(inputs + 8, width, width, inputs, activation=nn.SiLU)

    def forward(self, x: Tensor, moment: Tensor) -> Tensor:
        """(n, inputs) and (n, 1) to (n, inputs)."""
        out: Tensor = self.layers(torch.cat([x, sinusoids(moment, 4)], dim=1))
        return out


def predict_noise(model: nn.Module, batch: Batch) -> Tensor:
    """Diffusion: squared error of the noise in an example, at a random moment of a cosine schedule."""
    x, moment, noise = batch[0], torch.rand(len(batch[0]), 1), torch.randn_like(batch[0])
    angle = moment * torch.pi / 2
    return F.mse_loss(model(angle.cos() * x + angle.sin() * noise, moment), noise)


def match_flow(model: nn.Module, batch: Batch) -> Tensor:
    """Flow matching: squared error of the velocity on straight lines from noise to the examples."""
    x, moment, noise = batch[0], torch.rand(len(batch[0]), 1), torch.randn_like(batch[0])
    return F.mse_loss(model(noise + moment * (x - noise), moment), x - noise)


@cache
def centred_digits() -> Data:
    """Shifted digits, flat, between about -1 and 1."""
    found = shifted_digits()
    return Data((found.train[0].flatten(1) * 2 - 1,), (found.held_out[0].flatten(1) * 2 - 1,))


generating = partial(Task, kind="generative")

TASKS = (
    generating(
        name="digits-autoencoder",
        data=digits,
        build=partial(mlp, 64, 48, 8, 48, 64),
        loss=reconstruct,
        batch_size=32,
        rates=usual(rmsprop=1e-3),
        horizons=(300, 2400),
    ),
    generating(
        name="denoising-autoencoder",
        data=shifted_digits,
        build=conv_autoencoder,
        loss=denoise,
        batch_size=32,
        rates=usual(),
    ),
    generating(
        name="digits-vae",
        data=digits,
        build=partial(Variational, 64, 64, 4),
        loss=binary_bound,
        batch_size=64,
        rates=usual(),
    ),
    generating(
        name="rings-vae",
        data=ring_signals,
        build=partial(Variational, 24, 48, 3),
        loss=gaussian_bound,
        batch_size=64,
        rates=usual(sgd=0.01, momentum=1e-3, nadam=1e-3),
    ),
    generating(
        name="moons-diffusion",
        data=moons,
        build=partial(TimedNet, 2, 64),
        loss=predict_noise,
        batch_size=128,
        rates=usual(),
    ),
    generating(
        name="digits-diffusion",
        data=centred_digits,
        build=partial(TimedNet, 64, 96),
        loss=predict_noise,
        batch_size=64,
        rates=usual(lion=1e-4),
    ),
    generating(
        name="moons-flow",
        data=moons,
        build=partial(TimedNet, 2, 48),
        loss=match_flow,
        batch_size=64,
        rates=usual(),
    ),
)
