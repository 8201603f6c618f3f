"""ResNet-50 (He et al. 2015) and thinner ones of the same make, for ImageNet.

The variant that everybody trains, torchvision's (v1.5): a block halves the image in its 3 x 3 convolution, not in the
first 1 x 1. Here because torchvision's own has no thinner stem.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EXPANSION = 4  # a block gives so many times the channels that its 3 x 3 convolution has


class ResNet(nn.Module):
    """Images ``(n, 3, side, side)`` -> scores ``(n, classes)``; the side is best a multiple of 32.

    Args:
        blocks: in each of the four stages; each stage but the first halves the image.
        width: channels of the stem and of the first stage's 3 x 3 convolutions; each stage doubles them.
        classes: to tell apart.
    """

    def __init__(self, blocks: Sequence[int], width: int, classes: int) -> None:
        super().__init__()
        self.conv1 = _convolution(3, width, 7, 2)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        outs = [EXPANSION * width * 2**stage for stage in range(4)]
        ins = [width, *outs]
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(
                *(
                    Bottleneck(outs[stage] if block else ins[stage], outs[stage], 1 if block or not stage else 2)
                    for block in range(blocks[stage])
                )
            )
            for stage in range(4)
        )
        self.fc = nn.Linear(outs[-1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # He et al. 2015b, over the outputs
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        scores: Tensor = self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return scores


class Bottleneck(nn.Module):
    """1 x 1 to a quarter of the channels, 3 x 3 with the stride, 1 x 1 back, and the input added."""

    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        width = outs // EXPANSION
        self.conv1 = _convolution(ins, width, 1, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _convolution(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _convolution(width, outs, 1, 1)
        self.bn3 = nn.BatchNorm2d(outs)
        same = ins == outs and stride == 1
        self.downsample = None if same else nn.Sequential(_convolution(ins, outs, 1, stride), nn.BatchNorm2d(outs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


def _convolution(ins: int, outs: int, side: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(ins, outs, side, stride, side // 2, bias=False)


resnet50 = functools.partial(ResNet, (3, 4, 6, 3), 64)
