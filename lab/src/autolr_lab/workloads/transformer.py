"""The encoder-decoder Transformer (Vaswani et al. 2017), as fairseq's ``transformer_iwslt_de_en`` sets it up.

LayerNorm after each part; sines and cosines for positions; embeddings scaled by the root of the width, the decoder's
one matrix for input and output; Xavier's initial weights; dropout on the embeddings and on what each part adds, and
not, as in torch's own layers, on attention weights and inside the perceptron too. Torch's decoder layer also keeps
nothing of the tokens that it has seen, which a search for the best translation needs.

Sentences of a minibatch end at different places: what is beyond an end is `PAD`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autolr_lab.workloads.beam_search import PAD

LONGEST_WAVE = 10_000  # [positions / 2 pi] of the sines


@dataclass(frozen=True)
class Sizes:
    """How large a `Transformer` is: those of fairseq's ``transformer_iwslt_de_en``, with a joint vocabulary."""

    vocabulary: int = 10_000
    layers: int = 6  # of the encoder, and as many of the decoder
    heads: int = 4
    width: int = 512
    inner: int = 1024  # width of the perceptrons
    dropout: float = 0.3

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width must be even and a multiple of heads; got {self.width} and {self.heads}.")


Remembered = tuple[Tensor, Tensor]  # keys and values (n, heads, t, width / heads)


