"""Parts of models, and losses, that tasks of several kinds share."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autolr_lab.zoo.task import Batch


def mlp(*widths: int, activation: type[nn.Module] = nn.ReLU, dropout: float = 0.0) -> nn.Sequential:
    """A multilayer perceptron: linear layers of these widths, an activation between any two."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), activation()]
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers[: -2 if dropout else -1])


def classify(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of a batch of inputs and classes."""
    x, y = batch
    return F.cross_entropy(model(x), y)


def regress(model: nn.Module, batch: Batch) -> Tensor:
    """Mean squared error of a batch of inputs and targets."""
    x, y = batch
    return F.mse_loss(model(x), y)


def next_token(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of the token that follows, at every place of a batch of token rows."""
    (tokens,) = batch
    return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


class Residual(nn.Module):
    """What goes in, plus what a model makes of it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Shape in = shape out."""
        out: Tensor = x + self.inner(x)
        return out


class Attention(nn.Module):
    """Self-attention over tokens of shape (batch, tokens, width); ``causal`` looks back only."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Shape in = shape out."""
        batch, tokens, width = x.shape
        q, k, v = self.project(x).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return out


def transformer_block(width: int, heads: int = 2, causal: bool = False) -> nn.Sequential:
    """Attention and a two-layer perceptron, each on a residual path and normalised before."""
    return nn.Sequential(
        Residual(nn.Sequential(nn.LayerNorm(width), Attention(width, heads, causal))),
        Residual(nn.Sequential(nn.LayerNorm(width), mlp(width, 2 * width, width, activation=nn.GELU))),
    )


def kaiming(model: nn.Module) -> nn.Module:
    """Draw the weights anew with He's variance, which keeps a deep ReLU net's signal; biases zero."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def sinusoids(x: Tensor, waves: int) -> Tensor:
    """A number between 0 and 1, shape (n, 1), as ``2 * waves`` sines and cosines of doubling frequency."""
    angles = x * torch.pi * 2.0 ** torch.arange(waves)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
