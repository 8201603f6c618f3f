"""Attention: small GPTs, a vision transformer on digits, sorting, copying, sets, and sums modulo a prime."""

from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autolr_lab.zoo.blocks import Attention, classify, mlp, next_token, regress, transformer_block
from autolr_lab.zoo.data import drawing, hold_out, shifted_digits
from autolr_lab.zoo.task import Batch, Data, Task, usual
from autolr_lab.zoo.text import character_names, markov


class PostNorm(nn.Module):
    """A transformer block that is normalised after each sum, as the first ones were."""

    def __init__(self, width: int, heads: int = 2, causal: bool = False) -> None:
        super().__init__()
        self.attention = Attention(width, heads, causal)
        self.feed = mlp(width, 2 * width, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])

    def forward(self, x: Tensor) -> Tensor:
        """Shape in = shape out."""
        x = self.norms[0](x + self.attention(x))
        out: Tensor = self.norms[1](x + self.feed(x))
        return out


class TokenTransformer(nn.Module):
    """Embeddings of tokens and places, blocks, and scores for each token at each place."""

    def __init__(self, symbols: int, length: int, width: int, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, width)
        self.place = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.Sequential(*blocks, nn.LayerNorm(width))
        self.head = nn.Linear(width, symbols)
        nn.init.normal_(self.embed.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, length) to (n, length, symbols)."""
        out: Tensor = self.head(self.blocks(self.embed(tokens) + self.place[: tokens.shape[1]]))
        return out


def gpt(symbols: int, length: int = 12, width: int = 32, layers: int = 2) -> nn.Module:
    """A causal transformer, normalised before each part."""
    blocks: list[nn.Module] = [transformer_block(width, causal=True) for _ in range(layers)]
    return TokenTransformer(symbols, length, width, blocks)


def post_norm_gpt(symbols: int, length: int = 12, width: int = 32) -> nn.Module:
    """A causal transformer, normalised after each part."""
    return TokenTransformer(symbols, length, width, [PostNorm(width, causal=True)])


def encoder(symbols: int, length: int, width: int = 32) -> nn.Module:
    """A transformer that sees the whole row."""
    return TokenTransformer(symbols, length, width, [transformer_block(width)])


class VisionTransformer(nn.Module):
    """Sixteen patches of 2 by 2 pixels, two blocks, and the mean of the tokens classified."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, width, 2, stride=2)
        self.place = nn.Parameter(0.02 * torch.randn(16, width))
        self.blocks = nn.Sequential(transformer_block(width), transformer_block(width), nn.LayerNorm(width))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 1, 8, 8) to (n, 10)."""
        out: Tensor = self.head(self.blocks(self.embed(x).flatten(2).transpose(1, 2) + self.place).mean(1))
        return out


class SetNet(nn.Module):
    """A linear embedding, a block of attention without places, and one number from the mean of the set."""

    def __init__(self, inputs: int, width: int = 24) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, width), transformer_block(width))
        self.head = mlp(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, members, inputs) to (n, 1)."""
        out: Tensor = self.head(self.layers(x).mean(1))
        return out


@cache
def rows_to_sort(symbols: int = 10, length: int = 8) -> Data:
    """A row of digits, and the same in order."""
    rows = torch.randint(symbols, (17000, length), generator=drawing("sorting"))
    return hold_out((rows, rows.sort(1).values), 300, "sorting")


@cache
def rows_to_turn(symbols: int = 8, half: int = 6) -> Data:
    """A row of symbols, a sign to turn round (the last symbol), and the same row backwards."""
    rows = torch.randint(symbols, (9000, half), generator=drawing("copying"))
    turn = torch.full((9000, 1), symbols)
    return hold_out((torch.cat([rows, turn, rows.flip(1)], dim=1),), 300, "copying")


@cache
def farthest_pair(members: int = 8) -> Data:
    """Points of the plane, and the largest distance between two of them."""
    points = torch.randn(9000, members, 2, generator=drawing("farthest pair"))
    return hold_out((points, torch.cdist(points, points).amax((1, 2))[:, None] / 2), 300, "farthest pair")


@cache
def modular_sums(prime: int = 13) -> Data:
    """Two numbers, a sign, and their sum modulo a prime; one answer in ten is drawn at random, so it cannot be known.

    All pairs of numbers occur in training: what is held out are draws, not pairs, so that the loss does not wait
    for generalisation to set in, which takes far longer than our runs.
    """
    generator = drawing("modular sums")
    pairs = torch.randint(prime, (17000, 2), generator=generator)
    answer = pairs.sum(1) % prime
    wrong = torch.rand(17000, generator=generator) < 0.1
    answer = torch.where(wrong, torch.randint(prime, (17000,), generator=generator), answer)
    return hold_out((torch.cat([pairs, torch.full((17000, 1), prime)], dim=1), answer), 1000, "modular sums")


def each_place(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of the right token, at every place."""
    tokens, wanted = batch
    return F.cross_entropy(model(tokens).flatten(0, 1), wanted.flatten())


def last_place(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of the answer, at the last place."""
    tokens, answer = batch
    return F.cross_entropy(model(tokens)[:, -1], answer)


def second_half(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of the tokens that can be known: those after the sign to turn round."""
    (tokens,) = batch
    half = tokens.shape[1] // 2
    return F.cross_entropy(model(tokens[:, :-1])[:, half:].flatten(0, 1), tokens[:, half + 1 :].flatten())


attending = partial(Task, kind="attention")

TASKS = (
    attending(
        name="names-gpt",
        data=character_names,
        build=partial(gpt, 29),
        loss=next_token,
        batch_size=16,
        rates={"momentum": 0.01, "adamw": 1e-3, "lion": 1e-4},
    ),
    attending(
        name="markov-post-norm",
        data=markov,
        build=partial(post_norm_gpt, 12),
        loss=next_token,
        batch_size=16,
        rates=usual(),
    ),
    attending(
        name="sorting",
        data=rows_to_sort,
        build=partial(encoder, 10, 8),
        loss=each_place,
        batch_size=16,
        rates=usual(),
    ),
    attending(
        name="copying",
        data=rows_to_turn,
        build=partial(gpt, 9, 12, layers=1),
        loss=second_half,
        batch_size=16,
        rates=usual(),
    ),
    attending(
        name="digits-vit",
        data=shifted_digits,
        build=VisionTransformer,
        loss=classify,
        batch_size=16,
        rates={"momentum": 0.01, "adamw": 1e-3, "nadam": 1e-3},
    ),
    attending(
        name="farthest-pair",
        data=farthest_pair,
        build=partial(SetNet, 2),
        loss=regress,
        batch_size=32,
        rates=usual(),
    ),
    attending(
        name="modular-sums",
        data=modular_sums,
        build=partial(gpt, 14, 3, layers=1),
        loss=last_place,
        batch_size=32,
        rates=usual(),
        horizons=(300, 2400),
    ),
)