class Transformer(nn.Module):
    """Source tokens ``(n, s)`` and target tokens ``(n, t)`` to the logits ``(n, t, vocabulary)`` of what follows each.

    A target token sees those up to it, and the whole source. `PAD` stands only after a sentence's end.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.scale = math.sqrt(sizes.width)
        self.source = nn.Embedding(sizes.vocabulary, sizes.width)
        self.target = nn.Embedding(sizes.vocabulary, sizes.width)  # and the output's
        self.dropout = nn.Dropout(sizes.dropout)
        self.encoder = nn.ModuleList(_EncoderLayer(sizes) for _ in range(sizes.layers))
        self.decoder = nn.ModuleList(_DecoderLayer(sizes) for _ in range(sizes.layers))
        self._initialise()

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask, encoded = self._encode(source)
        x = self._embed(self.target, target)
        for layer in self.decoder:
            x = layer(x, encoded, mask)
        return F.linear(x, self.target.weight)

    def decode(self, source: Tensor) -> _Decoding:
        """Begin to translate a minibatch of sentences ``(n, s)``."""
        return _Decoding(self, *self._encode(source))

    def _encode(self, source: Tensor) -> tuple[Tensor, Tensor]:
        mask = (source != PAD)[:, None, None, :]  # as attention takes it: (n, heads, asking, s)
        x = self._embed(self.source, source)
        for layer in self.encoder:
            x = layer(x, mask)
        return mask, x

    def _embed(self, embedding: nn.Embedding, tokens: Tensor, first: int = 0) -> Tensor:
        """Embeddings of tokens that stand at ``first`` and after it."""
        x = self.scale * embedding(tokens)
        places = torch.arange(first, first + tokens.shape[-1], device=x.device, dtype=x.dtype)
        embedded: Tensor = self.dropout(x + waves(places, x.shape[-1]))
        return embedded

    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif name in {"source.weight", "target.weight"}:
                nn.init.normal_(parameter, std=1 / self.scale)
            elif parameter.ndim > 1:  # query, key and value count as one matrix of three outputs
                into_heads = name.endswith(("query.weight", "key.weight", "value.weight"))
                nn.init.xavier_uniform_(parameter, gain=1 / math.sqrt(2) if into_heads else 1)


def waves(places: Tensor, width: int) -> Tensor:
    """Positions ``(t,)`` as sines and then cosines of waves from 2 pi to 10,000 times that ``(t, width)``.

    Differs from Vaswani et al. in the order of the columns alone, which no weight knows.
    """
    lengths = LONGEST_WAVE ** (torch.arange(0, width, 2, device=places.device, dtype=places.dtype) / width)
    angles = places.unsqueeze(1) / lengths
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class _EncoderLayer(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.itself, self.perceptron = _Attention(sizes), _Perceptron(sizes)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        seen: Tensor = self.perceptron(self.itself(x, self.itself.remember(x), mask=mask))
        return seen


class _DecoderLayer(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.itself, self.across, self.perceptron = _Attention(sizes), _Attention(sizes), _Perceptron(sizes)

    def forward(self, x: Tensor, encoded: Tensor, mask: Tensor) -> Tensor:
        # No mask of padding here: it comes after every token that counts.
        x = self.itself(x, self.itself.remember(x), causal=True)
        seen: Tensor = self.perceptron(self.across(x, self.across.remember(encoded), mask=mask))
        return seen


class _Attention(nn.Module):
    """From what asks ``(n, q, width)`` over what is remembered; added, and normalised after."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.query = nn.Linear(sizes.width, sizes.width)
        self.key = nn.Linear(sizes.width, sizes.width)
        self.value = nn.Linear(sizes.width, sizes.width)
        self.add = nn.Linear(sizes.width, sizes.width)
        self.dropout = nn.Dropout(sizes.dropout)
        self.norm = nn.LayerNorm(sizes.width)

    def remember(self, seen: Tensor) -> Remembered:
        return self._split(self.key(seen)), self._split(self.value(seen))

    def forward(self, x: Tensor, seen: Remembered, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        mixed = F.scaled_dot_product_attention(self._split(self.query(x)), *seen, attn_mask=mask, is_causal=causal)
        added: Tensor = self.norm(x + self.dropout(self.add(mixed.transpose(1, 2).flatten(2))))
        return added

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class _Perceptron(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.mix = nn.Linear(sizes.width, sizes.inner)
        self.add = nn.Linear(sizes.inner, sizes.width)
        self.dropout = nn.Dropout(sizes.dropout)
        self.norm = nn.LayerNorm(sizes.width)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.norm(x + self.dropout(self.add(F.relu(self.mix(x)))))
        return added


class _Decoding:
    """What each decoder layer remembers: of the source once a sentence, of its own tokens once a hypothesis."""

    def __init__(self, model: Transformer, mask: Tensor, encoded: Tensor) -> None:
        self.model, self.mask = model, mask
        self.layers: list[Any] = list(model.decoder)
        self.source: list[Remembered] = [layer.across.remember(encoded) for layer in self.layers]
        self.own: list[Remembered] = []  # (n, beam) in one dimension

    def next(self, tokens: Tensor) -> Tensor:
        """Log-probabilities ``(n, beam, vocabulary)`` after one more token each ``(n, beam)``."""
        n, beam = tokens.shape
        first = self.own[0][0].shape[2] if self.own else 0
        x = self.model._embed(self.model.target, tokens.flatten().unsqueeze(1), first)  # (n beam, 1, width)
        past, self.own = self.own, []
        for i, layer in enumerate(self.layers):
            now = layer.itself.remember(x)
            if past:
                now = torch.cat([past[i][0], now[0]], dim=2), torch.cat([past[i][1], now[1]], dim=2)
            self.own.append(now)
            x = layer.itself(x, now).view(n, beam, -1)  # all the hypotheses of a sentence ask the same source
            x = layer.perceptron(layer.across(x, self.source[i], mask=self.mask)).view(n * beam, 1, -1)
        return F.log_softmax(F.linear(x.view(n, beam, -1), self.model.target.weight), dim=2)

    def keep(self, sentences: Tensor, parents: Tensor) -> None:
        """Go on with these sentences ``(m,)``, and for each with these of its hypotheses ``(m, beam)``."""
        rows = (sentences.unsqueeze(1) * parents.shape[1] + parents).flatten()
        self.own = [(key[rows], value[rows]) for key, value in self.own]
        if len(sentences) < len(self.mask):
            self.mask = self.mask[sentences]
            self.source = [(key[sentences], value[sentences]) for key, value in self.source]
