"""Shakespeare's plays character by character: a small GPT on Karpathy's "tiny Shakespeare" (char-rnn).

1,115,394 characters, 65 different ones: the first nine tenths train, the rest test, both cut into blocks that do not
overlap. The network is GPT-2's (Radford et al. 2019): LayerNorm before each part, learned positions, one matrix for
input and output embedding. Not in the paper, and here so that it needs no Transformers library.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from autolr import ExploreExploit
from autolr_lab.workloads.workload import LanguageModel, broken, find_folder, read_file

FILE = "input.txt"
TRAIN = 0.9  # the share of the text that trains
INIT = 0.02  # GPT-2's standard deviation of every weight
ADAPTIVE = ("adam", "adamw", "nadam", "radam", "adamax", "rmsprop")  # their step is about the rate in every weight


@dataclass(frozen=True)
class Sizes:
    """How large a `Gpt` is; 12 layers, 12 heads, width 768 and 20,000 tokens make 100 million parameters."""

    vocabulary: int = 65
    block: int = 128  # [tokens] that it sees at most
    layers: int = 4
    heads: int = 4
    width: int = 128
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads; got {self.width} and {self.heads}.")


class Gpt(nn.Module):
    """Tokens ``(n, t)`` to the logits ``(n, t, vocabulary)`` of the token after each, from those up to it alone."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.token = nn.Embedding(sizes.vocabulary, sizes.width)
        self.position = nn.Embedding(sizes.block, sizes.width)
        self.dropout = nn.Dropout(sizes.dropout)
        self.layers = nn.Sequential(*(_Layer(sizes) for _ in range(sizes.layers)))
        self.norm = nn.LayerNorm(sizes.width)
        self.head = nn.Linear(sizes.width, sizes.vocabulary, bias=False)
        self.head.weight = self.token.weight
        self._initialise(sizes)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.dropout(self.token(tokens) + self.position(places))
        logits: Tensor = self.head(self.norm(self.layers(x)))
        return logits

    def _initialise(self, sizes: Sizes) -> None:
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                # Two parts of each layer add to the stream: it keeps its scale however many layers there are.
                adds = name.endswith("add.weight")
                nn.init.normal_(parameter, std=INIT / math.sqrt(2 * sizes.layers) if adds else INIT)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)


class _Layer(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(sizes.width), _Attention(sizes))
        self.perceptron = nn.Sequential(nn.LayerNorm(sizes.width), _Perceptron(sizes))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        seen: Tensor = x + self.perceptron(x)
        return seen


class _Attention(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.heads, self.p = sizes.heads, sizes.dropout
        self.mix = nn.Linear(sizes.width, 3 * sizes.width)  # query, key, value
        self.add = nn.Linear(sizes.width, sizes.width)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.mix(x).chunk(3, dim=2)
        )  # (n, heads, t, width / heads)
        p = self.p if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=p, is_causal=True)
        added: Tensor = self.dropout(self.add(mixed.transpose(1, 2).flatten(2)))
        return added


class _Perceptron(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.mix = nn.Linear(sizes.width, 4 * sizes.width)
        self.add = nn.Linear(4 * sizes.width, sizes.width)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.dropout(self.add(F.gelu(self.mix(x))))
        return added


def load_shakespeare(data_dir: Path | None) -> tuple[TensorDataset, TensorDataset]:
    """Training and test blocks: tokens ``(n, 128)``, and the tokens that follow each of them.

    A token is the character's place among all the text's characters in Unicode's order.

    Raises:
        MissingDataError: the file is missing, or is another text.
    """
    source = "https://github.com/karpathy/char-rnn (data/tinyshakespeare/input.txt)"
    place = find_folder(data_dir, "Tiny Shakespeare", ("tinyshakespeare", "."), (FILE,), source)
    text = read_file(place, FILE).decode("utf8")
    characters = {character: token for token, character in enumerate(sorted(set(text)))}
    if len(characters) != SIZES.vocabulary:
        raise broken(place / FILE, f"it has {len(characters)} different characters, not {SIZES.vocabulary}")
    tokens = torch.tensor([characters[character] for character in text])
    cut = int(TRAIN * len(tokens))
    return blocks_of(tokens[:cut]), blocks_of(tokens[cut:])


def blocks_of(tokens: Tensor) -> TensorDataset:
    """Blocks of a text that do not overlap, ``(n, 128)``, and the tokens that follow each of theirs."""
    n = (len(tokens) - 1) // SIZES.block  # the last token has none that follows; a short block is left out
    whole = n * SIZES.block
    return TensorDataset(tokens[:whole].view(n, SIZES.block), tokens[1 : whole + 1].view(n, SIZES.block))


SIZES = Sizes()

SHAKESPEARE = LanguageModel(
    name="shakespeare", optimizer="adamw", batch_size=32, epochs=10,
    rates=dict.fromkeys(ADAPTIVE, 1e-3) | {"default": 0.1}, policy=ExploreExploit(), datasets=load_shakespeare,
    model=lambda: Gpt(SIZES),
)  # fmt: skip

SHAKESPEARE_10M = LanguageModel(
    name="shakespeare-10m", optimizer="adamw", batch_size=64, epochs=10, rates=SHAKESPEARE.rates,
    policy=ExploreExploit(), datasets=load_shakespeare,
    model=lambda: Gpt(Sizes(layers=6, heads=6, width=384, dropout=0.2)),
)  # fmt: skip
