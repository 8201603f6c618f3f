"""Images: convolutional nets with and without normalisation, an image mixer, counting and segmenting."""

from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autolr_lab.zoo.blocks import Residual, classify, kaiming, mlp, regress
from autolr_lab.zoo.data import drawing, hold_out, shifted_digits
from autolr_lab.zoo.task import Batch, Data, Task, usual


def conv(before: int, after: int, stride: int = 1) -> nn.Conv2d:
    """A 3 by 3 convolution that keeps the size, or halves it."""
    return nn.Conv2d(before, after, 3, stride=stride, padding=1)


def small_conv() -> nn.Module:
    """Two convolutions, each followed by pooling, and a linear layer: for images of 8 by 8."""
    return nn.Sequential(
        conv(1, 12),
        nn.ReLU(),
        nn.MaxPool2d(2),
        conv(12, 24),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(96, 10),
    )


def strided_conv() -> nn.Module:
    """Three convolutions that halve the image, with BatchNorm: for images of 16 by 16."""
    layers: list[nn.Module] = []
    for before, after in ((1, 8), (8, 16), (16, 32)):
        layers += [conv(before, after, stride=2), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 10))


def norm(kind: str, channels: int) -> nn.Module:
    """BatchNorm or GroupNorm."""
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.GroupNorm(4, channels)


def residual_net(kind: str, channels: int = 8) -> nn.Module:
    """A residual net of three blocks on 4 by 4 places, normalised."""
    blocks = [
        Residual(
            nn.Sequential(
                norm(kind, channels),
                nn.ReLU(),
                conv(channels, channels),
                norm(kind, channels),
                nn.ReLU(),
                conv(channels, channels),
            )
        )
        for _ in range(2)
    ]
    head = (norm(kind, channels), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, 10))
    return nn.Sequential(conv(1, channels, stride=2), *blocks, *head)


def plain_conv() -> nn.Module:
    """Five convolutions in a row without normalisation, with He's initial weights."""
    layers: list[nn.Module] = []
    for before, after, stride in ((1, 8, 1), (8, 12, 2), (12, 12, 1), (12, 16, 2), (16, 16, 1)):
        layers += [conv(before, after, stride), nn.ReLU()]
    return kaiming(nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 10)))


class Mixer(nn.Module):
    """An MLP-Mixer: 16 patches of 2 by 2; perceptrons over the patches and over the channels in turn."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, width, 2, stride=2)
        self.over_patches = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(16), mlp(16, 32, 16, activation=nn.GELU)) for _ in range(2)
        )
        self.over_channels = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), mlp(width, 48, width, activation=nn.GELU)) for _ in range(2)
        )
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1, 8, 8) to (n, 10)."""
        x = self.embed(x).flatten(2)
        for over_patches, over_channels in zip(self.over_patches, self.over_channels, strict=True):
            x = x + over_patches(x)
            x = x + over_channels(x.transpose(1, 2)).transpose(1, 2)
        out: Tensor = self.head(x.mean(2))
        return out


@cache
def blobs() -> tuple[Tensor, Tensor, Tensor]:
    """Noisy images of 12 by 12 with zero to five bright discs, the number of discs, and where they are."""
    generator = drawing("blobs")
    count = torch.randint(6, (9000,), generator=generator)
    place = torch.rand(9000, 5, 2, 1, 1, generator=generator) * 10 + 0.5
    axis = torch.arange(12.0)
    distance = (place[:, :, 0] - axis[:, None]) ** 2 + (place[:, :, 1] - axis) ** 2
    inside = (distance < 2.5) & (torch.arange(5) < count[:, None])[:, :, None, None]
    mask = inside.any(1, keepdim=True).float()
    return mask + 0.5 * torch.randn(mask.shape, generator=generator), count[:, None] / 2.0, mask


@cache
def counted_blobs() -> Data:
    """An image, and half the number of its discs."""
    image, count, _ = blobs()
    return hold_out((image, count), 400, "counted blobs")


@cache
def segmented_blobs() -> Data:
    """An image, and for each pixel whether it belongs to a disc."""
    image, _, mask = blobs()
    return hold_out((image, mask), 400, "segmented blobs")


def count_net() -> nn.Module:
    """Two convolutions with BatchNorm, averaged over the places, and a linear layer."""
    layers = (conv(1, 12, stride=2), nn.BatchNorm2d(12), nn.ReLU(), conv(12, 24, stride=2), nn.BatchNorm2d(24))
    return nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 1))


def segment_net() -> nn.Module:
    """Down to a half and up again: one number a pixel."""
    down = (conv(1, 12, stride=2), nn.GELU(), conv(12, 16), nn.GELU())
    return nn.Sequential(*down, nn.ConvTranspose2d(16, 8, 2, stride=2), nn.GELU(), nn.Conv2d(8, 1, 1))


def per_pixel(model: nn.Module, batch: Batch) -> Tensor:
    """Binary cross-entropy of every pixel; one in a disc counts threefold."""
    image, mask = batch
    return F.binary_cross_entropy_with_logits(model(image), mask, pos_weight=torch.tensor(3.0))


picture_task = partial(Task, kind="images")

TASKS = (
    picture_task(
        name="conv-digits",
        data=shifted_digits,
        build=small_conv,
        loss=classify,
        batch_size=32,
        rates=usual(momentum=0.1, rmsprop=1e-3),
    ),
    picture_task(
        name="strided-conv-digits",
        data=partial(shifted_digits, 16),
        build=strided_conv,
        loss=classify,
        batch_size=16,
        rates=usual(momentum=0.1),
    ),
    picture_task(
        name="resnet-batchnorm",
        data=shifted_digits,
        build=partial(residual_net, "batch"),
        loss=classify,
        batch_size=16,
        rates=usual(momentum=0.1, lion=1e-4),
    ),
    picture_task(
        name="resnet-groupnorm",
        data=shifted_digits,
        build=partial(residual_net, "group"),
        loss=classify,
        batch_size=16,
        rates=usual(momentum=0.1),
    ),
    picture_task(
        name="plain-conv-digits",
        data=shifted_digits,
        build=plain_conv,
        loss=classify,
        batch_size=16,
        rates=usual(),
    ),
    picture_task(
        name="mixer-digits",
        data=shifted_digits,
        build=Mixer,
        loss=classify,
        batch_size=16,
        rates=usual(),
    ),
    picture_task(
        name="count-blobs",
        data=counted_blobs,
        build=count_net,
        loss=regress,
        batch_size=32,
        rates=usual(nadam=1e-3),
    ),
    picture_task(
        name="segment-blobs",
        data=segmented_blobs,
        build=segment_net,
        loss=per_pixel,
        batch_size=16,
        rates=usual(),
    ),
)
